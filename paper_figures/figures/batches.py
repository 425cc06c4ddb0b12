"""Finite batches, hard counts, groups: D2, D10, the floor of MaxVio (D5, D9), effective groups (D11), sliding (D10)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import style
from . import sliding as slides

IDENTITY_BOUND = 4.0
"""Largest deviation of a batch mean from the identity, in its standard errors."""
WINDOW_BOUND, FLOOR_BOUND = 0.01, 0.1
"""Largest relative differences of forces and edges, and of MaxVio, from theory."""
LINES = ("-", "--", ":")
ALT = (
    "Six panels: excess load of batches against their size; ratio of two forces against the spread of logits; MaxVio "
    "against the bias step; effective groups per token against training steps for three settings; lead of a score over "
    "time, which stays at zero, leaves it or crosses it; distance from theory against the size of the steps."
)


def identity_error(result: xr.Dataset) -> float:
    """Largest deviation of a batch mean from the identity, in its standard errors."""
    return float(np.abs((result["measured"] - result["predicted"]) / result["standard_error"]).max())


def window_error(result: xr.Dataset) -> float:
    """Largest relative difference of a measured ratio or edge from theory."""
    ratio = np.abs(result["measured"] / result["predicted"] - 1).max()
    edge = np.abs(result["edge"] / result["predicted_edge"] - 1).max()
    return float(max(ratio, edge))


def floor_error(results: Sequence[xr.Dataset]) -> float:
    """Largest relative difference of a measured MaxVio from theory."""
    return max(float(np.abs(one["measured"] / one["predicted"] - 1).max()) for one in results)


def group_error(result: xr.Dataset) -> float:
    """Largest relative difference of the groups left at the end from theory's limit, where it gives one."""
    return float(np.abs(result["groups"].isel(step=-1) / result["limit"] - 1).max())


def draw(
    load: xr.Dataset, window: xr.Dataset, few: xr.Dataset, many: xr.Dataset, groups: xr.Dataset, sliding: xr.Dataset
) -> Figure:
    """Identity, window, floor, groups, and sliding."""
    with style.context():
        figure = Figure(figsize=(8.2, 9.3), layout="constrained")
        grid = figure.subplots(3, 2)
        _identity(grid[0, 0], load)
        _window(grid[0, 1], window)
        _floor(grid[1, 0], (few, many))
        _groups(grid[1, 1], groups)
        slides.paths(grid[2, 0], sliding)
        slides.distances(grid[2, 1], sliding)
        style.letter(grid.flat)
    return figure


def _identity(axes: Axes, result: xr.Dataset) -> None:
    tokens, limit = result.tokens.values, float(result["limit"])
    axes.loglog(tokens, result["predicted"] - limit, "-", color=style.MIDDLE, lw=1.1, label="N(E‖π‖² − ‖p‖²) / T")
    axes.errorbar(
        tokens, result["measured"] - limit, yerr=result["standard_error"], ls="", marker="o", ms=3.6, mfc="white",
        color=style.DARK, elinewidth=0.9, capsize=2, label="batches, ± standard error",
    )  # fmt: skip
    axes.set(xlabel="tokens in a batch T", ylabel="batch load less population load, N‖P‖²")
    style.note(axes, 0.04, 0.05, f"largest deviation {identity_error(result):.1f} standard errors")
    axes.legend(frameon=False, loc="upper right")


def _window(axes: Axes, result: xr.Dataset) -> None:
    axes.loglog(result.spread, result["predicted"], "-", color=style.MIDDLE, lw=1.1, label="theory")
    axes.loglog(result.spread, result["measured"], "o", color=style.DARK, ms=3.2, mfc="white", label="gradients")
    for ratio in result.ratio.values:
        one = result.sel(ratio=ratio)
        if np.isfinite(one["edge"]).all():
            axes.plot(one["predicted_edge"], [ratio, ratio], "--", color=style.MIDDLE, lw=0.9)
            axes.plot(one["edge"], [ratio, ratio], "|", color=style.ACCENT, ms=9, mew=1.4)
            middle = float(np.sqrt(one["edge"].prod()))
            axes.text(middle, ratio / 1.06, f"α = {ratio:g} λ", ha="center", va="top", fontsize=6.5)
    axes.set(
        xlabel="spread σ of the logits' difference", ylabel="push of R_intra / pull of the load\n(per unit of λ/α)"
    )
    style.note(axes, 0.5, 0.03, f"largest error {window_error(result):.1%}", ha="center")
    axes.legend(frameon=False, loc="upper left")


