"""Figure 17: the load coefficient in a language model: balance, quality, and where the theory puts the boundary."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations import Interval, interval

from .. import read, style
from . import language_boundary as boundary

ALT = (
    "Four panels: CV of the loads and effective groups against the load coefficient, with predicted boundaries as "
    "vertical lines and the observed one as a band; the predicted boundaries over training; validation loss against "
    "CV; with and without the regularisers, intervals over seeds."
)
_LOOKS = {
    "moge": {"marker": "o", "mfc": "white", "color": style.MIDDLE},
    "hi-moe": {"marker": "s", "mfc": style.DARK, "color": style.DARK},
}
_LINEAR = 1e-3
"""Below it the axis of loads is linear, and has room for 0."""
_LABELS = {"cv": "CV of the expert loads", "effective_groups": "effective groups"}
_LINES = dict(zip(boundary.RULES, ("--", ":", "-", "-."), strict=True))
MAIN = boundary.RULES[2]
"""The rule that training's own form of the load calls for: counts are hard."""


def table(result: xr.Dataset, others: xr.Dataset) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row a rule."""
    return boundary.table(result)


def at_end(result: xr.Dataset, arm: str, alpha: float, quantity: str) -> Interval:
    """Mean and 95 % interval over seeds of the mean over layers at the end."""
    values = result[quantity].sel(arm=f"{arm} α={alpha:g}").isel(record=-1)
    return interval((values.mean("layer") if "layer" in values.dims else values).values)


def _by_arm(result: xr.Dataset, others: xr.Dataset) -> dict[str, xr.Dataset]:
    """The runs of an arm; without regularisers there is no boundary, and a coarser study does."""
    return {"moge": others, boundary.REGULARISED: result}


def draw(result: xr.Dataset, others: xr.Dataset) -> Figure:
    """CV and effective groups over α; boundaries over training; loss over CV."""
    with style.context():
        figure = Figure(figsize=(8.6, 6.2), layout="constrained")
        cv, groups, course, trade = figure.subplots(2, 2).flat
        for axes, (quantity, label) in zip((cv, groups), _LABELS.items(), strict=True):
            for arm, own in _by_arm(result, others).items():
                _over_alpha(axes, own, arm, quantity)
            _edges(axes, result)
            axes.set(xlabel="load coefficient α", ylabel=label)
            axes.set_ylim(bottom=0)
        figure.legend(*cv.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        _course(course, result)
        for arm, own in _by_arm(result, others).items():
            found = boundary.alphas(own, arm)
            points = [(at_end(own, arm, a, "cv"), at_end(own, arm, a, "validation_loss")) for a in found]
            trade.errorbar(
                [x.mean for x, _ in points], [y.mean for _, y in points],
                yerr=[np.nan_to_num(y.half_width) for _, y in points],
                lw=0.6, ms=4.5, elinewidth=0.6, label=arm, **_LOOKS[arm],
            )  # fmt: skip
        trade.set(xlabel="CV of the expert loads", ylabel="validation loss (nats/byte)")
        trade.legend(frameon=False, loc="lower right")
        style.letter((cv, groups, course, trade))
    return figure


def _edges(axes: Axes, result: xr.Dataset) -> None:
    """Predicted places as lines, the observed one with its seeds as a band; α = 0 stands left of a linear part."""
    seen = boundary.observed_edges(result)
    if np.isfinite(seen).all():
        axes.axvspan(seen.min(), seen.max(), color=style.LIGHT, lw=0, alpha=0.6, zorder=0, label="observed, all seeds")
    for rule, places in boundary.predicted_edges(result).items():
        if np.isfinite(places).all():
            axes.axvline(places.mean(), color=style.ACCENT, lw=1, ls=_LINES[rule], zorder=0, label=rule)
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=0.5)
    shown = [0, *(10.0**power for power in range(-3, 0))]
    axes.set_xticks(shown, [f"{a:g}" for a in shown])
    axes.set_xlim(left=-_LINEAR / 5)


def _over_alpha(axes: Axes, result: xr.Dataset, arm: str, quantity: str) -> None:
    grid = boundary.alphas(result, arm)
    found = [at_end(result, arm, alpha, quantity) for alpha in grid]
    axes.errorbar(
        grid, [one.mean for one in found], yerr=[np.nan_to_num(one.half_width) for one in found], lw=0.8, ms=4.5,
        elinewidth=0.6, label=arm, **_LOOKS[arm],
    )  # fmt: skip


def shown_runs(result: xr.Dataset) -> tuple[float, float]:
    """The loads whose runs show the boundary over training: none, and the one nearest above where collapse ends."""
    grid = np.asarray(boundary.alphas(result, boundary.REGULARISED))
    seen = boundary.observed_edges(result).mean()
    above = grid[grid > seen] if np.isfinite(seen) else grid[1:]
    return float(grid[0]), float(above[0])


def _course(axes: Axes, result: xr.Dataset) -> None:
    """Boundaries from the gates of the runs at two loads; 0 where collapse is predicted at none."""
    every = boundary.predicted(result)
    for alpha, colour in zip(shown_runs(result), (style.MIDDLE, style.DARK), strict=True):
        for rule in boundary.RULES[1:]:
            course = every[rule].sel(alpha=alpha).mean(("seed", "layer"))
            axes.plot(
                result.record, course.clip(min=0), ls=_LINES[rule], color=colour, lw=1.1, marker=".", ms=4,
                label=f"run at α = {alpha:g}" if rule == MAIN else None,
            )  # fmt: skip
    axes.axhline(float(every[boundary.RULES[0]].mean()), color=style.ACCENT, lw=1, ls=_LINES[boundary.RULES[0]])
    axes.set(xlabel="optimiser step", ylabel="α below which collapse is predicted")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def caption(result: xr.Dataset, others: xr.Dataset) -> tuple[str, str]:
    """What is drawn; predicted against observed, with errors; the ends."""
    drawn = (
        "Balance and quality of language models over the load coefficient, with Hi-MoE's regularisers and without; "
        f"means over layers, 95 % Student intervals over {result.sizes['seed']} seeds ({others.sizes['seed']} "
        "without). Band: α from which a layer's CV stays below half of the largest possible, over seeds. Lines: the "
        "same from theory, where α passes the boundary that a run's own gates have at its end: the common mode stops "
        "to grow at uniform routing, 2λ/(KN) (frozen counts), or at the spread of the logits (hard counts, as trained; "
        "D1, D10); race: it stops to outgrow the strongest contrast between tokens, 1 − κ_c/κ_0 of that. (c): these "
        "boundaries over training. All are for the regularisers alone: the task's own gradient is not in them."
    )
    return drawn, f"{_judged(result)} {_moving(result)} {_without(others)} {_ends(result, others)}"


def _judged(result: xr.Dataset) -> str:
    errors, right, edges = boundary.errors(result), boundary.hits(result), boundary.predicted_edges(result)
    seen, count = interval(boundary.observed_edges(result)), boundary.collapsed(result).size
    error = errors[MAIN]
    known = not np.isnan(error.mean)
    agrees = known and not read.excludes_zero(error)
    verdict = "the interval holds 1" if agrees else "the interval excludes 1" if known else "one has no edge"
    others = "; ".join(
        f"{rule} {boundary.factor(one)}, {right[rule]:.0%}" for rule, one in errors.items() if rule != MAIN
    )
    return (
        f"Collapse ends at α = {read.told(seen, 4)}; {MAIN} predict {read.told(interval(edges[MAIN]), 4)}: predicted "
        f"over observed {boundary.factor(error)} ({verdict}); {right[MAIN]:.0%} of {count} layers of runs end on the "
        f"predicted side. The other rules: {others}."
    )


def _moving(result: xr.Dataset) -> str:
    runs = boundary.regularised(result).isel(alpha=0).mean(("seed", "layer"))
    race = boundary.predicted(result)[boundary.RULES[1]].isel(alpha=0).mean(("seed", "layer"))
    common, contrast = runs["common_power"], runs["contrast_power"]
    most = int(race.values.argmax())
    first = f"{float(race[0]):.2g}" if race[0] > 0 else "none"
    return (
        f"The boundary moves: without load κ_0 goes from {float(common[0]):.1f} to {float(common[-1]):.1f} and κ_c "
        f"from {float(contrast[0]):.1f} to {float(contrast[-1]):.1f}, and with them the race from {first} before "
        f"training to {max(float(race[-1]), 0):.2g} at the end, largest {float(race[most]):.2g} at step "
        f"{int(race.record[most])}."
    )


def _without(result: xr.Dataset) -> str:
    grid = boundary.alphas(result, "moge")
    largest = max(at_end(result, "moge", alpha, "cv").mean for alpha in grid)
    return f"Without regularisers no boundary is predicted, and the largest CV is {largest:.2f}."


def _ends(result: xr.Dataset, others: xr.Dataset) -> str:
    said = []
    for arm, own in _by_arm(result, others).items():
        grid = boundary.alphas(own, arm)
        for alpha in (grid[0], grid[-1]):
            cv, groups, loss = (at_end(own, arm, alpha, q) for q in (*_LABELS, "validation_loss"))
            said.append(f"{arm} at α = {alpha:g}: CV {cv}, effective groups {groups}, loss {loss}")
    return "; ".join(said) + "."
