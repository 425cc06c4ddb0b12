"""Policies: which of a token's selected experts stay. Those of ST-MoE keep the first always.

`gates` are the weights of the selection by rank; what a policy drops is not redistributed. Fields are numbers or
arrays, so that `vmap` sweeps them and schedules change them. A policy of your own has `keep`, as here one that keeps
what is at least half as heavy as the first:

    class Half(Policy):
        def keep(self, gates, key):                 # [tokens, routes], best first -> the same shape, boolean
            return gates >= gates[:, :1] / 2

**Source:** [st-moe] (second expert policy); [himoe-code] ST-MoE router, threshold 0.2.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .. import _checks


class Policy(eqx.Module):
    """What a router asks of a policy."""

    def keep(self, gates: Float[Array, "tokens routes"], key: PRNGKeyArray | None) -> Bool[Array, "tokens routes"]:
        """Whether each route stays."""
        raise NotImplementedError(f"`{type(self).__name__}` must have a method `keep(gates, key)`.")

    @property
    def thins(self) -> bool:
        """Whether a token may keep fewer experts than it selected."""
        return True

    @property
    def is_random(self) -> bool:
        """Whether it needs a key."""
        return False


class KeepAll(Policy):
    """Every selected expert stays."""

    @property
    def thins(self) -> bool:
        """False."""
        return False

    def keep(self, gates: Float[Array, "tokens routes"], key: PRNGKeyArray | None) -> Bool[Array, "tokens routes"]:
        """All true."""
        return jnp.ones(gates.shape, bool)


class KeepFirst(Policy):
    """Only the first `count` experts stay (policy `none` for 1). A traced count is a schedule for k."""

    count: int | float | Float[Array, ""] = 1.0
    """Experts that stay, the best."""

    def __check_init__(self):
        _checks.coefficient("count", self.count, minimum=1.0)

    def keep(self, gates: Float[Array, "tokens routes"], key: PRNGKeyArray | None) -> Bool[Array, "tokens routes"]:
        """True in the first columns."""
        place = jnp.arange(gates.shape[1], dtype=gates.dtype)
        return jnp.broadcast_to(place < jnp.asarray(self.count).astype(gates.dtype), gates.shape)


class KeepAbove(Policy):
    """A later expert stays if its gate exceeds the threshold (policy `threshold`)."""

    threshold: float | Float[Array, ""] = 0.2
    """Gate that a later expert must exceed."""

    def __check_init__(self):
        _checks.coefficient("threshold", self.threshold, maximum=1.0)

    def keep(self, gates: Float[Array, "tokens routes"], key: PRNGKeyArray | None) -> Bool[Array, "tokens routes"]:
        """First column, and gate > threshold."""
        return KeepFirst().keep(gates, key) | (gates > jnp.asarray(self.threshold).astype(gates.dtype))


class KeepRandomly(Policy):
    """A later expert stays with probability min(1, gate / threshold) (policy `random`)."""

    threshold: float | Float[Array, ""] = 0.2
    """Gate from which a later expert surely stays."""

    def __check_init__(self):
        _checks.positive("threshold", self.threshold)
        _checks.coefficient("threshold", self.threshold, maximum=1.0)

    @property
    def is_random(self) -> bool:
        """True."""
        return True

    def keep(self, gates: Float[Array, "tokens routes"], key: PRNGKeyArray | None) -> Bool[Array, "tokens routes"]:
        """First column, and a uniform number below gate / threshold."""
        if key is None:
            raise ValueError("`key` must be given to a router with the random policy; got None.")
        drawn = jax.random.uniform(key, gates.shape, gates.dtype)
        return KeepFirst().keep(gates, key) | (drawn < gates / jnp.asarray(self.threshold).astype(gates.dtype))
