"""What the names of runs make of gates that nobody trained, to stand beside every name: see `simulations.untrained`."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import xarray as xr

from . import store
from .regimes import Balance, Name, Regime, Thresholds

EVIDENCE = Path(__file__).parent / "evidence" / "untrained.nc"


@dataclasses.dataclass(frozen=True)
class Rate:
    """How many of some runs, and the exact (Clopper–Pearson) 95 % interval of their share."""

    count: int
    runs: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Least and greatest share that the count does not refute."""
        from scipy import stats

        found = stats.binomtest(self.count, self.runs).proportion_ci(level, method="exact")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        return f"{self.count} of {self.runs} (at most {100 * self.interval()[1]:.2g} %)"


def rate(flags: xr.DataArray) -> Rate:
    """Of the runs that have the flag."""
    return Rate(int(flags.sum()), flags.size)


@dataclasses.dataclass(frozen=True)
class Null:
    """What the names make of gates that nobody trained."""

    specialised: Rate
    partial: Rate
    """Partial or more: what luck of the draw does."""
    collapsed: Rate
    quantile: float
    """99 % of foreign gates have at most this G."""
    missed: Rate
    """Gates that point at the centres and are not named specialised."""


def summary(evidence: xr.Dataset) -> Null:
    """The errors of the names, over all cells."""
    foreign, own, centres = (evidence.sel(kind=kind) for kind in ("foreign", "own", "centres"))
    return Null(
        rate(foreign["regime"] == Regime.SPECIALISED),
        rate(foreign["gain"] >= Thresholds().partial),
        rate(own["balance"] == Balance.COLLAPSED),
        float(np.quantile(foreign["gain"], 0.99)),
        rate(centres["regime"] != Regime.SPECIALISED),
    )


@functools.cache
def null() -> Null | None:
    """Of the evidence that comes with this package, if it is there."""
    return summary(store.read_result(EVIDENCE)) if EVIDENCE.exists() else None


def rules(kind: type[Name]) -> list[str]:
    """What stands below a table or a figure that prints such names: the rule, and what it makes of untrained gates."""
    at, found = Thresholds(), null()
    if kind is Regime:
        said = [
            f"G = (frozen − own) / (frozen − planted error, at least {100 * at.least_gap:g} % of the first)",
            f"specialised from {at.specialised:g} if label info is {at.informed:g}, partial from {at.partial:g}",
            "not judged without partners",
        ]
        luck = (
            found
            and f"{found.partial.count} partial: alone no evidence of learning, 99 % have G ≤ {found.quantile:.2f}"
        )
        made = found and f"{found.specialised} specialised, {luck}"
    else:
        said = [
            f"lopsided from {at.lopsided:g} of the largest CV",
            f"then collapsed if training took {at.by_training:g} of the evenness",
            f"even up to {at.even:g} floors of sampling",
        ]
        made = found and f"{found.collapsed} collapsed"
    return ["; ".join(said), f"untrained gates: {made or 'not computed'}"]
