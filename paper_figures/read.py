"""What several figures read from a stored result of simulations: arms, groups, regimes, intervals."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from simulations import NAMES, Interval, Name, Regime, interval, name_of
from simulations.null import rules

# The order in which arms are shown, a row of six at a time: free selection, the ablation of grouped selection, Guo's
# five; controls close the last rows, and the plain network comes before all.
ORDER = (
    "plain",
    *("dense", "gshard", "st-moe", "loss-free", "free-top-k", "switch"),
    *("moge", "moge-intra", "moge-inter", "moge-bias", "moge-intra-inter", "hi-moe"),
    *("guo-none", "guo-aux", "guo-aux-lo", "guo-aux-lv", "guo-all", "planted"),
    "frozen",
)


@dataclasses.dataclass(frozen=True)
class ArmFacts:
    """What the stored configuration says of an arm."""

    name: str
    summary: str
    source: str
    terms: dict[str, float]
    selection: str
    """Class of the selection rule."""
    groups: tuple[int, ...]
    """Group of every expert."""

    @property
    def grouped(self) -> bool:
        """Whether every group selects for itself."""
        return self.selection == "GroupedTopK"

    @property
    def by_group(self) -> np.ndarray:
        """Experts with those of a group side by side."""
        return np.argsort(self.groups, kind="stable")

    @property
    def boundaries(self) -> np.ndarray:
        """Places between neighbours of different groups, in that order; expert i covers i - 1/2 to i + 1/2."""
        return np.flatnonzero(np.diff(np.sort(self.groups))) + 0.5


def configuration(result: xr.Dataset) -> dict[str, Any]:
    """The stored configuration."""
    return json.loads(result.attrs["configuration"])


def facts(result: xr.Dataset) -> dict[str, ArmFacts]:
    """Every arm's facts by name, in the order of the result."""
    return {
        arm["name"]: ArmFacts(
            name=arm["name"],
            summary=arm["summary"],
            source=arm["router"]["source"],
            terms=arm["terms"],
            selection=arm["router"]["selection"]["kind"],
            groups=tuple(arm["router"]["partition"]["group_of"]),
        )
        for arm in configuration(result)["arms"]
    }


def arms_in_order(result: xr.Dataset) -> list[str]:
    """Names of the arms as they are shown; those without a place of their own come last."""
    return sorted((str(name) for name in result.arm.values), key=place)


def place(name: str) -> int:
    """Where an arm is shown among all."""
    return ORDER.index(name) if name in ORDER else len(ORDER)


def regime(result: xr.Dataset, arm: str, name: str = "regime") -> str:
    """The most frequent regime, or balance, and its seeds: `specialised 7/8`."""
    found, seeds = name_of(result, arm, name)
    return f"{found.label} {seeds}/{result.sizes['seed']}"


def counts(result: xr.Dataset, arm: str, name: str = "regime") -> dict[Name, int]:
    """Seeds in each regime, or balance, that occurs."""
    codes = result[name].sel(arm=arm).values.astype(int)
    return {one: int((codes == one).sum()) for one in NAMES[name] if (codes == one).any()}


def untrained_note() -> str:
    """The rules of the names and what they make of untrained gates, for captions."""
    return " ".join(f"{name.capitalize()}: {'; '.join(rules(kind))}." for name, kind in NAMES.items())


def diverged(result: xr.Dataset) -> int:
    """How many runs diverged."""
    return int((result["regime"] == Regime.DIVERGED).sum())


def final_interval(result: xr.Dataset, arm: str, name: str) -> Interval:
    """Mean and 95 % interval of a measurement at the end, over the seeds that did not diverge; NaN if all did."""
    kept = result["regime"].sel(arm=arm).values != Regime.DIVERGED
    of_arm = result[name].sel(arm=arm)
    values = (of_arm.isel(step=-1) if "step" in of_arm.dims else of_arm).values[kept]
    return interval(values) if kept.any() else Interval(float("nan"), float("nan"))


def shown_seed(result: xr.Dataset, arm: str) -> int:
    """The seed that stands for an arm: median test error (the lower one) among those in its most frequent regime.

    A mean over seeds would blur: which expert takes which cluster differs from seed to seed.
    """
    most, _ = name_of(result, arm)
    inside = result.seed.values[result["regime"].sel(arm=arm).values == most]
    errors = result["test_error"].sel(arm=arm, seed=inside).isel(step=-1).values
    return int(inside[np.argsort(errors, kind="stable")[(len(inside) - 1) // 2]])


def excludes_zero(found: Interval) -> bool:
    """Whether an interval lies on one side of 0; one of unknown width does not."""
    return abs(found.mean) > found.half_width


def told(found: Interval, digits: int = 3, *, sign: bool = False) -> str:
    """Mean ± half-width with so many decimals, and the sign of the mean if wanted."""
    width = "n/a" if np.isnan(found.half_width) else f"{found.half_width:.{digits}f}"
    return f"{found.mean:{'+' if sign else ''}.{digits}f} ± {width}"


def extremes(found: Mapping[str, Interval], digits: int = 3) -> str:
    """The least and the greatest of the arms' means that are known, with the arms."""
    known = {name: one for name, one in found.items() if not np.isnan(one.mean)}
    if not known:
        return "unknown"
    ordered = sorted(known, key=lambda name: known[name].mean)
    least, greatest = (f"{told(known[name], digits)} ({name})" for name in (ordered[0], ordered[-1]))
    return f"from {least} to {greatest}"


def listed(names: list[str]) -> str:
    """`a, b and c`; `none` of no names."""
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def diverged_note(*results: xr.Dataset) -> str:
    """One sentence on the runs left out of means and intervals."""
    left_out = sum(diverged(result) for result in results)
    return "No run diverged." if left_out == 0 else f"{left_out} diverged runs are left out of means and intervals."
