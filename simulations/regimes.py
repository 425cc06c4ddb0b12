"""Two names for the outcome of a run, by stated thresholds on what is measured: what it learned, and how it balances.

*Regime.* *Diverged* if the test loss is not finite, or above `diverged` times its value before training. Else by the
gain of the trained gate, G = (e_frozen − e) / max(e_frozen − e_planted, `least_gap` e_0): test errors of the run, of
the same layer on the same data with its gate left as it was drawn (0 there) and with a gate that reads the label (1
there), and of the run before training. *Specialised* from `specialised` on, *partial* from `partial` on,
or if selection and probabilities both hold less than `informed` of what they could hold on labels, else *unlearned*;
*not judged* if the two were not run, or diverged.

*Balance.* u is the hard CV over the largest it can be, sqrt(N/R − 1) with R the mean number of experts a token keeps;
training took a share of the evenness, (u − u_0)/(1 − u_0), u_0 at step 0. *Lopsided* if u is at least `lopsided`;
*collapsed* if, then, training took at least `by_training`; *redundant* (across groups) if the groups' choices have a
normalised total correlation of at least `redundant`, raised by training likewise; *even* if the CV is at most `even`
times what sampling the test tokens gives even routers, sqrt((N/R − 1)/T); else *uneven*. An untrained gate changes
nothing: it is never collapsed or redundant.

A layer that selects and keeps every expert has no hard load: its soft load stands in, as one choice a token.
"""

import dataclasses
from collections.abc import Mapping
from enum import IntEnum

import numpy as np

from himoe_theory import Router, metrics


class Name(IntEnum):
    """Code of a name, as stored."""

    @property
    def label(self) -> str:
        """As it is printed."""
        return self.name.lower().replace("_", " ")

    @classmethod
    def codes(cls) -> str:
        """What every code means, as results say it."""
        return ", ".join(f"{one.value} {one.label}" for one in cls)


class Regime(Name):
    """What a run learned."""

    NOT_JUDGED = 0
    UNLEARNED = 1
    PARTIAL = 2
    SPECIALISED = 3
    DIVERGED = 4


class Balance(Name):
    """How a run uses its experts."""

    EVEN = 0
    UNEVEN = 1
    REDUNDANT = 2
    LOPSIDED = 3
    COLLAPSED = 4
    DIVERGED = 5


NAMES: Mapping[str, type[Name]] = {"regime": Regime, "balance": Balance}
"""Names of runs by the variable that holds their codes."""


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Where one name ends and the next begins; see the module's first lines."""

    specialised: float = 0.5
    partial: float = 0.1
    least_gap: float = 0.02
    informed: float = 0.1
    lopsided: float = 0.5
    by_training: float = 0.5
    redundant: float = 0.8
    even: float = 2.0
    diverged: float = 100.0


DEFAULT = Thresholds()


def keeps_all(router: Router) -> bool:
    """Whether every token selects and keeps every expert, so that the soft load stands in."""
    return router.least_routes == router.partition.num_experts


def has_diverged(loss: np.ndarray, initial_loss: np.ndarray, at: Thresholds = DEFAULT) -> np.ndarray:
    """Whether a run's test loss at the end is not finite, or far above that at the start."""
    return ~np.isfinite(loss) | (loss > at.diverged * initial_loss)


def gain(
    error: np.ndarray,
    initial_error: np.ndarray,
    frozen: np.ndarray,
    planted: np.ndarray,
    at: Thresholds = DEFAULT,
) -> np.ndarray:
    """G: 0 for a frozen gate, 1 for the planted one where that is better; may be below 0 and above 1.

    **Arguments:** test errors of runs: at the end, at the start, and at the end of the runs with a frozen and with a
    planted gate, NaN where there are none; so is G.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = np.maximum(frozen - planted, at.least_gap * initial_error)
        # Two runs without any error are equal, not undefined.
        return np.where((frozen == error) & (scale == 0), 0.0, (frozen - error) / scale)


def name_regimes(
    gained: np.ndarray, information: np.ndarray, diverged: np.ndarray, at: Thresholds = DEFAULT
) -> np.ndarray:
    """Regime codes of runs, from arrays of any equal shape.

    **Arguments:** `gained`: G, NaN where unknown. `information`: on labels, over the largest possible.
    `diverged`: see `has_diverged`.
    """
    code = np.full(np.shape(gained), Regime.UNLEARNED, dtype=np.int8)
    code[gained >= at.partial] = Regime.PARTIAL
    code[(gained >= at.specialised) & (information >= at.informed)] = Regime.SPECIALISED
    code[~np.isfinite(gained)] = Regime.NOT_JUDGED
    code[diverged] = Regime.DIVERGED
    return code


def name_balance(
    first: Mapping[str, np.ndarray],
    final: Mapping[str, np.ndarray],
    diverged: np.ndarray,
    router: Router,
    tokens: int,
    at: Thresholds = DEFAULT,
) -> np.ndarray:
    """Balance codes of runs with routers of one structure.

    **Arguments:** `first`, `final`: measurements at the start and at the end, by name, of any equal shape; `hard_load`
    has the experts as its last axis. `tokens`: in the test batch.
    """
    before, after, floor = _unevenness(first, router), _unevenness(final, router), tokens**-0.5
    redundant = final["redundancy"] >= at.redundant  # NaN, undefined, is never redundant
    code = np.full(after.shape, Balance.UNEVEN, dtype=np.int8)
    code[after <= at.even * floor] = Balance.EVEN
    code[redundant & (taken(first["redundancy"], final["redundancy"]) >= at.by_training)] = Balance.REDUNDANT
    lopsided = after >= at.lopsided
    code[lopsided] = Balance.LOPSIDED
    code[lopsided & (taken(before, after) >= at.by_training)] = Balance.COLLAPSED
    code[diverged] = Balance.DIVERGED
    return code


def taken(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The share of the room up to 1 that training took, of numbers in [0, 1]; below 0 where it gave some."""
    moved = after - before
    with np.errstate(divide="ignore"):
        return np.divide(moved, 1 - before, out=np.zeros_like(moved), where=moved != 0)


def cv_floor(final: Mapping[str, np.ndarray], router: Router, tokens: int) -> np.ndarray:
    """`metrics.cv_floor` of runs, from their measurements at the end."""
    return metrics.cv_floor(router.partition.num_experts, _routes(final, router), tokens).astype(np.float32)


def _unevenness(measured: Mapping[str, np.ndarray], router: Router) -> np.ndarray:
    """CV over the largest it can be; 0 where no loads are possible but equal ones."""
    cv, largest = np.asarray(measured["soft_cv" if keeps_all(router) else "cv"], float), _largest_cv(measured, router)
    return np.minimum(np.divide(cv, largest, out=np.zeros_like(cv), where=largest > 1e-3), 1.0)


def _largest_cv(measured: Mapping[str, np.ndarray], router: Router) -> np.ndarray:
    """`metrics.max_cv` for the mean number of experts: the floor of one token, which is as uneven as can be."""
    return metrics.cv_floor(router.partition.num_experts, _routes(measured, router), tokens=1)


def _routes(measured: Mapping[str, np.ndarray], router: Router) -> np.ndarray:
    """Mean number of experts that tokens kept; 1 where probabilities stand in."""
    kept = np.minimum(measured["hard_load"].sum(axis=-1, dtype=np.float64), router.partition.num_experts)  # rounding
    return np.ones_like(kept) if keeps_all(router) else kept
