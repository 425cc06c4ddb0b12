r"""What finite batches and hard counts do by themselves: the floor of MaxVio (D9), and the window of collapse (D10)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from .. import _checks
from ._real import Real, floating
from ._scalar import maximiser, root


def expected_maximum(count: int) -> float:
    r"""$E \max_{i \le n} z_i = n \int z\, \varphi(z) \Phi(z)^{n-1} dz$ of n independent standard normals.

    At least 0 (n = 1), below $\sqrt{2 \ln n}$; exact to rounding. Host only. **Source:** [himoe-theory] D9.
    """
    # Imported here: routers need none of SciPy.
    from scipy.special import log_ndtr

    _checks.count("count", count)
    # The trapezium rule converges faster than any power for an analytic integrand that decays on both sides.
    step = 0.01
    z = step * np.arange(-4000, 4001)
    density = np.exp(-np.square(z) / 2 + (count - 1) * log_ndtr(z)) / math.sqrt(2 * math.pi)
    return float(count * (z * density).sum() * step)


def max_violation_floor(num_experts: int, routes: int, tokens: int) -> float:
    r"""$E \max_i z_i \cdot \sqrt{\frac{N}{N-1} \frac{1 - K/N}{KT/N}}$: MaxVio that sampling alone leaves at uniform
    selection.

    Expected `max_violation` of T tokens that each select K of N experts with equal chances, independently, as T grows.
    $N/(N-1)$ is there because the counts sum to KT and so push each other apart. 0 for K = N. Host only.
    **Source:** [himoe-theory] D9.
    """
    _checks.count("num_experts", num_experts)
    _checks.count("routes", routes, maximum=num_experts, of="num_experts")
    _checks.count("tokens", tokens)
    if routes == num_experts:
        return 0.0
    spread = (num_experts - routes) / (num_experts - 1) * num_experts / (routes * tokens)
    return expected_maximum(num_experts) * math.sqrt(spread)


def collapse_ratio(spread: Real) -> Real:
    r"""$\sqrt{\pi/2}\, E[w\, d \tanh(d/2)] / (\sigma E[w])$: two experts under hard counts collapse where it exceeds
    $\alpha/\lambda_{intra}$.

    $d \sim N(0, \sigma^2)$ is the *difference* of the two logits over tokens, $w = \pi_1 \pi_2$. Compared are the push
    of `intra_group_global` on a common offset of d and the pull of `load` through the counts of K = 1, whose slope
    $2/(\sigma\sqrt{2\pi})$ diverges as $\sigma \to 0$. Small $\sigma$: $\sqrt{\pi/8}\, \sigma$; large:
    $\sqrt{\pi/2}/\sigma$. **Arguments:** `spread`: $\sigma > 0$. **Source:** [himoe-theory] D10.
    """
    _checks.positive("spread", spread)
    spread = floating(spread)
    # As in `expected_maximum`; w decays as exp(-|d|), so that 45 is beyond rounding.
    reach = jnp.minimum(10 * spread, 45)[..., None]
    d = reach * jnp.linspace(-1.0, 1.0, 401, dtype=spread.dtype)
    weight = jnp.exp(-jnp.square(d / spread[..., None]) / 2) / jnp.square(jnp.cosh(d / 2))
    push = (weight * d * jnp.tanh(d / 2)).sum(axis=-1) / weight.sum(axis=-1)
    return math.sqrt(math.pi / 2) * push / spread


def collapse_window(alpha: float, lambda_intra: float) -> tuple[float, float] | None:
    r"""The $\sigma$ between which two experts under hard counts collapse, or `None` if the load holds at every spread.

    Where `collapse_ratio` exceeds $\alpha/\lambda_{intra}$; for a small quotient about
    $4\alpha/(\lambda\sqrt{2\pi})$ and $\sqrt{\pi/2}\, \lambda/\alpha$. Host only.

    **Arguments:** `alpha`, `lambda_intra`: above 0. **Source:** [himoe-theory] D10.
    """
    _checks.positive("alpha", alpha)
    _checks.positive("lambda_intra", lambda_intra)
    quotient = alpha / lambda_intra
    compiled = jax.jit(collapse_ratio)

    def excess(log_spread: float) -> float:
        return float(compiled(math.exp(log_spread))) - quotient

    peak = maximiser(excess, -1.0, 3.0)
    if excess(peak) <= 0:
        return None
    far = 2 + abs(math.log(quotient))
    return math.exp(root(excess, -far, peak)), math.exp(root(excess, peak, far))
