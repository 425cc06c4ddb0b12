"""An objective on a stack of cases: value, gradient as the record has it, and as training would take it."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..objectives import Objective, View
from ..objectives.record import GIVEN
from ..routers import Router
from .cases import Cases

STACK = 64
"""Cases of one call, so that every call is one program."""


class Evaluated(NamedTuple):
    """Of each case. `gradient`: as the record has it. `autodiff`: through the router, decisions being constants."""

    value: Float[np.ndarray, " cases"]
    gradient: Float[np.ndarray, "cases tokens *rest"]
    autodiff: Float[np.ndarray, "cases tokens *rest"]


@dataclasses.dataclass(frozen=True)
class Runner:
    """An objective behind a router, in one dtype. Compiled once for each number of tokens."""

    objective: Objective
    router: Router
    dtype: str = "float64"

    def __call__(self, cases: Cases, mask: Bool[np.ndarray, " tokens"] | None = None) -> Evaluated:
        """Everything in float64 outside; a stack of any length."""
        parts = [self._some(cases.take(slice(at, at + STACK)), mask) for at in range(0, cases.number, STACK)]
        return Evaluated(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _some(self, cases: Cases, mask: Bool[np.ndarray, " tokens"] | None) -> Evaluated:
        index = np.minimum(np.arange(STACK), cases.number - 1)
        put = Cases(*(jnp.asarray(part[index], self.dtype) for part in cases))
        shown = None if mask is None else jnp.asarray(mask)
        found = evaluated(self.objective, self.router, put, shown)
        return Evaluated(*(np.asarray(each, np.float64)[: cases.number] for each in found))

    @property
    def variable(self) -> str:
        """What the gradient is in: a field of `Cases`."""
        return "outputs" if self.objective.of == "outputs" else "logits"


@eqx.filter_jit
def evaluated(
    objective: Objective, router: Router, cases: Cases, mask: Bool[Array, " tokens"] | None
) -> tuple[Array, Array, Array]:
    """See `Evaluated`."""
    name = "outputs" if objective.of == "outputs" else "logits"

    def one(case: Cases) -> tuple[Array, Array, Array]:
        at = getattr(case, name)

        def value(moved: Array) -> Array:
            return objective.value(view_of(objective, router, case._replace(**{name: moved}), mask))

        found, slope = jax.value_and_grad(value)(at)
        return found, objective.gradient(view_of(objective, router, case, mask)), slope

    return jax.vmap(one)(cases)


def view_of(objective: Objective, router: Router, case: Cases, mask: Bool[Array, " tokens"] | None) -> View:
    """What the objective reads of one case: only what it says that it needs."""
    state = router.init(case.logits.dtype)
    routing, _ = router.step(None, state, case.logits, mask=mask, training=False)
    above = router.step(None, state, case.above, mask=mask, training=False)[0]
    return given(objective, View(routing, case.outputs, case.x, None, above, case.costs))


def given(objective: Objective, view: View) -> View:
    """The view without what the objective does not say that it needs."""
    kept = {name: getattr(view, name) for name in GIVEN if name in objective.needs}
    return View(view.routing, **kept)
