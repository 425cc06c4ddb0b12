"""What determines a run, and the numbers in it that runs of one structure do not share."""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from himoe_theory import Router
from himoe_theory.objectives import Objective

from .arms import Arm
from .data import Data
from .layer import Layer
from .source import Training


@dataclasses.dataclass(frozen=True)
class Setting:
    """All that determines a run, but its seed."""

    arm: Arm
    data: Data
    layer: Layer
    training: Training


class Settings(eqx.Module):
    """The numbers in which runs of one structure differ; every leaf has leading axes `[seeds, arms]`."""

    router: Router
    coefficients: dict[str, Float[Array, "*seeds_arms"]]
    learning_rate: Float[Array, "*seeds_arms"]
    updates: dict[str, Float[Array, "*seeds_arms"]] = eqx.field(default_factory=dict)
    """Factors of the optimiser's updates of some parameters."""


def stack(rows: Sequence[Sequence[tuple[Arm, float]]], terms: Sequence[Objective]) -> Settings:
    """The numbers of arms of one structure, each with its learning rate; a term that an arm lacks has coefficient 0.

    **Arguments:** `rows`: for every seed its arms, equally many.
    """

    def table(of: Callable[[Arm, float], float]) -> Float[Array, "seeds arms"]:
        return jnp.asarray([[of(*one) for one in row] for row in rows], jnp.float32)

    routers = [[dataclasses.replace(arm.router, name="batch", source="batch") for arm, _ in row] for row in rows]
    by_seed = [jax.tree.map(lambda *numbers: np.asarray(numbers, np.float32), *row) for row in routers]
    return Settings(
        jax.tree.map(lambda *one: jnp.asarray(np.stack(one)), *by_seed),
        {term.name: table(lambda arm, _, name=term.name: arm.terms.get(name, 0.0)) for term in terms},
        table(lambda _, rate: rate),
    )
