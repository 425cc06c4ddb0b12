"""Regimes: names for the outcome of a run, by stated thresholds on measured quantities.

In this order: *diverged* if the test loss is not finite, or above `diverged` times its value before training;
*collapsed* if the hard CV is at least `collapsed` of the largest it can be, sqrt(N/R - 1) with R the mean number of
experts a token keeps; *uniform* if the label-expert information is below `uniform` of the largest it can be;
*redundant*
(across groups) if the groups' choices have a normalised total correlation of at least `redundant`; else *specialised*.
A dense layer selects nothing: soft load, over sqrt(N - 1), and soft information stand in.
"""

import dataclasses
from collections.abc import Mapping
from enum import IntEnum

import numpy as np

from himoe_theory import Router


class Regime(IntEnum):
    """Code of an outcome, as stored."""

    UNIFORM = 0
    SPECIALISED = 1
    REDUNDANT = 2
    COLLAPSED = 3
    DIVERGED = 4


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Where one regime ends and the next begins; see the module's first lines."""

    collapsed: float = 0.5
    uniform: float = 0.1
    redundant: float = 0.8
    diverged: float = 100.0


def name_regimes(
    final: Mapping[str, np.ndarray], initial_loss: np.ndarray, router: Router, at: Thresholds = Thresholds()
) -> np.ndarray:
    """Regime codes of runs with routers of one structure, from the measurements at the end, of any equal shape.

    **Arguments:** `final`: by name; `hard_load` has the experts as its last axis. `initial_loss`: test losses at the
    start.
    """
    n = router.partition.num_experts
    if router.routes == n:
        unevenness, information = final["soft_cv"] / (n - 1) ** 0.5, final["soft_information"]
    else:
        # `metrics.max_cv` for the mean number of experts that tokens kept.
        unevenness, information = final["cv"] / np.sqrt(n / final["hard_load"].sum(axis=-1) - 1), final["information"]
    loss = final["test_loss"]
    code = np.full(loss.shape, Regime.SPECIALISED, dtype=np.int8)
    code[final["redundancy"] >= at.redundant] = Regime.REDUNDANT  # NaN, undefined, is never redundant
    code[information < at.uniform] = Regime.UNIFORM
    code[unevenness >= at.collapsed] = Regime.COLLAPSED
    code[~np.isfinite(loss) | (loss > at.diverged * initial_loss)] = Regime.DIVERGED
    return code
