"""Training on hard counts that meets a tie, against Filippov's sliding motion (D10)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float

from himoe_theory import _checks, dynamics
from himoe_theory import objectives as obj

from .steps import descend, fitted_rate

GAIN, DECAY = 1.5, 0.5
"""η and λ of the reinforced scores."""
SHARPNESS = (0.5, 1.5, 8)
"""First, last and number of the tokens' inverse temperatures: equal scores are a tie for all of them."""
OTHERS = 6
"""Experts besides the two that meet: they rise, and take probability from these, but never lead."""
AHEAD = (0.2, 0.0, *(-0.1,) * OTHERS)
"""What moves the scores whatever is counted."""
START = (0.0, 0.5, *(-2.0,) * OTHERS)
"""Scores at first: the second expert leads."""

State = dict[str, Float[Array, " experts"]]
"""`scores`, and `counted`: the shares of tokens counted for every expert, summed over time."""
States = dict[str, Float[Array, "times experts"]]


def sliding(
    loads: tuple[float, ...] = (0.2, 0.1, 0.04),
    strides: tuple[int, ...] = (1, 3, 10, 30),
    records: int = 120,
    interval: float = 0.1,
) -> xr.Dataset:
    r"""Plain steps of reinforced scores under a load that counts its tokens, against `dynamics.switched_flow`.

    Token t has logits $\beta_t x$. With $h_e$ the share of tokens whose largest logit is e's, and means over tokens,
    $\dot x_e = \overline{\eta \pi_e} - \lambda x_e + a_e - \alpha N \overline{\beta \pi_e (h_e - \langle h, \pi
    \rangle)}$. Steps count anew every time and know of no tie; theory knows how scores move while the first expert is
    counted, while the second is, and that where both lead to the tie $x_1 = x_2$ the scores slide on it, counted for
    the first in a share $\theta = \frac12 + (a_1 - a_2)/(2 \alpha N \overline{\beta \pi_1})$ of the steps. They leave
    when that reaches 1, and cross if it is above 1 from the first.

    *Order* in the step $\epsilon$: away from the tie the error is Euler's, and the tie is noticed a step late at most.
    On it, with $a_+ < 0 < a_-$ the velocities of $x_1 - x_2$ above and below, a step from above ends no lower than
    $\epsilon a_+$, one from below no higher than $\epsilon a_-$. Between these the difference stays, so that over a
    time S the share counted is that of the averaged motion but for $\epsilon/S$: all errors are of order $\epsilon$.

    **Arguments:** `loads`: α of every case. `strides`: steps from one record to the next, `interval` of time later.
    **Returns:** over (case, time) the `predicted` difference $x_1 - x_2$, `theta` and `approach` ($a_\pm$), these NaN
    off the tie, and over step as well what was `measured`; over (case, step) `distance`, the largest of a score from
    theory at any record, with its fitted `order` beside `predicted_order`, and `share`, counted for the first while
    theory slides, beside `predicted_share` (NaN where it never does), with the time `slid`; the largest share `others`
    of steps in which a third expert was counted, of which theory assumes 0. **Source:** [himoe-theory] D10.
    """
    for alpha in loads:
        _checks.positive("loads", alpha)
    for stride in strides:
        _checks.count("strides", stride)
    if len(set(strides)) < 2:
        raise ValueError(f"`strides` must be at least 2 different numbers, to take a slope from; got {strides}.")
    _checks.count("records", records)
    _checks.positive("interval", interval)
    times, steps = interval * np.arange(records + 1), interval / np.array(strides)
    theory = xr.concat([_predicted(alpha, times) for alpha in loads], "case")

    runs = [_counted(jnp.asarray(loads), step, records, stride) for step, stride in zip(steps, strides, strict=True)]
    axes = ("step", "case", "time", "expert")
    found = xr.Dataset({name: (axes, np.stack([run[name] for run in runs])) for name in runs[0]})
    table = _compared(theory, found, times, steps)
    tied, lead = np.isfinite(table["theta"].values), table["predicted"].values
    cases = [f"α = {alpha:g}: {_fate(*row)}" for alpha, *row in zip(loads, tied, lead, strict=True)]
    return table.assign_coords(case=cases, step=steps, time=times).assign_attrs(experts=len(START))