def _floor(axes: Axes, results: Sequence[xr.Dataset]) -> None:
    for result, marker, colour in zip(results, "os", (style.DARK, style.ACCENT), strict=True):
        name = f"N = {result.attrs['experts']}, K = {result.attrs['routes']}, T = {result.attrs['tokens']}"
        rate = result.rate.values
        axes.semilogx(rate, result["predicted"], "-", color=style.MIDDLE, lw=1.1)
        axes.axhline(float(result["sampling"]), color=style.MIDDLE, ls=":", lw=0.9)
        axes.errorbar(
            rate, result["measured"], yerr=result["standard_error"], ls="", marker=marker, ms=3.8, mfc="white",
            color=colour, elinewidth=0.9, capsize=2, label=name,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set(xlabel="step u of the loss-free bias", ylabel="MaxVio of a batch")
    style.note(axes, 0.97, 0.04, f"largest error {floor_error(results):.1%}; dotted: sampling alone", ha="right")
    axes.legend(frameon=False, loc="upper left")


def _groups(axes: Axes, result: xr.Dataset) -> None:
    steps = result.step.values
    for arm, line, colour in zip(result.arm.values, LINES, (style.DARK, style.ACCENT, style.DARK), strict=True):
        for seed in result.seed.values:
            label = str(arm) if seed == result.seed.values[0] else None
            axes.plot(steps, result["groups"].sel(arm=arm, seed=seed), line, color=colour, lw=1.2, label=label)
    for limit in np.unique(result["limit"].dropna("arm")):
        axes.axhline(limit, color=style.LIGHT, lw=0.9, zorder=0)
    axes.set_ylim(0.9, 1.05 * result.attrs["groups"])
    style.note(axes, 0.97, 0.5, f"largest error of the end\nfrom the limit {group_error(result):.1%}", ha="right")
    axes.set(xlabel="plain gradient steps of rate 1", ylabel="effective groups per token")
    axes.legend(frameon=False, loc="lower left")


def caption(
    load: xr.Dataset, window: xr.Dataset, few: xr.Dataset, many: xr.Dataset, groups: xr.Dataset, sliding: xr.Dataset
) -> tuple[str, str]:
    """What is drawn; the largest errors; the groups left; what slides."""
    drawn = (
        "Lines: theory; marks: measured. (a): the full load of batches exceeds that of the population by exactly 1/T "
        "of the tokens' own concentration (D2). (b): two experts under hard counts collapse where the curve is above "
        "α/λ_intra (D10). (c): a loss-free router on uniform scores; the curve is the stationary walk of the biases, "
        "the dotted line sampling alone (D5, D9). (d): linear routers trained on load, R_intra and R_inter alone, one "
        "line a seed; theory has groups collapse above a purity of λ_inter/λ_intra inside groups (D11), and "
        "one group or all left in the end (grey), which finite steps approach. (e): reinforced scores of "
        f"{sliding.attrs['experts']} experts under a load that counts tokens, by plain steps; where the load pushes "
        "back whichever of two experts leads, theory has their scores slide on the tie (Filippov), leave it "
        "when counting the first in every step no longer stops it, or cross (D10). (f): the largest distance of these "
        "steps from theory."
    )
    last = groups.isel(step=-1).mean("seed")
    told = [
        f"{arm}: {float(last['groups'].sel(arm=arm)):.2f} of {groups.attrs['groups']} at purity "
        f"{float(last['purity'].sel(arm=arm)):.2f} (flip at {float(last['flip'].sel(arm=arm)):g}), CV of group counts "
        f"{float(last['group_cv'].sel(arm=arm)):.2f}"
        for arm in groups.arm.values
    ]
    inside = (
        identity_error(load) <= IDENTITY_BOUND
        and window_error(window) <= WINDOW_BOUND
        and floor_error((few, many)) <= FLOOR_BOUND
    )
    seen = (
        f"Batch means deviate by at most {identity_error(load):.1f} standard errors, forces and edges of the window by "
        f"{window_error(window):.1%}, MaxVio by {floor_error((few, many)):.1%} (sampling noise is taken as normal): "
        f"{'all' if inside else 'not all'} within the stated bounds. Effective groups at the end, "
        f"{'; '.join(told)}; they differ "
        f"from the limit of endless training by at most {group_error(groups):.1%}. {slides.told(sliding)}"
    )
    return drawn, seen
