r"""Reinforced scores: the hysteresis of collapse (D7), dead experts under a load (D8), the oscillation of a
proportional bias (D9).
"""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from himoe_theory import _checks, dynamics
from himoe_theory import objectives as obj

from .steps import descend, fitted_rate

GAIN, DECAY, BETA = 1.0, 0.05, 1.0
"""η, λ and β of D8's and D9's example."""


def hysteresis(experts: int = 8, ratio: float = 1.01, patience: int = 2000) -> xr.Dataset:
    r"""Reinforced scores while their control $\kappa$ is raised slowly from below $\kappa_s$ to above N, and lowered.

    At every $\kappa$ the scores start from where they were, with one of them raised by $10^{-3}$, and settle for
    `patience` steps of half a unit of 1/λ. **Arguments:** `ratio`: of neighbouring values of $\kappa$. **Returns:** the
    largest probability over (direction, control), the `branch` that theory gives (of probability p at control), and
    `jump`, the measured transitions, beside `predicted_jump`. **Source:** [himoe-theory] D7.
    """
    _checks.positive("ratio - 1", ratio - 1)
    low, high = 0.85 * dynamics.spinodal(experts), 1.15 * experts
    controls = low * ratio ** np.arange(np.ceil(np.log(high / low) / np.log(ratio)) + 1)

    def settle(scores: Array, control: Array) -> tuple[Array, Array]:
        scores = scores.at[0].add(1e-3)
        states = descend(dynamics.reinforcement, scores, jnp.asarray(0.5), 1, patience, control, 1.0, 1.0)
        return states[1], jax.nn.softmax(states[1]).max()

    there_and_back = jnp.asarray(np.concatenate([controls, controls[::-1]]))
    _, largest = jax.lax.scan(settle, jnp.zeros(experts, there_and_back.dtype), there_and_back)
    up, down = np.split(np.asarray(largest), 2)
    down = down[::-1]
    collapsed = 0.5 / experts + 0.5 * (1 - 1 / experts)
    # Between the last control on one branch and the first on the other.
    jump = [np.sqrt(ratio) * controls[up < collapsed][-1], controls[down > collapsed][0] / np.sqrt(ratio)]
    shares = 1 / (1 + (experts - 1) * np.exp(-np.linspace(0.05, 1.3 * np.log(experts) + 8, 400)))
    branch = np.asarray(dynamics.collapsed_control(jnp.asarray(shares), experts))
    return xr.Dataset(
        {
            "largest": (("direction", "control"), np.stack([up, down])),
            "branch": ("p", branch),
            "jump": ("direction", jump),
            "predicted_jump": ("direction", [dynamics.uniform_limit(experts), dynamics.spinodal(experts)]),
            "coexistence": ((), dynamics.coexistence(experts)),
        },
        {"direction": ["up", "down"], "control": controls, "p": shares},
    )


def staircase(experts: int = 8, points: int = 24, runs: int = 8, steps: int = 4000, seed: int = 0) -> xr.Dataset:
    r"""Live experts that reinforced scores leave under the frozen load, over its coefficient, against D8.

    *Counted*: scores start near zero (standard deviation 0.1) and settle; an expert
    is live above half of the largest probability. *Measured threshold*: n equal scores among others that are as dead
    as the plant leaves them, and the coefficient where a small difference among the n neither grows nor decays; NaN
    where the n live are not a state of their own.

    **Returns:** `live` over (alpha, run), `largest_live` by theory, `threshold` and `measured_threshold` over n.
    **Source:** [himoe-theory] D8.
    """
    rng = np.random.default_rng(seed)
    alphas = np.linspace(0.15, 0.66, points)
    starts = jnp.asarray(0.1 * rng.standard_normal((runs, experts)))

    def count(alpha: Array, start: Array) -> Array:
        probs = jax.nn.softmax(BETA * descend(_loaded, start, jnp.asarray(0.5), 1, steps, alpha)[1])
        return (probs > probs.max() / 2).sum()

    live = jax.vmap(jax.vmap(count, in_axes=(None, 0)), in_axes=(0, None))(jnp.asarray(alphas), starts)
    numbers = np.arange(2, experts + 1)
    threshold = np.array([dynamics.live_threshold_frozen(int(n), experts, GAIN, DECAY, BETA) for n in numbers])
    measured = [_measured_threshold(int(n), experts, a, steps) for n, a in zip(numbers, threshold, strict=True)]
    stable = np.maximum(1, numbers[None] * (alphas[:, None] > threshold)).max(axis=1)
    return xr.Dataset(
        {
            "live": (("alpha", "run"), np.asarray(live)),
            "largest_live": ("alpha", stable),
            "threshold": ("n", threshold),
            "measured_threshold": ("n", np.array(measured)),
        },
        {"alpha": alphas, "n": numbers},
    )


