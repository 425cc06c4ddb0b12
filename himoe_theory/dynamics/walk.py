r"""MaxVio under the sign rule of a loss-free bias with sampling noise, on scores that are uniform, independent and
alike (D5, D9)."""

import math

import numpy as np

from .. import _checks
from .sampling import expected_maximum

_SLOW = 1e-3
"""Rates below this share of the sampling noise move a bias by so little at a time that its law is normal."""


def bias_walk_floor(rate: float, num_experts: int, routes: int, tokens: int) -> float:
    r"""Expected MaxVio at the stationary state of $b_e \leftarrow b_e + u\,\mathrm{sign}(\bar n - n_e)$.

    Near balance the load share of an expert is $K/N + \rho b_e$ plus sampling noise of standard deviation
    $s = \sqrt{(K/N)(1 - K/N)/T}$, with $\rho = N/(N-1)$: uniform scores have density 1 at every boundary. So its bias
    walks on a lattice of spacing u, upwards with probability $\Phi(-\rho b/s)$; such a walk is in detailed balance.
    Experts are taken as independent but for the factor $N/(N-1)$ on the noise, as in `max_violation_floor`. For a u
    below s/1000 the walk's law is taken as the normal one that it tends to, of variance $\sqrt{2\pi}\,us/(4\rho)$; the
    relative error is below 1e-6.

    **Arguments:** `rate`: u in (0, K/N). `routes`: K < N. **Returns:** at least the sampling floor; for a u far above
    s, u times a number. Host only. **Source:** [himoe-theory] D5.
    """
    _checks.positive("rate", rate)
    _checks.count("num_experts", num_experts, minimum=2)
    _checks.count("routes", routes, maximum=num_experts - 1, of="num_experts - 1")
    _checks.count("tokens", tokens)
    if rate >= routes / num_experts:
        raise ValueError(f"`rate` must be below {routes / num_experts:g}, the mean share of an expert; got {rate:g}.")
    from scipy.special import log_ndtr, ndtr

    share, slope = routes / num_experts, num_experts / (num_experts - 1)
    noise = math.sqrt(share * (1 - share) / tokens)
    spread = noise * math.sqrt(slope)
    if rate < _SLOW * noise:
        wide = math.sqrt(spread**2 + slope * noise * rate * math.sqrt(2 * math.pi) / 4)
        return expected_maximum(num_experts) * wide / share
    # Beyond, a bias has log-odds that are at least proportional to it, so that its law falls as a Gaussian.
    steps = noise / (slope * rate)
    reach = math.ceil(2 + min(12 * steps, 7 * math.sqrt(steps)))
    laws: list[tuple[np.ndarray, np.ndarray]] = []
    for phase in (np.arange(8) + 0.5) / 8:  # where the lattice lies is kept by the rule, and differs between experts
        bias = rate * (np.arange(-reach, reach + 1) + phase)
        odds = log_ndtr(-slope * bias[:-1] / noise) - log_ndtr(slope * bias[1:] / noise)
        log_weight = np.concatenate([[0.0], np.cumsum(odds)])
        likely = log_weight > log_weight.max() - 30
        share_of_time = np.exp(log_weight[likely] - log_weight.max())
        laws.append((slope * bias[likely], share_of_time / share_of_time.sum() / 8))
    edge = 8 * spread + max(np.abs(load).max() for load, _ in laws)
    grid = np.linspace(-edge, edge, 2001)
    below = sum(ndtr((grid[:, None] - load) / spread) @ weight for load, weight in laws)
    # E max = edge - integral of the distribution of the maximum.
    largest = edge - np.trapezoid(below**num_experts, grid)
    return float(largest / share)
