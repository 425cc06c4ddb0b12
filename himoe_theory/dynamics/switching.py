r"""Fields that jump, such as training on hard counts: Filippov's sliding motion, and smoothed counts with their limit.

Where the velocities on both sides of a surface point at it, a path cannot leave: it slides along the surface with the
convex combination of both that is tangent to it. For a load with hard counts and two experts the surface is a tie
between the two (of a token, or of all tokens that are alike), and the weight of the combination is the share of
dispatches that the first of them receives: `sliding` says what counts have to be on average (D10).
"""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .. import _checks
from ..objectives import load_for_share_grad
from ._real import Real
from .fields import Field, State
from .flows import MOST_EVALUATIONS, Path, Rate, checked_times, flat_field, stacked, tolerances

Surface = Callable[[State], Float[Array, ""]]
"""A smooth function of the state, 0 on the surface."""


class Sliding(eqx.Module):
    r"""Filippov's field on the surface, $\theta F_+ + (1-\theta) F_-$ with
    $\theta = a_-/(a_- - a_+)$, $a_\pm = \nabla h \cdot F_\pm$.

    Tangent to the surface; what a path does there as long as $\theta \in [0, 1]$ and $a_+ < a_-$.

    **Arguments:** `above`, `below`: $F_+$ where the surface's function h is positive, $F_-$ where it is negative.
    **Source:** [himoe-theory] D10.
    """

    above: Field
    below: Field
    surface: Surface

    def approach(self, state: State) -> tuple[Float[Array, ""], Float[Array, ""]]:
        r"""$a_+$ and $a_-$: how fast h changes under either field."""
        _, up = jax.jvp(self.surface, (state,), (self.above(state),))
        _, down = jax.jvp(self.surface, (state,), (self.below(state),))
        return up, down

    def share(self, state: State) -> Float[Array, ""]:
        r"""$\theta$, the weight of the field above; infinite or NaN where both approach alike."""
        up, down = self.approach(state)
        return down / (down - up)

    def __call__(self, state: State) -> State:
        """The velocity."""
        theta = self.share(state)

        def mixed(f: Float[Array, "..."], g: Float[Array, "..."]) -> Float[Array, "..."]:
            return theta * f + (1 - theta) * g

        return jax.tree.map(mixed, self.above(state), self.below(state))


def switched_flow(
    field: Sliding,
    start: State,
    times: Sequence[float] | Float[np.ndarray, " times"],
    *,
    tolerance: float | None = None,
    switches: int = 100,
    evaluations: int = MOST_EVALUATIONS,
) -> Path:
    """The path of a field that jumps at one surface: above it, below it, across it, or sliding along it.

    Where both fields point away from the surface the path that starts on it is not unique; this one goes up.

    **Arguments:** `times`, `tolerance`: as for `flow`. `switches`: that the path may have at most. `evaluations`: of
    each of the three fields, at most. **Returns:** the states. **Raises:** as `flow`; `RuntimeError` if there are more
    switches or the surface's function is not finite on the path.
    """
    times = checked_times(times)
    _checks.kind("field", field, Sliding)
    _checks.count("switches", switches, minimum=0)
    rates = [flat_field(each, start, evaluations)[0] for each in (field.below, field, field.above)]
    _, vector, unravel = flat_field(field, start)
    like = unravel(vector)

    def probe(time: float, at: np.ndarray) -> np.ndarray:
        found = np.asarray(_probe(field, like, jnp.asarray(at, ravel_pytree(like)[0].dtype)), dtype=np.float64)
        if not np.isfinite(found).all():
            raise RuntimeError(f"surface and approach must be finite on the path; at time {time:g} they are {found}.")
        return found

    limits = tolerances(start, tolerance)
    found, now, side = [], float(times[0]), _side(probe(times[0], vector), limits[1])
    for _ in range(switches + 1):
        inside = times[(times >= now) if not found else (times > now)]
        piece, vector, now, event = _piece(rates[side + 1], probe, vector, (now, times[-1]), inside, side, limits)
        found.append(piece)
        if event is None:
            return Path(times, stacked(unravel, np.concatenate(found)))
        side = event if side == 0 else _side(np.concatenate([[0.0], probe(now, vector)[1:]]), limits[1])
    raise RuntimeError(f"the path must switch at most {switches} times; it does so again at time {now:g}.")


