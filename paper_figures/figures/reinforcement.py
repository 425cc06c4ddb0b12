"""Reinforced scores: hysteresis of collapse (D7), dead experts (D8), oscillation of a bias (D9)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from .. import style

JUMP_BOUND, STAIR_BOUND, PERIOD_BOUND = 0.02, 0.01, 0.01
"""Largest relative differences of measured transitions, thresholds and periods from theory."""
ALT = (
    "Four panels: largest probability against control for 8 and for 64 experts, going up and down along different "
    "branches; live experts against the load's coefficient as a staircase; period of the bias against its rate."
)


def jump_error(hysteresis: xr.Dataset) -> float:
    """Largest relative difference of a measured transition from theory."""
    return float(np.abs(hysteresis["jump"] / hysteresis["predicted_jump"] - 1).max())


def stair_error(staircase: xr.Dataset) -> float:
    """Largest relative difference of a measured threshold from theory."""
    return float(np.abs(staircase["measured_threshold"] / staircase["threshold"] - 1).max())


def period_error(oscillation: xr.Dataset) -> float:
    """Largest relative difference of a measured period from that at the threshold."""
    return float(np.abs(oscillation["measured"] / oscillation["predicted"] - 1).max())


def above(staircase: xr.Dataset) -> int:
    """Runs that end with more live experts than are stable by theory."""
    return int((staircase["live"] > staircase["largest_live"]).sum())


def draw(few: xr.Dataset, many: xr.Dataset, staircase: xr.Dataset, oscillation: xr.Dataset) -> Figure:
    """Two loops above, staircase and periods below."""
    with style.context():
        figure = Figure(figsize=(8.2, 6.2), layout="constrained")
        grid = figure.subplots(2, 2)
        _loop(grid[0, 0], few)
        _loop(grid[0, 1], many)
        _stairs(grid[1, 0], staircase)
        _periods(grid[1, 1], oscillation)
        style.letter(grid.flat)
    return figure


def _loop(axes: Axes, result: xr.Dataset) -> None:
    control, experts = result.control.values, round(float(result["predicted_jump"].sel(direction="up")))
    branch, p = result["branch"].values, result.p.values
    lowest = int(branch.argmin())
    axes.semilogx(branch[lowest:], p[lowest:], "-", color=style.MIDDLE, lw=1.2, label="collapsed, stable")
    axes.semilogx(branch[: lowest + 1], p[: lowest + 1], ":", color=style.MIDDLE, lw=1.2, label="collapsed, unstable")
    every = max(1, len(control) // 45)
    for direction, marker, colour in (("up", "^", style.DARK), ("down", "v", style.ACCENT)):
        largest = result["largest"].sel(direction=direction).values
        label = f"κ going {direction}"
        axes.plot(control[::every], largest[::every], marker, color=colour, ms=3.2, mfc="white", mew=0.8, label=label)
    marks = {"κ_s": result["predicted_jump"].sel(direction="down"), "κ_c": result["coexistence"], "N": experts}
    for place, (name, value) in enumerate(marks.items()):
        axes.axvline(float(value), color=style.LIGHT, lw=0.9, zorder=0)
        axes.text(
            float(value), 1.02, name, transform=axes.get_xaxis_transform(), va="bottom", fontsize=7,
            ha=("right", "left", "center")[place],
        )  # fmt: skip
    axes.set(xlim=(control[0], control[-1]), xlabel="control κ = βη/λ", ylabel="largest probability")
    ticks = [4, 5, 6, 8] if experts < 16 else [6, 10, 20, 40, 64]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    told = f"{experts} experts\nlargest error of\na transition {jump_error(result):.1%}"
    style.note(axes, 0.82, 0.3, told, ha="right")
    if experts < 16:
        axes.legend(frameon=False, loc="center right", bbox_to_anchor=(0.86, 0.68))


def _stairs(axes: Axes, result: xr.Dataset) -> None:
    alpha, live = result.alpha.values, result["live"].values
    threshold, n = result["threshold"].values, result.n.values
    edges = np.concatenate([[alpha[0]], threshold, [alpha[-1]]])
    axes.stairs(
        np.concatenate([[1], n]), edges, baseline=None, color=style.MIDDLE, lw=1.2, label="most that are stable"
    )
    shift = np.linspace(-0.22, 0.22, live.shape[1])
    places = np.repeat(alpha, live.shape[1])
    axes.plot(places, (live + shift).ravel(), ".", color=style.DARK, ms=3.0, mew=0, label="runs (spread for sight)")
    axes.plot(result["measured_threshold"], n, "o", color=style.ACCENT, ms=4.5, mfc="white", label="measured threshold")
    axes.set(xlabel="coefficient α of the frozen load", ylabel="live experts", yticks=np.concatenate([[1], n]))
    told = f"largest error of\na threshold {stair_error(result):.1%}"
    style.note(axes, 0.03, 0.6, told, va="top")
    axes.legend(frameon=False, loc="upper left")


def _periods(axes: Axes, result: xr.Dataset) -> None:
    rate = result["rate"].values
    axes.plot(rate, result["predicted"], "-", color=style.MIDDLE, lw=1.2, label="2π/√(λuβ/N)")
    axes.plot(rate, result["damped"], "--", color=style.MIDDLE, lw=1.0, label="2π/√(λuβ/N − tr²/4)")
    grows = result["grows"].values > 0
    for chosen, mark, label in ((grows, "o", "measured, growing"), (~grows, "s", "measured, decaying")):
        axes.plot(
            rate[chosen], result["measured"].values[chosen], mark, color=style.DARK, ms=4, mfc="white", label=label
        )
    critical = float((result["rate"] / result.share)[0])
    axes.axvline(critical, color=style.LIGHT, lw=0.9, zorder=0)
    axes.text(critical, 1.02, "u*", transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=7)
    axes.set(xlabel="rate u of the proportional bias", ylabel="period (units of time)")
    told = f"largest error {period_error(result):.1%}"
    style.note(axes, 0.03, 0.06, told)
    axes.legend(frameon=False, loc="upper right")


def caption(few: xr.Dataset, many: xr.Dataset, staircase: xr.Dataset, oscillation: xr.Dataset) -> tuple[str, str]:
    """What is drawn; the largest errors; runs above the staircase."""
    drawn = (
        "Lines: theory; marks: integrated scores dx/dt = η softmax(βx) − λx. (a), (b): raising κ slowly, uniform "
        "routing is kept up to N; lowering it, collapse is kept down to κ_s; above κ_c collapse is the deeper minimum "
        "(D7). (c): live experts that "
        f"{staircase.sizes['run']} random starts near uniform end with under the frozen load, and where n equally live "
        "experts stop being stable among dead ones that are as dead as the plant leaves them (D8). (d): period of a "
        "small disturbance under a proportional loss-free bias; it grows for u < u* (D9)."
    )
    errors = [jump_error(few), jump_error(many), stair_error(staircase), period_error(oscillation)]
    bounds = [JUMP_BOUND, JUMP_BOUND, STAIR_BOUND, PERIOD_BOUND]
    inside = all(error <= bound for error, bound in zip(errors, bounds, strict=True))
    equal = float((staircase["live"] == staircase["largest_live"]).mean())
    at = oscillation.isel(share=int(np.abs(oscillation.share.values - 1).argmin()))
    there = abs(float(at["measured"] / at["predicted"]) - 1)
    seen = (
        f"Transitions differ from theory by at most {max(errors[:2]):.1%}, thresholds by {errors[2]:.1%}, periods by "
        f"{errors[3]:.1%} ({there:.1g} at u*): {'all' if inside else 'not all'} within the stated bounds. "
        f"{above(staircase)} of {staircase['live'].size} runs end with more live experts than are stable, "
        f"{equal:.0%} with exactly as many."
    )
    return drawn, seen
