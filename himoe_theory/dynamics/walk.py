r"""MaxVio under the sign rule of a loss-free bias with sampling noise, on scores that are uniform, independent and
alike (D5, D9)."""

import math

import numpy as np

from .. import _checks


def bias_walk_floor(rate: float, num_experts: int, routes: int, tokens: int) -> float:
    r"""Expected MaxVio at the stationary state of $b_e \leftarrow b_e + u\,\mathrm{sign}(\bar n - n_e)$.

    Near balance the load share of an expert is $K/N + \rho b_e$ plus sampling noise of standard deviation
    $s = \sqrt{(K/N)(1 - K/N)/T}$, with $\rho = N/(N-1)$: uniform scores have density 1 at every boundary. So its bias
    walks on a lattice of spacing u, upwards with probability $\Phi(-\rho b/s)$; such a walk is in detailed balance.
    Experts are taken as independent but for the factor $N/(N-1)$ on the noise, as in `max_violation_floor`.

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
    reach = int(np.ceil(2 + 12 * noise / (slope * rate)))
    loads: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for phase in (np.arange(8) + 0.5) / 8:  # where the lattice lies is kept by the rule, and differs between experts
        bias = rate * (np.arange(-reach, reach + 1) + phase)
        odds = log_ndtr(-slope * bias[:-1] / noise) - log_ndtr(slope * bias[1:] / noise)
        log_weight = np.concatenate([[0.0], np.cumsum(odds)])
        likely = log_weight > log_weight.max() - 30
        share_of_time = np.exp(log_weight[likely] - log_weight.max())
        loads.append(slope * bias[likely])
        weights.append(share_of_time / share_of_time.sum() / 8)
    load, weight = np.concatenate(loads), np.concatenate(weights)
    spread = noise * math.sqrt(slope)
    edge = 8 * spread + np.abs(load).max()
    grid = np.linspace(-edge, edge, 2001)
    below = ndtr((grid[:, None] - load) / spread) @ weight
    # E max = edge - integral of the distribution of the maximum.
    largest = edge - np.trapezoid(below**num_experts, grid)
    return float(largest / share)
