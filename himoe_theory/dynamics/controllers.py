r"""Balancers as controllers of reinforced scores: the staircase of dead experts (D8), the loss-free bias (D9).

The plant is `potts.reinforcement`, $\dot x = \eta\pi - \lambda x$ with $\pi = \mathrm{softmax}(\beta x)$. A soft load
of coefficient $\alpha$ adds $-c\,\alpha N \beta\, \pi_i(\pi_i - \|\pi\|^2)$, c = 1 for the frozen and 2 for the full
one; a proportional bias b makes it $\pi = \mathrm{softmax}(\beta(x + b))$ with $\dot b = -u(\pi - 1/N)$.
"""

import math

import jax.numpy as jnp

from .. import _checks
from ._real import Real
from ._scalar import maximiser
from .potts import coefficients


def live_threshold_frozen(live: int, num_experts: int, gain: Real, decay: Real, beta: Real) -> Real:
    r"""$\alpha_n = (\eta\beta n - \lambda n^2)/(N\beta^2)$: above it n equally live experts, the rest dead, stay equal.

    Stable against changes among the live ones, the dead having probability 0. Negative where no load is needed.
    Growing in n as long as $2n + 1 < \eta\beta/\lambda$: weakening the load kills experts one at a time.

    **Arguments:** `live`: n, at least 2. `gain`, `decay`, `beta`: $\eta, \lambda, \beta$ of the scores.
    **Source:** [himoe-theory] D8.
    """
    _plant(num_experts, gain, decay, beta)
    _checks.count("live", live, minimum=2, maximum=num_experts, of="num_experts")
    return (gain * beta * live - decay * live**2) / (num_experts * beta**2)


def live_threshold_full(live: int, num_experts: int, gain: Real, decay: Real, beta: Real) -> Real:
    r"""Half of `live_threshold_frozen`: the full load pulls twice as hard."""
    return live_threshold_frozen(live, num_experts, gain, decay, beta) / 2


def live_coefficient_frozen(p: Real, live: int, num_experts: int, gain: Real, decay: Real, beta: Real) -> Real:
    r"""The $\alpha$ at which n experts of probability p and N-n of q = (1-np)/(N-n) are a fixed point,
    $\big(\eta - \frac\lambda\beta \frac{\ln(p/q)}{p-q}\big) / \big(N\beta (p + q - np^2 - (N-n)q^2)\big)$.

    Of either sign. **Arguments:** `p`: strictly between 1/N and 1/n. `live`: n in 1..N-1.
    **Source:** [himoe-theory] D8.
    """
    _plant(num_experts, gain, decay, beta)
    _checks.count("live", live, maximum=num_experts - 1, of="num_experts - 1")
    _checks.finite("p", p)
    _checks.positive("p - 1/num_experts", p - 1 / num_experts)
    _checks.positive("1/live - p", 1 / live - p)
    q = (1 - live * p) / (num_experts - live)
    purity = live * p**2 + (num_experts - live) * q**2
    drive = gain - decay / beta * jnp.log(p / q) / (p - q)
    return drive / (num_experts * beta * (p + q - purity))


def live_upper_end_frozen(live: int, num_experts: int, gain: float, decay: float, beta: float) -> float:
    r"""The largest $\alpha$ at which n live experts with the rest nearly dead exist: beyond, the load revives the dead.

    The maximum of `live_coefficient_frozen` over the dead's q, where the state merges with a less collapsed one.
    Host only. **Arguments:** `live`: n in 2..N-1.
    **Returns:** the coefficient; without a maximum before q = p, the value there, $(\eta - \lambda N/\beta)/\beta$.
    **Source:** [himoe-theory] D8.
    """
    _plant(num_experts, gain, decay, beta)
    _checks.count("live", live, minimum=2, maximum=num_experts - 1, of="num_experts - 1")

    def coefficient(log_q: float) -> float:
        p = (1 - (num_experts - live) * math.exp(log_q)) / live
        return float(live_coefficient_frozen(p, live, num_experts, gain, decay, beta))

    # A grid first, since the coefficient may rise again towards q = p; the interior maximum is what ends the branch.
    top = math.log(0.999 / num_experts)
    grid = [-30 + (top + 30) * i / 200 for i in range(201)]
    values = [coefficient(log_q) for log_q in grid]
    best = max(range(201), key=values.__getitem__)
    if best == 200:
        return (gain - decay * num_experts / beta) / beta
    return coefficient(maximiser(coefficient, grid[max(best - 1, 0)], grid[best + 1]))


def bias_trace(rate: Real, num_experts: int, gain: Real, decay: Real, beta: Real) -> Real:
    r"""$\beta(\eta - u)/N - \lambda$, the trace of scores and proportional bias near uniform routing.

    Uniform routing is stable where it is negative, the determinant being positive. **Source:** [himoe-theory] D9.
    """
    _checks.coefficient("rate", rate)
    _plant(num_experts, gain, decay, beta)
    return beta * (gain - rate) / num_experts - decay


def bias_determinant(rate: Real, num_experts: int, decay: Real, beta: Real) -> Real:
    r"""$\lambda u \beta/N$, at least 0: stability can be lost only by an oscillation. **Source:** [himoe-theory] D9."""
    _checks.coefficient("rate", rate)
    _plant(num_experts, 0.0, decay, beta)
    return decay * rate * beta / num_experts


def bias_threshold(num_experts: int, gain: Real, decay: Real, beta: Real) -> Real:
    r"""$u^* = \eta - \lambda N/\beta$: uniform routing is stable for a rate u above it, if negative for every u > 0.

    **Source:** [himoe-theory] D9.
    """
    _plant(num_experts, gain, decay, beta)
    return gain - decay * num_experts / beta


def hopf_period(rate: Real, num_experts: int, decay: Real, beta: Real) -> Real:
    r"""$2\pi/\sqrt{\lambda u \beta/N}$, the period at `bias_threshold`; close to it the relative change is of second
    order in the trace. **Arguments:** `rate`, `decay`: above 0. **Source:** [himoe-theory] D9.
    """
    _checks.positive("rate", rate)
    _checks.positive("decay", decay)
    return 2 * math.pi / bias_determinant(rate, num_experts, decay, beta) ** 0.5


def _plant(num_experts: int, gain: Real, decay: Real, beta: Real) -> None:
    _checks.count("num_experts", num_experts, minimum=2)
    coefficients(gain, decay, beta)
