r"""Where theory puts the load coefficient that stops collapse in a language model, and where it is.

Rules (D1, D10), all for the regularised arm and from what a run's own gates see:

- *frozen counts*: the common mode stops to grow at uniform routing, $\lambda_{intra} = \alpha K N/2$;
- *frozen counts, race*: it stops to outgrow the strongest contrast between tokens, $1 - \kappa_c/\kappa_0$ of that;
- *hard counts*: `critical_load_hard` within groups, at the spread that normal logits need for the run's $I_2$;
- *hard counts, race*: the same share of that.
"""

import functools

import numpy as np
import xarray as xr

from himoe_theory import dynamics
from simulations import Interval, Thresholds, interval

from .. import read

REGULARISED = "hi-moe"
RULES = ("frozen counts", "frozen counts, race", "hard counts", "hard counts, race")
_SPREADS = np.geomspace(0.02, 8, 40)


def alphas(result: xr.Dataset, arm: str) -> list[float]:
    """Load coefficients of an arm, from the names."""
    named = (str(name).split(" α=") for name in result.arm.values)
    return sorted(float(alpha) for name, alpha in named if name == arm)


def regularised(result: xr.Dataset) -> xr.Dataset:
    """The regularised arm's runs, over `alpha`."""
    found = alphas(result, REGULARISED)
    rows = result.sel(arm=[f"{REGULARISED} α={alpha:g}" for alpha in found])
    return rows.rename(arm="alpha").assign_coords(alpha=found)


@functools.cache
def _hard(intra: float, experts: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    r"""$E\|\pi\|^2$ of balanced normal logits over `_SPREADS`, and the critical load of hard counts, $\sum_e h_e=1$."""
    concentration = [1 - (experts - 1) * dynamics.spread_slope(spread, experts) for spread in _SPREADS]
    critical = [dynamics.critical_load_hard(spread, intra, experts, 1, size) for spread in _SPREADS]
    return np.asarray(concentration), np.asarray(critical)


def predicted(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Critical load coefficient by rule, over (alpha, seed, record, layer)."""
    fact = next(fact for name, fact in read.facts(result).items() if name.startswith(REGULARISED))
    runs, experts, intra = regularised(result), len(fact.groups), fact.terms["intra_group_global"]
    routes = runs["hard_load"].isel(record=-1).sum("expert").mean().item()
    race = 1 - runs["contrast_power"] / runs["common_power"]
    frozen = xr.full_like(race, float(dynamics.critical_load_frozen(intra, experts)) / routes)
    concentration, critical = _hard(intra, experts, int(np.bincount(fact.groups).min()))
    # Of balanced use: a common offset concentrates routing too, and I_2 leaves it out.
    balanced = np.exp(runs["collision_information"]) / experts
    hard = xr.apply_ufunc(lambda at: np.interp(at, concentration, critical), balanced) / routes
    return dict(zip(RULES, (frozen, frozen * race, hard, hard * race), strict=True))


def collapsed(result: xr.Dataset) -> xr.DataArray:
    """Whether a layer of a run ends with at least half of the largest CV: lopsided, in the words of `Balance`."""
    last = regularised(result).isel(record=-1)
    largest = np.sqrt(last.sizes["expert"] / last["hard_load"].sum("expert") - 1)
    return last["cv"] >= Thresholds().lopsided * largest


def hits(result: xr.Dataset) -> dict[str, float]:
    """Share of (alpha, seed, layer) whose collapse, or none, a rule says from the run's state at the end."""
    seen = collapsed(result)
    return {rule: float(((seen.alpha < at.isel(record=-1)) == seen).mean()) for rule, at in predicted(result).items()}


def edge(alpha: np.ndarray, excess: np.ndarray) -> float:
    """Where a function over the grid falls below 0 for good, linearly between points; NaN if it never does or never
    was above."""
    above = np.flatnonzero(excess >= 0)
    if not len(above) or above[-1] == len(alpha) - 1:
        return float("nan")
    i = above[-1]
    return float(alpha[i] + (alpha[i + 1] - alpha[i]) * excess[i] / (excess[i] - excess[i + 1]))


def _edges(excess: xr.DataArray) -> np.ndarray:
    """By seed, mean over layers."""
    rows = excess.transpose("seed", "layer", "alpha").values
    return np.array([np.mean([edge(excess.alpha.values, one) for one in layers]) for layers in rows])


def observed_edges(result: xr.Dataset) -> np.ndarray:
    """By seed: the load from which a layer's CV stays below half of the largest; mean over layers."""
    last = regularised(result).isel(record=-1)
    largest = np.sqrt(last.sizes["expert"] / last["hard_load"].sum("expert") - 1)
    return _edges(last["cv"] - Thresholds().lopsided * largest)


def predicted_edges(result: xr.Dataset) -> dict[str, np.ndarray]:
    """By rule and seed: the load from which runs lie above the boundary of their own end; mean over layers."""
    return {rule: _edges(at.isel(record=-1) - at.alpha) for rule, at in predicted(result).items()}


def errors(result: xr.Dataset) -> dict[str, Interval]:
    """By rule: ln(predicted/observed) with its interval over seeds; NaN where one has no edge."""
    seen = observed_edges(result)
    return {rule: interval(np.log(found / seen)) for rule, found in predicted_edges(result).items()}


def table(result: xr.Dataset) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row a rule: predicted and observed boundary, their ratio, runs that are right, and the course in training."""
    heading = (
        "rule",
        "before training",
        "largest in training",
        "predicted α",
        "observed α",
        "predicted / observed (95 % interval)",
        "layers of runs right",
    )
    every, edges, wrong, right = predicted(result), predicted_edges(result), errors(result), hits(result)
    seen = read.told(interval(observed_edges(result)), 4)
    rows = []
    for rule in RULES:
        course = every[rule].isel(alpha=0).mean(("seed", "layer"))
        first, most = (f"{max(float(value), 0):.2g}" for value in (course[0], course.max()))
        found = read.told(interval(edges[rule]), 4)
        rows.append((rule, first, most, found, seen, factor(wrong[rule]), f"{right[rule]:.0%}"))
    return heading, rows


def factor(error: Interval) -> str:
    """exp of an interval of logarithms."""
    if np.isnan(error.mean):
        return "no edge"
    low, high = np.exp([error.mean - error.half_width, error.mean + error.half_width])
    return f"{np.exp(error.mean):.2f} ({low:.2f} to {high:.2f})"
