"""Figure 2: quality against balance as the load coefficient varies (after Figure 2 of the Hi-MoE paper)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from himoe_theory import metrics
from simulations import Balance, Thresholds

from .. import read, style

MARKERS = ("o", "s", "^", "D", "v")
ALT = (
    "Test error against the coefficient of variation of the expert loads, one panel for each length of the tokens' "
    "common mean; lines join the load coefficients of an arm, marker shapes tell the coefficients apart."
)


def mean_of(result: xr.Dataset) -> float:
    """Length μ of the common mean of the tokens."""
    return read.configuration(result)["data"]["mean"]


def alpha_of(result: xr.Dataset) -> dict[str, float]:
    """Load coefficient of every arm."""
    return {name: arm.terms.get("load_per_token", 0.0) for name, arm in read.facts(result).items()}


def families(result: xr.Dataset) -> dict[str, list[str]]:
    """Arms that differ only in the load coefficient, by their common name, in order of the coefficient."""
    alpha = alpha_of(result)
    found: dict[str, list[str]] = {}
    for name in sorted(alpha, key=alpha.__getitem__):
        found.setdefault(name.split(" α=")[0], []).append(name)
    return {family: found[family] for family in sorted(found, key=read.place)}


def largest_cv(result: xr.Dataset) -> float:
    """The largest hard CV there can be: as many experts take all tokens as a token selects."""
    load = result["hard_load"].isel(arm=0, seed=0, step=0)
    return metrics.max_cv(load.sizes["expert"], round(float(load.sum())))


def draw(*results: xr.Dataset) -> Figure:
    """A panel for every result (one μ each)."""
    with style.context():
        figure = Figure(figsize=(4.2 * len(results), 4.4), layout="constrained")
        panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
        for axes, result in zip(panels, results, strict=True):
            _panel(axes, result)
        panels[0].set_yscale("log")
        panels[0].set_ylim(*_limits(results))
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panels[0].yaxis.set_minor_locator(NullLocator())
        panels[0].set_ylabel("test error (mean squared), 95 % interval over seeds")
        _legend(figure, results[0])
    return figure


def _looks(result: xr.Dataset) -> tuple[dict[str, dict[str, str]], dict[float, dict[str, float | str]]]:
    """Line and colours of every family; marker of every coefficient, in falling sizes so that equal points show."""
    lines = [
        {"ls": ":", "mfc": "white", "mec": style.DARK},
        {"ls": "-", "mfc": style.DARK, "mec": "white"},
        {"ls": "--", "mfc": style.LIGHT, "mec": style.DARK},
    ]
    alphas = sorted(set(alpha_of(result).values()))
    shapes = [{"marker": marker, "ms": 12 - 2 * i} for i, marker in enumerate(MARKERS)]
    return dict(zip(families(result), lines, strict=False)), dict(zip(alphas, shapes, strict=False))


def _panel(axes: Axes, result: xr.Dataset) -> None:
    looks, shapes = _looks(result)
    alpha = alpha_of(result)
    for family, names in families(result).items():
        look = looks[family]
        x = [read.final_interval(result, name, "cv") for name in names]
        y = [read.final_interval(result, name, "test_error") for name in names]
        axes.plot([p.mean for p in x], [p.mean for p in y], ls=look["ls"], color=style.DARK, lw=1, zorder=2)
        for name, px, py in zip(names, x, y, strict=True):
            error = {"xerr": px.half_width, "yerr": py.half_width, "ecolor": style.MIDDLE, "elinewidth": 0.9}
            marks = shapes[alpha[name]] | {"mfc": look["mfc"], "mec": look["mec"], "mew": 0.9}
            axes.errorbar(px.mean, py.mean, **error, **marks, capsize=2, ls="", zorder=3, label=name)
    limit = largest_cv(result)
    threshold = Thresholds().lopsided * limit
    axes.axvspan(threshold, limit * 1.04, color=style.LIGHT, alpha=0.45, lw=0, zorder=0)
    # At the bottom, because collapsed layers err much.
    where = {"x": limit * 1.02, "y": 0.02, "transform": axes.get_xaxis_transform()}
    axes.text(**where, s="named lopsided or collapsed", ha="right", va="bottom", color=style.DARK)
    axes.set_xlim(-0.03 * limit, limit * 1.04)
    axes.set_xlabel("hard CV of the expert loads")
    axes.set_title(f"common mean of the tokens μ = {mean_of(result):g}")
    axes.grid(color=style.LIGHT, lw=0.4)
    axes.set_axisbelow(True)


def _limits(results: Sequence[xr.Dataset]) -> tuple[float, float]:
    """Room for all means, and for their intervals up to a factor of 3: an interval of two seeds can reach below 0."""
    points = [read.final_interval(result, name, "test_error") for result in results for name in alpha_of(result)]
    known = [(p.mean, np.nan_to_num(p.half_width)) for p in points if p.mean > 0]
    if not known:
        return 0.1, 1.0
    low = min(max(mean - half, mean / 3) for mean, half in known)
    return 0.9 * low, 1.1 * max(min(mean + half, 3 * mean) for mean, half in known)


def _legend(figure: Figure, result: xr.Dataset) -> None:
    looks, shapes = _looks(result)
    handles = [Line2D([], [], color=style.DARK, marker="o", ms=7, label=name, **look) for name, look in looks.items()]
    handles += [
        Line2D([], [], ls="", mfc=style.LIGHT, mec=style.DARK, label=f"α = {alpha:g}", **shape)
        for alpha, shape in shapes.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def lopsided(result: xr.Dataset, family: str, alpha: float) -> tuple[int, int]:
    """Seeds that end lopsided, and those among them that training made so."""
    (name,) = [n for n in families(result)[family] if alpha_of(result)[n] == alpha]
    counts = read.counts(result, name, "balance")
    collapsed = counts.get(Balance.COLLAPSED, 0)
    return counts.get(Balance.LOPSIDED, 0) + collapsed, collapsed


def verdict(high: xr.Dataset, low: xr.Dataset) -> str:
    """Whether loads without a load loss end lopsided with a common mean and not without one, family by family."""
    said = []
    for family in families(high):
        seeds = high.sizes["seed"]
        (with_mean, collapsed), (without, _) = lopsided(high, family, 0.0), lopsided(low, family, 0.0)
        outcome = {
            (True, False): "with the common mean and not without it",
            (True, True): "with the common mean and without it",
            (False, False): "neither with the common mean nor without it",
            (False, True): "without the common mean and not with it",
        }[with_mean > seeds / 2, without > low.sizes["seed"] / 2]
        said.append(
            f"{family}: {with_mean} of {seeds} seeds end lopsided at μ = {mean_of(high):g}, {collapsed} of them made "
            f"so by training, {without} of {low.sizes['seed']} at μ = {mean_of(low):g} ({outcome})"
        )
    return "; ".join(said)


def caption(*results: xr.Dataset) -> tuple[str, str]:
    """What is drawn; whether the collapse appears and disappears, and the lowest error for each μ."""
    high, low = max(results, key=mean_of), min(results, key=mean_of)
    best = [_best(result) for result in results]
    alone = [name for name, alpha in alpha_of(high).items() if alpha == 0]
    cv = [f"{name.split(' α=')[0]} {read.final_interval(high, name, 'cv')}" for name in alone]
    drawn = (
        f"Mean squared test error against the hard CV of the expert loads (at most {largest_cv(high):.3g}), means with "
        f"95 % Student intervals over {high.sizes['seed']} seeds after {int(high.step[-1])} steps; the error axis is "
        "logarithmic. Lines join the load coefficients α of an arm (N Σ h P, with h the share of tokens that select an "
        "expert); where several α give the same point, smaller markers lie on larger ones. In the shaded region a run "
        f"is named lopsided, or collapsed if training made it so. {read.untrained_note()}"
    )
    seen = (
        f"Without a load loss (α = 0): {verdict(high, low)}. Hard CV at μ = {mean_of(high):g}, α = 0: "
        f"{read.listed(cv)}. Lowest error: {read.listed(best)}. {read.diverged_note(*results)}"
    )
    return drawn, seen


def _best(result: xr.Dataset) -> str:
    errors = {name: read.final_interval(result, name, "test_error") for name in alpha_of(result)}
    known = {name: error for name, error in errors.items() if not np.isnan(error.mean)}
    if not known:
        return f"unknown at μ = {mean_of(result):g}"
    best = min(known, key=lambda name: known[name].mean)
    return f"{best} at μ = {mean_of(result):g} ({known[best]})"
