"""Angles between an objective's gradient and those of others, beside what chance gives."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from ..objectives import OBJECTIVES, Objective
from ..objectives.catalogue import chosen
from ..routers import Router
from .cases import EXPERTS, TOKENS, Cases, drawn, float64
from .objective import flat_router
from .programs import view_of

DRAWS = 64
"""Batches of which the cosines are taken."""


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Mean over draws, and the interval that holds 95 % of them."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Angles:
    """Cosines of one objective with others at one spread of the logits.

    `chance`: 95 % of random directions in the same space have a cosine of at most this size. `with_`: by name.
    """

    spread: float
    chance: float
    with_: Mapping[str, Cosine]


def cosines(
    objective: str | Objective, spread: float = 1.0, *, others: Mapping[str, Objective] = OBJECTIVES, draws: int = DRAWS
) -> Angles:
    r"""Cosines in logit space of an objective's gradient with those of others, over the whole batch.

    Batches of 8 tokens and 8 experts, two a token, with independent normal logits of standard deviation `spread`.
    **Arguments:** `others`: by name; those of outputs, and the objective itself, are passed over. **Raises:**
    `ValueError` for an objective of outputs or one that cannot be evaluated. **Source:** [himoe-theory] D4.
    """
    objective = chosen(objective, others)
    _checks.positive("spread", spread)
    _checks.count("draws", draws, minimum=2)
    if objective.of == "outputs":
        raise ValueError(f"`objective` must have a gradient in logits; that of {objective.name} is in outputs.")
    without_parameters(objective)
    beside = tuple(each for each in others.values() if each != objective and _comparable(each))
    cases = drawn(np.random.default_rng(2), [spread] * draws)
    with float64():
        given = Cases(*(jnp.asarray(part) for part in cases))
        own = np.asarray(_gradients((objective,), flat_router(), given))[0].reshape(draws, -1)
        every = np.asarray(_gradients(beside, flat_router(), given)).reshape(len(beside), draws, -1)
    found = {each.name: _cosine(own, gradients) for each, gradients in zip(beside, every, strict=True)}
    return Angles(spread, chance(TOKENS * (EXPERTS - objective.gauge_invariant)), found)


def chance(dimension: int) -> float:
    """What the cosine of two random directions exceeds in size once in twenty times."""
    # Imported here: closed forms need none of SciPy.
    import scipy.special

    return float(np.sqrt(scipy.special.betaincinv(0.5, (dimension - 1) / 2, 0.95)))


def without_parameters(objective: Objective) -> None:
    """`ValueError` for an objective of the layer's parameters: there are none outside training."""
    if "parameters" in objective.needs:
        raise ValueError(f"{objective.name} needs `parameters`, which are there in training alone.")


def _comparable(objective: Objective) -> bool:
    return objective.of != "outputs" and "parameters" not in objective.needs


def _cosine(a: Float[np.ndarray, "draws size"], b: Float[np.ndarray, "draws size"]) -> Cosine:
    inner = (a * b).sum(axis=1)
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found = np.divide(inner, size, out=np.zeros_like(inner), where=size > 0)
    low, high = np.quantile(found, [0.025, 0.975])
    return Cosine(float(found.mean()), float(low), float(high))


@eqx.filter_jit
def _gradients(objectives: tuple[Objective, ...], router: Router, cases: Cases) -> Float[Array, "objectives draws ..."]:
    def one(case: Cases) -> Array:
        return jnp.stack([each.gradient(view_of(each, router, case, None)) for each in objectives])

    return jnp.swapaxes(jax.vmap(one)(cases), 0, 1)
