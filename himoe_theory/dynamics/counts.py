r"""Which load stops the common mode when logits are spread (D1, D10): any number of experts, hard counts and soft ones.

Logits are $s_{te} = \sigma z_{te} + b_e$, z independent standard normal, with infinitely many tokens, so that b = 0 is
a state of rest. Small offsets that sum to zero, over all experts or, under grouped selection, in every group, obey
$$\dot b = (\lambda_{intra}\, r - \alpha N g\, j)\, b, \qquad
  r = \frac{2E\|\pi\|^2 - 8E\sum_e \pi_e^3 + 6E\|\pi\|^4}{N-1}, \quad g = \frac{1 - E\|\pi\|^2}{N-1}$$
for `intra_group_global` and a load $\alpha N \sum_e h_e P_e$, $\sum_e h_e = 1$: g is the slope of P in b, and j that of
h, which is g for `frozen`, in effect 2g for `full`, and that of the shares of selections for hard counts. At
$\sigma \to 0$, $r = 2/N^2$ and $g = 1/N$, the rates of D1; the slope of counts diverges there as $1/\sigma$. Host only.
"""

import math

import numpy as np
from jaxtyping import Float

from .. import _checks


def _moments(num_experts: int, spread: float) -> tuple[float, float, float]:
    r"""$E\|\pi\|^2$, $E\sum_e\pi_e^3$ and $E\|\pi\|^4$ of the softmax of independent normal logits.

    With $Z = \sum_e e^{s_e}$, $Z^{-n} = \int u^{n-1} e^{-uZ} du/(n-1)!$ makes any $E \prod_i \pi_i^{a_i}$,
    $\sum_i a_i = n$, an integral over $\ln u$ of $\prod_i E[(u e^s)^{a_i} e^{-u e^s}]$. The trapezium rule converges
    faster than any power for such integrands.
    """
    _checks.count("num_experts", num_experts, minimum=2)
    _checks.positive("spread", spread)
    width = min(0.05, 0.3 / spread)
    z = np.arange(-9.0, 9.0, width)
    weight = np.exp(-np.square(z) / 2) * width / math.sqrt(2 * math.pi)
    step, reach = 0.1, 9 * spread
    log_u = np.arange(-reach - 40, reach + 6, step)
    raised = np.minimum(log_u[:, None] + spread * z, 100)  # beyond, exp(-exp(.)) is 0 anyway
    decay = np.exp(-np.exp(raised))
    part = [(decay * np.exp(a * raised)) @ weight for a in range(5)]

    def mean(*powers: int) -> float:
        product = part[0] ** (num_experts - len(powers)) * np.prod([part[a] for a in powers], axis=0)
        return float(product.sum() * step / math.factorial(sum(powers) - 1))

    pairs = num_experts * (num_experts - 1) * mean(2, 2)
    return num_experts * mean(2), num_experts * mean(3), num_experts * mean(4) + pairs


def spread_push(spread: float, num_experts: int) -> float:
    r"""r, the rate that one unit of $\lambda_{intra}$ gives a common offset: $2/N^2$ at $\sigma \to 0$.

    **Arguments:** `spread`: $\sigma > 0$ of every logit. **Source:** [himoe-theory] D10, for any N.
    """
    second, third, fourth = _moments(num_experts, spread)
    return (2 * second - 8 * third + 6 * fourth) / (num_experts - 1)


def spread_slope(spread: float, num_experts: int) -> float:
    r"""g, the slope of an expert's mean probability in its offset (others moving so that offsets sum to 0).

    $1/N$ at $\sigma \to 0$, and falling. **Arguments:** `spread`, `num_experts`: as of `spread_push`.
    """
    second, _, _ = _moments(num_experts, spread)
    return (1 - second) / (num_experts - 1)


def count_slope(spread: float, candidates: int, routes: int) -> float:
    r"""The slope of the chance to be among the k largest of n normal logits, in an offset (offsets sum to 0).

    $\frac{n}{n-1}\,\frac{1}{\sigma}\int \varphi^2\, \frac{(n-1)!}{(k-1)!\,(n-1-k)!} \Phi^{n-1-k}(1-\Phi)^{k-1}$: the
    density of the boundary, the k-th largest of the others, at the logit itself. **Arguments:** `candidates`: n, at
    least 2. `routes`: k, below n. **Source:** [himoe-theory] D10, for any n and k.
    """
    from scipy.special import gammaln, log_ndtr

    _checks.positive("spread", spread)
    _checks.count("candidates", candidates, minimum=2)
    _checks.count("routes", routes, maximum=candidates - 1, of="the number of candidates less 1")
    step = 0.01
    z = step * np.arange(-1200, 1201)
    rest = candidates - 1 - routes
    ways = gammaln(candidates) - gammaln(routes) - gammaln(rest + 1)
    exponent: Float[np.ndarray, " nodes"] = ways - np.square(z) + rest * log_ndtr(z) + (routes - 1) * log_ndtr(-z)
    return float(candidates / (candidates - 1) * np.exp(exponent).sum() * step / (2 * math.pi) / spread)


def critical_load_hard(
    spread: float, lambda_intra: float, num_experts: int, routes: int, group_size: int | None = None
) -> float:
    r"""$\lambda_{intra}\, r/(N g j)$, the $\alpha$ above which hard counts stop the common mode.

    It vanishes as $\sigma$ where logits are nearly equal, since counts then answer to any offset, and again where
    tokens have chosen; between, it exceeds the `critical_load_full` $\lambda_{intra}/N$ of equal logits, by the more
    the larger N and k are.

    **Arguments:** `routes`: k, selected of all experts, or of each group of `group_size`; then the mode is one within
    groups (between groups counts answer to nothing). **Source:** [himoe-theory] D1, D10.
    """
    _checks.coefficient("lambda_intra", lambda_intra)
    candidates = num_experts if group_size is None else group_size
    _checks.count("group_size", candidates, maximum=num_experts, of="num_experts")
    if num_experts % candidates:
        raise ValueError(f"`group_size` must divide `num_experts`; got {candidates} and {num_experts}.")
    # Shares are of all routes, so that they sum to 1: k of each group, N/n groups.
    slope = count_slope(spread, candidates, routes) * candidates / (num_experts * routes)
    return lambda_intra * spread_push(spread, num_experts) / (num_experts * spread_slope(spread, num_experts) * slope)
