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
from .fields import Field, State, evaluated


class Path(NamedTuple):
    """States at the times asked for: every leaf has the times as a first axis."""

    times: Float[np.ndarray, " times"]
    states: State


def flow(
    field: Field, start: State, times: Sequence[float] | Float[np.ndarray, " times"], *, tolerance: float | None = None
) -> Path:
    r"""Solves $\dot z = F(z)$ from `start` at the first of `times` (SciPy's DOP853, error controlled).

    **Arguments:** `times`: increasing, at least two. `tolerance`: relative error of a step; also absolute, times the
    largest number of the start (or 1). The precision of the state to the power 2/3 if not given: 4e-11 for float64.
    **Returns:** the states as NumPy arrays, float64. **Raises:** `ValueError` for bad times or a start that is not
    finite, `RuntimeError` if the solver gives up, as for a field that becomes infinite.
    """
    from scipy.integrate import solve_ivp

    times = checked_times(times)
    rate, flat, unravel = flat_field(field, start)
    rtol, atol = tolerances(start, tolerance)
    found = solve_ivp(rate, times[[0, -1]], flat, method="DOP853", t_eval=times, rtol=rtol, atol=atol)
    if found.status != 0:
        reached = (
            f"of {times.size} times it reaches {found.t.size}, up to {found.t[-1] if found.t.size else times[0]:g}"
        )
        raise RuntimeError(f"the flow must reach time {times[-1]:g}; {reached}. {found.message}")
    return Path(times, stacked(unravel, found.y.T))


def settle(field: Field, start: State, *, span: float, rest: float = 1e-10, rounds: int = 60) -> State:
    """The state where the flow comes to rest: |F| below `rest`, looked at after every `span` of time.

    **Raises:** `RuntimeError` if it still moves after `rounds` spans: an oscillation, or too short a span.
    """
    _checks.positive("span", span)
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
    found = np.asarray(times, dtype=np.float64)
    if found.ndim != 1 or found.size < 2 or not np.isfinite(found).all() or not (np.diff(found) > 0).all():
        raise ValueError(f"`times` must be at least two increasing numbers; got {found.tolist()}.")
    return found


def tolerances(start: State, tolerance: float | None) -> tuple[float, float]:
    """What SciPy's solvers call `rtol` and `atol`."""
    flat = np.asarray(ravel_pytree(start)[0])
    relative = float(np.finfo(flat.dtype).eps) ** (2 / 3) if tolerance is None else tolerance
    _checks.positive("tolerance", relative)
    return relative, relative * (float(np.abs(flat).max()) or 1.0)


def flat_field(
    field: Field, start: State
) -> tuple[Callable[[float, np.ndarray], np.ndarray], np.ndarray, Callable[[np.ndarray], State]]:
    """The field as solvers want it, (time, vector) -> vector; the start as a vector; and the way back to a state."""
    like = jax.tree.map(jnp.asarray, start)
    flat, unravel = ravel_pytree(like)
    _checks.matrix("start", flat, ("numbers",))

    def rate(time: float, vector: np.ndarray) -> np.ndarray:
        return np.asarray(_velocity(field, like, jnp.asarray(vector, flat.dtype)), dtype=np.float64)

    return rate, np.asarray(flat, dtype=np.float64), lambda vector: unravel(jnp.asarray(vector, flat.dtype))


def stacked(unravel: Callable[[np.ndarray], State], vectors: Float[np.ndarray, "times size"]) -> State:
    """A state whose leaves have the times as a first axis."""
    states = [unravel(vector) for vector in vectors]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *states)


def _last(leaf: Float[np.ndarray, "times ..."]) -> Float[np.ndarray, "..."]:
    return leaf[-1]


@eqx.filter_jit
def _velocity(field: Field, like: State, vector: Array) -> Array:
    return ravel_pytree(evaluated(field, ravel_pytree(like)[1](vector)))[0]
