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
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .. import _checks


class _Integrals(NamedTuple):
    r"""Functions of $v = \ln u$ on nodes `step` apart; what every mean below is an integral of."""

    none: Float[np.ndarray, " nodes"]
    r"""$E[e^{-ue^s}]$."""
    first: Float[np.ndarray, " nodes"]
    r"""$E[ue^s\, e^{-ue^s}]$."""
    pull: Float[np.ndarray, " nodes"]
    r"""$E[(x_2 - x_1)\, e^{2x_2 + x_1 - e^{x_1} - e^{x_2}}]/\sigma^2$, $x_i = v + s_i$."""
    step: float

    def mean(self, num_experts: int, pair: Float[np.ndarray, " nodes"]) -> float:
        """The integral of what belongs to two experts, and of the other N - 2."""
        return float((self.none ** (num_experts - 2) * pair).sum() * self.step)


_SPREAD = 2.0
"""From this spread on nodes lie where exp(-exp(x)) varies, below it where the normal does."""


def _integrals(num_experts: int, spread: float) -> _Integrals:
    r"""With $Z = \sum_e e^{s_e}$, $Z^{-n} = \int e^{nv} e^{-e^v Z} dv/(n-1)!$ makes any $E \prod_i \pi_i^{a_i}$,
    $\sum_i a_i = n$, an integral over v of $\prod_i E[e^{a_i x} e^{-e^x}]$, $x = v + s_i$. The trapezium rule converges
    faster than any power for such integrands. The number of nodes is bounded for every $\sigma$.
    """
    _checks.count("num_experts", num_experts, minimum=2)
    _checks.positive("spread", spread)
    from scipy.special import ndtr

    # The integrand varies with the normal, on a scale of sigma, or with the exponentials, on a scale of 1.
    step = max(0.1, 0.05 * spread)
    v = np.arange(-9 * spread - 40, 9 * spread + 6, step)[:, None]
    if spread < _SPREAD:
        z = np.arange(-9.0, 9.0, 0.05)
        weight = np.exp(-np.square(z) / 2) * 0.05 / math.sqrt(2 * math.pi)
        x = np.minimum(v + spread * z, 100)  # beyond, exp(-exp(.)) is 0 anyway
        none = np.exp(-np.exp(x)) @ weight
    else:
        x = np.arange(-45.0, 5.0, 0.2)
        z = (x - v) / spread
        weight = np.exp(-np.square(z) / 2) * 0.2 / (spread * math.sqrt(2 * math.pi))
        none = ndtr(z) @ np.exp(x - np.exp(x)) * 0.2  # by parts: exp(-exp(x)) does not vanish on the left
    first, second, third = ((np.exp(a * x - np.exp(x)) * weight).sum(axis=1) for a in (1, 2, 3))
    if spread < _SPREAD:  # again by parts: the difference of the two is of order sigma^2
        pull = first * second + second**2 - first * third
    else:
        moved = [(x * np.exp(a * x - np.exp(x)) * weight).sum(axis=1) for a in (1, 2)]
        pull = (moved[1] * first - moved[0] * second) / spread**2
    return _Integrals(none, first, pull, step)


def spread_push(spread: float, num_experts: int) -> float:
    r"""r, the rate that one unit of $\lambda_{intra}$ gives a common offset: $2/N^2$ at $\sigma \to 0$.

    **Arguments:** `spread`: $\sigma > 0$ of every logit. **Source:** [himoe-theory] D10, for any N.
    """
    # By parts in the logits r is 2N/sigma^2 E[pi_1^2 pi_2 (s_1 - s_2)], which is no difference of large numbers.
    found = _integrals(num_experts, spread)
    return num_experts * found.mean(num_experts, found.pull)


def spread_slope(spread: float, num_experts: int) -> float:
    r"""g, the slope of an expert's mean probability in its offset (others moving so that offsets sum to 0).

    $1/N$ at $\sigma \to 0$, and falling. **Arguments:** `spread`, `num_experts`: as of `spread_push`.
    """
    # 1 - E|pi|^2 is N (N - 1) E[pi_1 pi_2].
    found = _integrals(num_experts, spread)
    return num_experts * found.mean(num_experts, found.first**2)


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
    the larger N and k are. It counters the regulariser alone: 0 at $\lambda_{intra} = 0$ says nothing of the task,
    whose push is not in it.

    **Arguments:** `routes`: k, selected of all experts, or of each group of `group_size`; then the mode is one within
    groups (between groups counts answer to nothing). **Source:** [himoe-theory] D1, D10.
    """
    _checks.coefficient("lambda_intra", lambda_intra)
    _checks.count("num_experts", num_experts, minimum=2)
    candidates = num_experts if group_size is None else group_size
    _checks.count("group_size", candidates, maximum=num_experts, of="num_experts")
    if num_experts % candidates:
        raise ValueError(f"`group_size` must divide `num_experts`; got {candidates} and {num_experts}.")
    # Shares are of all routes, so that they sum to 1: k of each group, N/n groups.
    slope = count_slope(spread, candidates, routes) * candidates / (num_experts * routes)
    return lambda_intra * spread_push(spread, num_experts) / (num_experts * spread_slope(spread, num_experts) * slope)
