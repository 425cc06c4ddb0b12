r"""How fast an objective makes the four modes of small logits grow at uniform routing, and where that turns.

As in `dynamics.growth`, for any objective: the flow $\dot s = -T\,\partial L/\partial s$ is linearised at equal logits
and equal counts, and its Jacobian averaged over each space of modes. Decisions are constants: what hard counts answer
is a jump, which no rate shows.
"""

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
from ..partition import Partition
from .angles import without_parameters
from .cases import float64
from .measured import even_view

MODES = ("contrast within", "contrast between", "common within", "common between")
PUSH, PULL = ("intra_group_global", 0.1), ("load_frozen", 0.01)
"""What grows modes and what stops them in the published setting: objective and coefficient."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """Of one mode, with coefficient 1. `least`, `greatest`: over the directions that bear its name; equal where the
    name is one mode. `critical`: the coefficient at which it balances `against`; `None` where there is none."""

    rate: float
    least: float
    greatest: float
    critical: float | None
    against: str


def growth(objective: str | Objective, *, num_experts: int = 8, num_groups: int = 4, k: int = 2) -> Mapping[str, Rate]:
    r"""Rates of the four modes at uniform routing, and critical coefficients. Positive is growth.

    A mode that the objective damps has as critical coefficient the one that stops what `intra_group_global` of 0.1
    makes grow; one that it makes grow, the one above which `load_frozen` of 0.01 no longer stops it; where the other
    has no rate there is none. **Arguments:** groups are equal, of at least two experts; `k`: experts a token.
    **Raises:** `ValueError` for an objective of outputs or one that cannot be evaluated. **Source:** [himoe-theory] D1.
    """
    objective = chosen(objective)
    if objective.of == "outputs":
        raise ValueError(f"`objective` must have a gradient in logits; that of {objective.name} is in outputs.")
    without_parameters(objective)
    _checks.count("num_groups", num_groups, minimum=2, maximum=num_experts // 2, of="groups of two experts")
    _checks.count("k", k, maximum=num_experts, of="num_experts")
    partition = Partition.equal(num_experts, num_groups)
    found = _rates(objective, k, partition)
    grows, damps = (_rates(OBJECTIVES[name], k, partition) for name, _ in (PUSH, PULL))
    return {mode: Rate(*each, *_critical(each[0], grows[mode][0], damps[mode][0])) for mode, each in found.items()}


def _critical(rate: float, grows: float, damps: float) -> tuple[float | None, str]:
    """The coefficient at which the rate balances what is against it, and what that is."""
    other, (name, coefficient) = (grows, PUSH) if rate < 0 else (damps, PULL)
    balance = -coefficient * other
    return (balance / rate if rate * balance > 0 else None), f"{name} {coefficient:g}"


def _rates(objective: Objective, k: int, partition: Partition) -> dict[str, tuple[float, float, float]]:
    """Mean, least and greatest rate in each space of modes; what is below rounding is 0."""
    experts = partition.num_experts
    with float64():
        matrix = np.asarray(_jacobian(objective, k, partition, jnp.zeros((experts, experts))))
    matrix = matrix.reshape(experts**2, experts**2)
    symmetric = (matrix + matrix.T) / 2
    rounding = 1e-12 * max(1.0, float(np.abs(matrix).max()))
    found: dict[str, tuple[float, float, float]] = {}
    for mode in MODES:
        space = _space(mode, partition)
        inside = np.linalg.eigvalsh(space.T @ symmetric @ space)
        least, mean, greatest = (float(e) if abs(e) > rounding else 0.0 for e in (inside[0], inside.mean(), inside[-1]))
        found[mode] = (mean, least, greatest)
    return found


def _space(mode: str, partition: Partition) -> Float[np.ndarray, "size modes"]:
    """Orthonormal columns that span the displacements of that name; as many tokens as experts."""
    experts = partition.num_experts
    token, expert = mode.split()
    everywhere = np.full((experts, experts), 1 / experts)
    inside = partition.indicator().astype(float)
    groups = inside / inside.sum(axis=0) @ inside.T
    tokens = everywhere if token == "common" else np.eye(experts) - everywhere
    rows = groups - everywhere if expert == "between" else np.eye(experts) - groups
    values, vectors = np.linalg.eigh(np.kron(tokens, rows))
    return vectors[:, values > 0.5]


@eqx.filter_jit
def _jacobian(objective: Objective, k: int, partition: Partition, logits: Float[Array, "tokens experts"]) -> Array:
    def velocity(at: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        return -at.shape[0] * objective.gradient(even_view(objective, at, k, partition))

    return jax.jacfwd(velocity)(logits)