def _loaded(scores: Float[Array, " experts"], alpha: Float[Array, ""]) -> Float[Array, " experts"]:
    """Reinforced scores under the frozen load."""
    pull = obj.load_frozen_grad(BETA * scores[None])[0]
    return dynamics.reinforcement(scores, GAIN, DECAY, BETA) - alpha * BETA * pull


def _measured_threshold(live: int, experts: int, near: float, steps: int) -> float:
    """Where the rate of a small difference between two of the live scores changes its sign."""
    equal = np.where(np.arange(experts) < live, GAIN / (DECAY * live), 0.0)
    tilt = np.zeros(experts)
    tilt[:2] = 1.0, -1.0

    @jax.jit
    def rate(alpha: Array) -> tuple[Array, Array]:
        # Equal scores stay equal, so that the state is reached even where it is unstable.
        state = descend(_loaded, jnp.asarray(equal), jnp.asarray(0.5), 1, steps, alpha)[1]
        _, moved = jax.jvp(lambda x: _loaded(x, alpha), (state,), (jnp.asarray(tilt),))
        return moved[0], jax.nn.softmax(BETA * state)[-1] / jax.nn.softmax(BETA * state)[0]

    low, high = 0.5 * near, 1.5 * near
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if float(rate(jnp.asarray(middle))[0]) > 0 else (low, middle)
    dead = float(rate(jnp.asarray(low))[1])
    inside = 0.5 * near < low and high < 1.5 * near and (live == experts or dead < 0.5)
    return (low + high) / 2 if inside else float("nan")


def oscillation(experts: int = 8, points: int = 9, periods: int = 6, per_period: int = 2000) -> xr.Dataset:
    r"""Period of a small disturbance of reinforced scores under a proportional loss-free bias of rate u, against D9.

    Steps of 1/`per_period` of the predicted period; the period is read from the zero crossings of one expert's excess
    probability. **Returns:** over `share` = u/u*: `rate` u, `predicted` period, `damped` period $2\pi/\sqrt{\det -
    \mathrm{tr}^2/4}$ away from the threshold, `measured`, and whether the disturbance `grows`.
    **Source:** [himoe-theory] D9.
    """
    critical = float(dynamics.bias_threshold(experts, GAIN, DECAY, BETA))
    shares = np.linspace(0.85, 1.15, points)
    rates = shares * critical
    u = jnp.asarray(rates)
    predicted = np.asarray(dynamics.hopf_period(u, experts, DECAY, BETA))
    trace = np.asarray(dynamics.bias_trace(u, experts, GAIN, DECAY, BETA))
    damped = 2 * np.pi / np.sqrt(np.asarray(dynamics.bias_determinant(u, experts, DECAY, BETA)) - trace**2 / 4)
    start = np.zeros((2, experts))
    start[0] = 1e-6 * (np.arange(experts) == 0) - 1e-6 / experts

    def run(u: Array, eta: Array) -> Array:
        states = descend(_biased, jnp.asarray(start), eta, periods * per_period, 1, u)
        return jax.nn.softmax(BETA * states.sum(axis=1))[:, 0] - 1 / experts

    excess = np.asarray(jax.vmap(run)(u, jnp.asarray(predicted / per_period)))
    measured, growing = zip(*(_period(e, p / per_period) for e, p in zip(excess, predicted, strict=True)), strict=True)
    return xr.Dataset(
        {
            "rate": ("share", rates),
            "predicted": ("share", predicted),
            "damped": ("share", damped),
            "measured": ("share", np.array(measured)),
            "grows": ("share", np.array(growing)),
            "predicted_growth": ("share", trace / 2),
        },
        {"share": shares},
    )


def _biased(state: Float[Array, "2 experts"], rate: Float[Array, ""]) -> Float[Array, "2 experts"]:
    """Scores and biases: the plant, and a proportional controller of its load."""
    probs = jax.nn.softmax(BETA * state.sum(axis=0))
    return jnp.stack([GAIN * probs - DECAY * state[0], -rate * (probs - 1 / probs.shape[0])])


def _period(signal: Float[np.ndarray, " steps"], step: float) -> tuple[float, float]:
    """Period from zero crossings between which the signal is taken as straight, and the rate of growth of its peaks."""
    before = np.flatnonzero(signal[:-1] * signal[1:] < 0)
    crossings = before + signal[before] / (signal[before] - signal[before + 1])
    half = np.diff(crossings).mean()
    peaks = np.array([np.abs(part).max() for part in np.split(signal, before + 1)[1:-1]])
    growth = fitted_rate(np.arange(len(peaks)) * half * step, peaks)
    return 2 * half * step, growth