def _compared(
    theory: xr.Dataset, found: xr.Dataset, times: Float[np.ndarray, " times"], steps: Float[np.ndarray, " steps"]
) -> xr.Dataset:
    """Measurements beside predictions."""
    distance = np.abs(found["scores"] - theory["scores"]).max(("time", "expert")).transpose("case", "step")
    difference = _difference(theory["scores"])
    # Far above what the solver leaves of a tie (eps to the power 2/3), far below a lead that is a record old.
    tied = np.abs(difference) < np.sqrt(np.finfo(difference.dtype).eps)
    return xr.Dataset(
        {
            "predicted": difference,
            "measured": _difference(found["scores"]).transpose("case", "step", "time"),
            "theta": theory["theta"].where(tied),
            "approach": theory["approach"].where(tied),
            "distance": distance,
            "order": ("case", [fitted_rate(np.log(steps), row) for row in distance.values]),
            "predicted_order": ((), 1.0),
            "share": _share(found["counted"], tied, times).transpose("case", "step"),
            "predicted_share": _share(theory["counted"], tied, times),
            "slid": _between(xr.DataArray(times, dims="time"), tied),
            "others": found["counted"].isel(time=-1)[..., 2:].sum("expert").max() / times[-1],
        }
    )


class _CountsOne(eqx.Module):
    """Theory's field on one side of the tie: all tokens count for the expert that leads there."""

    alpha: Float[Array, ""]
    expert: int = eqx.field(static=True)

    def __call__(self, state: State) -> State:
        share = jax.nn.one_hot(self.expert, len(START), dtype=state["scores"].dtype)
        return _velocity(state["scores"], share, self.alpha)


def _counts_all(state: State, alpha: Float[Array, ""]) -> State:
    """What steps follow: every token counts for the expert of its largest logit."""
    logits = _logits(state["scores"])
    selected = jax.nn.one_hot(logits.argmax(axis=1), len(START), dtype=bool)
    return _velocity(state["scores"], obj.dispatch_share(selected, logits), alpha)


def _velocity(scores: Float[Array, " experts"], share: Float[Array, " experts"], alpha: Float[Array, ""]) -> State:
    """Of scores under a load of such counts."""
    sharpness = jnp.linspace(*SHARPNESS)
    plant = jax.vmap(lambda beta: dynamics.reinforcement(scores, GAIN, DECAY, beta))(sharpness).mean(axis=0)
    load = sharpness @ obj.load_for_share_grad(_logits(scores), share)
    return {"scores": plant + jnp.array(AHEAD) - alpha * load, "counted": share}


def _logits(scores: Float[Array, " experts"]) -> Float[Array, "tokens experts"]:
    return jnp.linspace(*SHARPNESS)[:, None] * scores


def _start() -> State:
    return {"scores": jnp.array(START), "counted": jnp.zeros(len(START))}


def _lead(state: State) -> Float[Array, ""]:
    return state["scores"][0] - state["scores"][1]


def _counted(
    alphas: Float[Array, " cases"], step: float, records: int, stride: int
) -> dict[str, Float[np.ndarray, "cases times experts"]]:
    """Scores and sums of counts that plain steps leave in every case."""

    def run(alpha: Float[Array, ""]) -> States:
        return descend(_counts_all, _start(), jnp.asarray(step), records, stride, alpha)

    return {name: np.asarray(found) for name, found in jax.vmap(run)(alphas).items()}


def _predicted(alpha: float, times: Float[np.ndarray, " times"]) -> xr.Dataset:
    """The same by theory, and what it has to say of every state if that is a tie."""
    first, second = (_CountsOne(jnp.asarray(alpha), expert) for expert in (0, 1))
    field = dynamics.Sliding(first, second, _lead)
    path = dynamics.switched_flow(field, _start(), times)
    states = jax.tree.map(jnp.asarray, path.states)
    theta, approach = _if_tied(field, states)
    found = {name: (("time", "expert"), path.states[name]) for name in path.states}
    found |= {"theta": ("time", np.asarray(theta)), "approach": (("side", "time"), np.stack(approach))}
    return xr.Dataset(found, {"side": ["above", "below"]})


@eqx.filter_jit
def _if_tied(
    field: dynamics.Sliding, states: States
) -> tuple[Float[Array, " times"], tuple[Float[Array, " times"], Float[Array, " times"]]]:
    return jax.vmap(field.share)(states), jax.vmap(field.approach)(states)


def _difference(scores: xr.DataArray) -> xr.DataArray:
    return scores.isel(expert=0) - scores.isel(expert=1)


def _share(counted: xr.DataArray, tied: xr.DataArray, times: Float[np.ndarray, " times"]) -> xr.DataArray:
    """Counts of the first expert per time, while theory slides; NaN if it does not."""
    return _between(counted.isel(expert=0), tied) / _between(xr.DataArray(times, dims="time"), tied)


def _between(growing: xr.DataArray, tied: xr.DataArray) -> xr.DataArray:
    """What is added from the first to the last record that theory has tied; NaN if none is."""
    inside = growing.where(tied)
    return inside.max("time") - inside.min("time")


def _fate(tied: Bool[np.ndarray, " times"], difference: Float[np.ndarray, " times"]) -> str:
    """In words, what theory says the scores do."""
    if tied.any():
        return "slides" if tied[-1] else "slides, then leaves"
    return "crosses" if difference[0] * difference[-1] < 0 else "stays off"
