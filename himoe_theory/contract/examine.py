"""How one property is examined: how far each case violates it, the worst case, and a smaller one like it."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from .cases import Cases, written
from .finding import Finding, Outcome
from .shrink import smallest

Excess = Callable[[Cases], Float[np.ndarray, " cases"]]
"""How far each case is off, in units of what is allowed: above 1, or not a number, it fails."""


@dataclasses.dataclass(frozen=True)
class Property:
    """A property of anything that reads cases.

    **Arguments:** `excess`: see there. `told`: the numbers of one failing case. `held`: what to say when it holds.
    `ties`: whether smaller examples may have equal entries. `variable`: the field of the cases that is made smaller.
    """

    name: str
    claimed: bool
    excess: Excess
    told: Callable[[Cases], str]
    held: str
    ties: bool = True
    variable: str = "logits"

    def examine(self, cases: Cases) -> Finding:
        """The finding."""
        worst = _worst(self.excess(cases))
        if worst is None:
            return Finding(self.name, Outcome.HOLDS, self.claimed, f"{self.held}; {cases.number} cases")
        case = cases.take([worst])
        given = getattr(case, self.variable)[0]

        def fails(tables: Float[np.ndarray, "cases tokens *rest"]) -> np.ndarray:
            many = case.take([0] * len(tables))._replace(**{self.variable: tables})
            return ~(self.excess(many) <= 1)

        small = smallest(given, fails, ties=self.ties)
        last = case._replace(**{self.variable: small[None]})
        return Finding(self.name, Outcome.FAILS, self.claimed, self.told(last), written(self.variable, small))


def _worst(excess: Float[np.ndarray, " cases"]) -> int | None:
    """The first case of largest excess, one that is no number before all others; `None` if all are allowed."""
    score = np.where(np.isnan(excess), np.inf, excess)
    return None if (score <= 1).all() else int(score.argmax())


def difference(
    a: Float[np.ndarray, "cases *rest"], b: Float[np.ndarray, "cases *rest"], *, allowed: float
) -> Float[np.ndarray, " cases"]:
    """Largest difference in each case, relative to the larger of the two and 1, over what is allowed. Two equal
    infinities, or two NaN, do not differ here: finiteness is a property of its own."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    scale = np.maximum(1, np.maximum(np.abs(a).max(axis=1), np.abs(b).max(axis=1)))
    with np.errstate(invalid="ignore"):
        off = np.where(same, 0, np.abs(a - b))
    return off.max(axis=1) / scale / allowed


def pair(name_a: str, a: Float[np.ndarray, "*rest"], name_b: str, b: Float[np.ndarray, "*rest"]) -> str:
    """Where two arrays differ most, and their entries there."""
    with np.errstate(invalid="ignore"):
        off = np.abs(a - b)
    off = np.where(np.isnan(off), np.where(np.isnan(a) & np.isnan(b), 0, np.inf), off)
    where = np.unravel_index(int(off.argmax()), a.shape)
    place = f" at {tuple(int(i) for i in where)}" if where else ""
    ratio = f", ratio {a[where] / b[where]:.6g}" if np.isfinite(b[where]) and b[where] != 0 else ""
    return f"{name_a} {a[where]:.6g}, {name_b} {b[where]:.6g}{place}{ratio}"