class SmoothedLoad(eqx.Module):
    r"""Logit gradient of a load whose counts are smooth in the logits: the field of hard counts as `width` tends to 0.

    $h_e \propto \sum_t \sigma((s_{te} - c_t)/\text{width})$ with $c_t$ half-way between the k-th and the next largest
    logit, $\sum_e h_e = 1$; gradient hard (none through h). For two experts and a width of w the count is
    $\sigma((s_1 - s_2)/2w)$. Wrong by the tokens whose margin is of order `width`.

    **Arguments:** `coefficient`: of $N \sum_e h_e P_e$. `routes`: k, of a free top-k; below N. `width`: above 0.
    **Source:** [himoe-theory] D10.
    """

    coefficient: Real
    routes: int = eqx.field(static=True)
    width: Real

    def __check_init__(self):
        _checks.coefficient("coefficient", self.coefficient)
        _checks.count("routes", self.routes)
        _checks.positive("width", self.width)

    def share(self, logits: Float[Array, "tokens experts"]) -> Float[Array, " experts"]:
        """h, non-negative with sum 1."""
        _checks.count("routes", self.routes, maximum=logits.shape[1] - 1, of="the number of experts less 1")
        ranked = jnp.sort(logits, axis=1)
        boundary = (ranked[:, -self.routes] + ranked[:, -self.routes - 1]) / 2
        counts = jax.nn.sigmoid((logits - boundary[:, None]) / self.width).sum(axis=0)
        return counts / counts.sum()

    def __call__(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """The gradient, of a batch mean."""
        return self.coefficient * load_for_share_grad(logits, self.share(logits))


@eqx.filter_jit
def _probe(field: Sliding, like: State, vector: Array) -> Array:
    """The surface's function and how fast it changes under the fields above and below."""
    state = ravel_pytree(like)[1](vector)
    return jnp.stack([field.surface(state), *field.approach(state)])


@dataclasses.dataclass(frozen=True)
class _Event:
    """A sign change, in one direction, of what `probe` gives at one place: it ends a piece of the path."""

    probe: Callable[[float, np.ndarray], np.ndarray]
    place: int
    direction: int
    goes: int
    """The side on which the path continues."""
    terminal: bool = True

    def __call__(self, time: float, vector: np.ndarray) -> float:
        return float(self.probe(time, vector)[self.place])


def _side(probed: np.ndarray, rounding: float) -> int:
    """1 above, -1 below, 0 sliding: where the path goes from a state."""
    height, up, down = probed
    if abs(height) > rounding:
        return 1 if height > 0 else -1
    if up < 0:
        return 0 if down > 0 else -1
    return 1


def _piece(
    rate: Rate,
    probe: Callable[[float, np.ndarray], np.ndarray],
    start: np.ndarray,
    span: tuple[float, float],
    inside: np.ndarray,
    side: int,
    limits: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray, float, int | None]:
    """States at the times `inside` until the path switches, the last state, when, and where to (`None`: the end)."""
    from scipy.integrate import solve_ivp

    # Off the surface, until it is reached; on it, until the field above or below turns away from it.
    events = [_Event(probe, 0, -side, 0)] if side else [_Event(probe, 1, 1, 1), _Event(probe, 2, -1, -1)]
    rtol, atol = limits
    rate.check_start(span[0], start)
    with np.errstate(over="ignore", invalid="ignore"):  # a step that overflows is refused by the solver
        found = solve_ivp(rate, span, start, method="DOP853", dense_output=True, events=events, rtol=rtol, atol=atol)
    if found.status < 0:
        raise RuntimeError(f"the flow must reach time {span[1]:g}; it stops near time {rate.time:g}. {found.message}")
    end = float(found.t[-1])
    states = found.sol(inside[inside <= end]).T if (inside <= end).any() else np.empty((0, start.size))
    fired = next((event.goes for event, when in zip(events, found.t_events, strict=True) if when.size), None)
    return states, found.y[:, -1], end, fired
