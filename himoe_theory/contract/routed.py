"""A router on a stack of cases: what it decides, and what of the task comes back to the logits."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..routers import Router
from ..routing import Routing
from .cases import Cases
from .programs import STACK


class Decided(NamedTuple):
    """Of each case, as numbers. `gradient`: of a task, the mean over tokens of a linear function of the experts'
    outputs, in the logits. `state`: of the controller, after the step, as one row, 0 first."""

    selected: Float[np.ndarray, "cases tokens experts"]
    kept: Float[np.ndarray, "cases tokens experts"]
    combine: Float[np.ndarray, "cases tokens experts"]
    slots: Float[np.ndarray, "cases tokens experts"]
    log_probs: Float[np.ndarray, "cases tokens experts"]
    gradient: Float[np.ndarray, "cases tokens experts"]
    state: Float[np.ndarray, "cases size"]


@dataclasses.dataclass(frozen=True)
class RouterRunner:
    """A router from its first state, with the same draw for every case if it is random."""

    router: Router
    training: bool = False
    dtype: str = "float64"

    def __call__(self, cases: Cases, mask: Bool[np.ndarray, " tokens"] | None = None) -> Decided:
        """A stack of any length."""
        parts = [self._some(cases.logits[at : at + STACK], mask) for at in range(0, cases.number, STACK)]
        return Decided(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _some(
        self, logits: Float[np.ndarray, "cases tokens experts"], mask: Bool[np.ndarray, " tokens"] | None
    ) -> Decided:
        put = jnp.asarray(logits[np.minimum(np.arange(STACK), len(logits) - 1)], self.dtype)
        worth = jnp.asarray(np.random.default_rng(3).standard_normal(put.shape[1:]), self.dtype)
        key = jax.random.key(0) if self.router.is_random else None
        shown = None if mask is None else jnp.asarray(mask)
        found = _decided(self.router, key, put, worth, shown, self.training)
        return Decided(*(np.asarray(each, np.float64)[: len(logits)] for each in found))


@eqx.filter_jit
def _decided(
    router: Router,
    key: PRNGKeyArray | None,
    stack: Float[Array, "cases tokens experts"],
    worth: Float[Array, "tokens experts"],
    mask: Bool[Array, " tokens"] | None,
    training: bool,
) -> tuple[Array, ...]:
    def one(logits: Float[Array, "tokens experts"]) -> tuple[Array, ...]:
        def step(at: Float[Array, "tokens experts"]) -> tuple[Routing, Array]:
            state = router.init(at.dtype)
            routing, state = router.step(key, state, at, mask=mask, training=training)
            leaves = [leaf.reshape(-1).astype(at.dtype) for leaf in jax.tree.leaves(state)]
            return routing, jnp.concatenate([jnp.zeros(1, at.dtype), *leaves])

        def task(at: Float[Array, "tokens experts"]) -> tuple[Array, tuple[Routing, Array]]:
            routing, state = step(at)
            return (routing.combine * worth.astype(routing.combine.dtype)).sum(), (routing, state)

        slope, (found, state) = jax.grad(task, has_aux=True)(logits)
        return found.selected, found.kept, found.combine, found.slots, found.log_probs, slope, state

    return jax.vmap(one)(stack)
