r"""Reinforcement of scores among N experts, a mean-field Potts model (D7).

$\dot x_i = \eta \pi_i - \lambda x_i$ with $\pi = \mathrm{softmax}(\beta x)$ descends
$V = \frac\lambda2 |x|^2 - \frac\eta\beta \ln \sum_i e^{\beta x_i}$. One number controls it,
$\kappa = \beta\eta/\lambda$. A *collapsed* state has one expert with probability p and the others with q = (1-p)/(N-1).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from ._real import Real, floating


def reinforcement(scores: Float[Array, " experts"], gain: Real, decay: Real, beta: Real) -> Float[Array, " experts"]:
    r"""$\dot x = \eta\, \mathrm{softmax}(\beta x) - \lambda x$.

    **Arguments:** `scores`: x. `gain`: $\eta$. `decay`: $\lambda$. `beta`: inverse temperature.
    **Source:** [himoe-theory] D7.
    """
    scores = _checked(scores, gain, decay, beta)
    return gain * jax.nn.softmax(beta * scores) - decay * scores


def potential(scores: Float[Array, " experts"], gain: Real, decay: Real, beta: Real) -> Float[Array, ""]:
    r"""$V = \frac\lambda2 |x|^2 - \frac\eta\beta \ln \sum_i e^{\beta x_i}$, whose descent is `reinforcement`."""
    scores = _checked(scores, gain, decay, beta)
    return decay / 2 * jnp.square(scores).sum() - gain / beta * jax.nn.logsumexp(beta * scores)


def uniform_limit(num_experts: int) -> float:
    r"""N: uniform routing is linearly stable for $\kappa$ below it. **Source:** [himoe-theory] D7."""
    _several(num_experts)
    return float(num_experts)


def uniform_rate(gain: Real, decay: Real, beta: Real, num_experts: int, load_pull: Real = 0.0) -> Real:
    r"""$\beta(\eta - c\alpha\beta)/N - \lambda$, the rate of a small deviation from uniform routing.

    The load shifts the gain in this rate only, not in `spinodal` and `coexistence`. **Arguments:** `load_pull`:
    $c\alpha$, the load's coefficient $\alpha$ for the frozen load and $2\alpha$ for the full one.
    """
    _several(num_experts)
    coefficients(gain, decay, beta)
    _checks.coefficient("load_pull", load_pull)
    return beta * (gain - load_pull * beta) / num_experts - decay


def collapsed_control(p: Real, num_experts: int) -> Real:
    r"""$\kappa = \ln(p/q)/(p-q)$ at which one expert with probability p is a fixed point.

    Positive. **Arguments:** `p`: strictly between 0 and 1, not 1/N, where the limit is N.
    """
    _several(num_experts)
    _checks.positive("p", p)
    _checks.positive("1 - p", 1 - p)
    q = (1 - p) / (num_experts - 1)
    return jnp.log(p / q) / (p - q)


def spinodal(num_experts: int) -> float:
    r"""$\kappa_s = \min_p \ln(p/q)/(p-q)$: from here on a collapsed state exists, at first beside uniform routing.

    With $u = \ln(p/q)$ it is $u (e^u + N - 1)/(e^u - 1)$ at the positive root of
    $e^u + N - 2 - (N-1) e^{-u} = N u$. 2 for two experts, else below `coexistence`. **Source:** [himoe-theory] D7.
    """
    _several(num_experts)
    if num_experts == 2:
        return 2.0
    others = num_experts - 1
    # Beyond its minimum the difference of the sides is convex and at 2 ln(N-1) positive: Newton's steps fall
    # monotonically to the root. There are under 10 of them; 60 never end early for want of steps.
    u = 2 * math.log(others)
    for _ in range(60):
        value = math.exp(u) + others - 1 - others * math.exp(-u) - num_experts * u
        u -= value / (math.exp(u) + others * math.exp(-u) - num_experts)
    return u * (math.exp(u) + others) / math.expm1(u)


def coexistence(num_experts: int) -> float:
    r"""$\kappa_c = 2(N-1)\ln(N-1)/(N-2)$: above it the collapsed state is the deeper minimum, at first with
    p = (N-1)/N.

    2 for two experts, else between `spinodal` and `uniform_limit`. **Source:** [himoe-theory] D7.
    """
    _several(num_experts)
    if num_experts == 2:
        return 2.0
    return 2 * (num_experts - 1) * math.log(num_experts - 1) / (num_experts - 2)


def pair_folds(u: Real) -> tuple[Real, Real]:
    r"""Two experts: $g = \cosh^2 u$ and $H = u - \sinh u \cosh u$, where states of $u = g \tanh u + H$ merge.

    $u = \beta(x_1 - x_2)/2$, $g = \kappa/2$, and H is a constant advantage of the first expert in the same unit. Both
    folds meet in the cusp g = 1, H = 0, near which $H^2 \approx \frac49 (g-1)^3$. **Arguments:** `u`: finite; beyond
    the range of cosh squared the folds are infinite. **Source:** [himoe-theory] D7.
    """
    _checks.finite("u", u)
    u = floating(u)
    return jnp.square(jnp.cosh(u)), u - jnp.sinh(u) * jnp.cosh(u)


def _several(num_experts: int) -> None:
    _checks.count("num_experts", num_experts, minimum=2)


def coefficients(gain: Real, decay: Real, beta: Real) -> None:
    """Refuses a gain or decay that is negative or not finite, and a beta that is not above 0."""
    _checks.coefficient("gain", gain)
    _checks.coefficient("decay", decay)
    _checks.positive("beta", beta)


def _checked(scores: Float[Array, " experts"], gain: Real, decay: Real, beta: Real) -> Float[Array, " experts"]:
    coefficients(gain, decay, beta)
    return _checks.matrix("scores", scores, ("experts",))
