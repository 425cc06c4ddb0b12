r"""Paths of a field through a state space, as an ordinary differential equation.

`flow` takes any field: `FreeLogits`, `LinearRouter` and `RouterAndExperts` are the gradient flows of training,
`Reinforcement` and its kin those of D7 to D9, and `LinearRouter` with a `PopulationGradient` the mean-field limit.
Flows are what training does as its rate tends to 0, time being rate times steps. Fields that jump are for `switching`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .. import _checks
from .fields import Field, State, evaluated, leaves

MOST_EVALUATIONS = 10**6
"""Of a field along one path: a minute or so, far more than smooth fields take."""

MOST_LOST = 1000
"""Evaluations that are not finite before a path is given up: steps shrink by 5, so that some 300 are many."""


class Path(NamedTuple):
    """States at the times asked for: every leaf has the times as a first axis."""

    times: Float[np.ndarray, " times"]
    states: State


def flow(
    field: Field,
    start: State,
    times: Sequence[float] | Float[np.ndarray, " times"],
    *,
    tolerance: float | None = None,
    evaluations: int = MOST_EVALUATIONS,
) -> Path:
    r"""Solves $\dot z = F(z)$ from `start` at the first of `times` (SciPy's DOP853, error controlled).

    **Arguments:** `times`: increasing, at least two. `tolerance`: relative error of a step; also absolute, times the
    largest number of the start (or 1). The precision of the state to the power 2/3 if not given: 4e-11 for float64.
    `evaluations`: of the field, at most; a field that jumps wants ever smaller steps. **Returns:** the states as NumPy
    arrays, float64. **Raises:** `ValueError` for bad times, a start that is not finite or a field that is not finite
    there, `RuntimeError` if the path cannot be followed to the last time: the field becomes NaN or infinite on the way,
    the state does, or the evaluations are used up.
    """
    from scipy.integrate import solve_ivp

    times = checked_times(times)
    rate, flat, unravel = flat_field(field, start, evaluations)
    rtol, atol = tolerances(start, tolerance)
    rate.check_start(times[0], flat)
    with np.errstate(over="ignore", invalid="ignore"):  # a step that overflows is refused by the solver
        found = solve_ivp(rate, times[[0, -1]], flat, method="DOP853", t_eval=times, rtol=rtol, atol=atol)
    if found.status != 0:
        raise RuntimeError(f"the flow must reach time {times[-1]:g}; it stops near time {rate.time:g}. {found.message}")
    return Path(times, stacked(unravel, found.y.T))


def settle(field: Field, start: State, *, span: float, rest: float = 1e-10, rounds: int = 60) -> State:
    """The state where the flow comes to rest: |F| below `rest`, looked at after every `span` of time.

    **Raises:** as `flow`; `RuntimeError` if it still moves after `rounds` spans: an oscillation, or too short a span.
    """
    _checks.positive("span", span)
    _checks.positive("rest", rest)
    _checks.count("rounds", rounds)
    speed = np.inf
    for _ in range(rounds):
        start = jax.tree.map(_last, flow(field, start, (0.0, span)).states)
        rate, flat, _ = flat_field(field, start)
        speed = float(np.linalg.norm(rate(0.0, flat)))
        if speed < rest:
            return start
    raise RuntimeError(f"the flow must rest below speed {rest:g}; after {rounds} spans of {span:g} it is {speed:.3g}.")


def checked_times(times: Sequence[float] | Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
    """`times` as an increasing array of at least two finite numbers."""
    found = _checks.real("times", times)
    if found.ndim != 1 or found.size < 2 or not np.isfinite(found).all() or not (np.diff(found) > 0).all():
        raise ValueError(f"`times` must be at least two increasing numbers; got {_few(found)}.")
    return found


def tolerances(start: State, tolerance: float | None) -> tuple[float, float]:
    """What SciPy's solvers call `rtol` and `atol`."""
    flat = np.asarray(ravel_pytree(start)[0])
    relative = float(np.finfo(flat.dtype).eps) ** (2 / 3) if tolerance is None else tolerance
    _checks.positive("tolerance", relative)
    return relative, relative * (float(np.abs(flat).max()) or 1.0)


class Rate:
    """A field as solvers want it, (time, vector) -> vector.

    Solvers refuse steps that end where the field is not finite and try shorter ones. That they are lost they need not
    notice: a step too short to move a number is accepted, and from a NaN at the start no step follows at all.
    """

    def __init__(self, field: Field, like: State, dtype: np.dtype, evaluations: int):
        _checks.count("evaluations", evaluations)
        self._field, self._like, self._dtype, self._left, self._bad = field, like, dtype, evaluations, 0
        self.time = 0.0
        """Where the field was asked for last."""

    def __call__(self, time: float, vector: np.ndarray) -> np.ndarray:
        if self._bad > MOST_LOST:
            raise RuntimeError(f"the field must be finite on the way; near time {self.time:g} it is not.")
        if not self._left:
            raise RuntimeError(f"the flow must end within `evaluations` of the field; they are used up at {time:g}.")
        self.time, self._left = float(time), self._left - 1
        found = self._at(vector)
        self._bad += not np.isfinite(found).all()
        return found

    def check_start(self, time: float, vector: np.ndarray) -> None:
        """**Raises:** `ValueError` where the field is not finite: no step is short enough."""
        bad = ~np.isfinite(self._at(vector))
        if bad.any():
            raise ValueError(f"the field must be finite at the start, {time:g}; {bad.sum()} of {bad.size} are not.")
        self.time = float(time)

    def _at(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(_velocity(self._field, self._like, jnp.asarray(vector, self._dtype)), dtype=np.float64)


def flat_field(
    field: Field, start: State, evaluations: int = MOST_EVALUATIONS
) -> tuple[Rate, np.ndarray, Callable[[np.ndarray], State]]:
    """The field for solvers; the start as a vector; and the way back to a state."""
    _checks.function("field", field)
    like = leaves("start", start)
    flat, unravel = ravel_pytree(like)
    _checks.matrix("start", flat, ("numbers",))
    rate = Rate(field, like, flat.dtype, evaluations)
    return rate, np.asarray(flat, dtype=np.float64), lambda vector: unravel(jnp.asarray(vector, flat.dtype))


def stacked(unravel: Callable[[np.ndarray], State], vectors: Float[np.ndarray, "times size"]) -> State:
    """A state whose leaves have the times as a first axis."""
    states = [unravel(vector) for vector in vectors]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *states)


def _few(numbers: np.ndarray) -> str:
    return str(numbers.tolist()) if numbers.size <= 4 else f"shape {numbers.shape}"


def _last(leaf: Float[np.ndarray, "times ..."]) -> Float[np.ndarray, "..."]:
    return leaf[-1]


@eqx.filter_jit
def _velocity(field: Field, like: State, vector: Array) -> Array:
    return ravel_pytree(evaluated(field, ravel_pytree(like)[1](vector)))[0]
