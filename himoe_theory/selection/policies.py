"""Policies of ST-MoE: which of a token's selected experts stay. The first always does.

`gates` are the scores renormalised over the selection, by rank; what a policy drops is not redistributed.
**Source:** [st-moe] (second expert policy); [himoe-code] ST-MoE router, threshold 0.2.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .. import _checks


@dataclasses.dataclass(frozen=True)
class KeepAll:
    """Every selected expert stays."""

    def keep(self, gates: Float[Array, "tokens routes"], key: PRNGKeyArray | None) -> Bool[Array, "tokens routes"]:
        """All true."""
        return jnp.ones(gates.shape, bool)


@dataclasses.dataclass(frozen=True)
class KeepFirst:
    """Only the first expert stays (policy `none`)."""

    def keep(self, gates: Float[Array, "tokens routes"], key: PRNGKeyArray | None) -> Bool[Array, "tokens routes"]:
        """True in the first column."""
        return jnp.broadcast_to(jnp.arange(gates.shape[1]) == 0, gates.shape)


@dataclasses.dataclass(frozen=True)
class KeepAbove:
    """A later expert stays if its gate exceeds the threshold (policy `threshold`)."""

    threshold: float = 0.2

    def __post_init__(self):
        _checks.coefficient("threshold", self.threshold, maximum=1.0)

    def keep(self, gates: Float[Array, "tokens routes"], key: PRNGKeyArray | None) -> Bool[Array, "tokens routes"]:
        """First column, and gate > threshold."""
        return KeepFirst().keep(gates, key) | (gates > self.threshold)


@dataclasses.dataclass(frozen=True)
class KeepRandomly:
    """A later expert stays with probability min(1, gate / threshold) (policy `random`)."""

    threshold: float = 0.2

    def __post_init__(self):
        _checks.coefficient("threshold", self.threshold, maximum=1.0)
        if self.threshold == 0:
            raise ValueError("`threshold` must be above 0 for a random policy; got 0.")

    def keep(self, gates: Float[Array, "tokens routes"], key: PRNGKeyArray | None) -> Bool[Array, "tokens routes"]:
        """First column, and a uniform number below gate / threshold."""
        if key is None:
            raise ValueError("`key` must be given to a router with the random policy; got None.")
        drawn = jax.random.uniform(key, gates.shape, gates.dtype)
        return KeepFirst().keep(gates, key) | (drawn < gates / self.threshold)


Policy = KeepAll | KeepFirst | KeepAbove | KeepRandomly
