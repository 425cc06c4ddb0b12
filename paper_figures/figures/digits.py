"""Figure 5: the same arms on real images: accuracy, what training the gate gained, balance, and what experts know of
the classes; each beside the untrained gate."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from simulations import Balance, Regime, Thresholds
from simulations.null import null

from .. import read, style

ALT = (
    "Four dot plots with a row for every arm: test accuracy, gain, hard CV, class–expert information; intervals over "
    "seeds; open dots: the same layer with an untrained gate."
)

PANELS = {
    "accuracy": "test accuracy",
    "gain": "G: gain of training the gate\n(0 untrained, 1 planted)",
    "cv": "hard CV of the expert loads",
    "information": "class–expert information\n(share of the largest possible)",
}


def with_accuracy(result: xr.Dataset) -> xr.Dataset:
    """The result with the share of test images classified right, its own and with an untrained gate."""
    return result.assign(accuracy=1 - result["test_error"], untrained_accuracy=1 - result["frozen_error"])


def draw(result: xr.Dataset) -> Figure:
    """Four panels that share the arms."""
    result = with_accuracy(result)
    names = read.arms_in_order(result)
    with style.context():
        figure = Figure(figsize=(10.5, 1.1 + 0.28 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (name, label) in zip(panels, PANELS.items(), strict=True):
            _panel(axes, result, names, name)
            axes.set_xlabel(label)
        labels = [f"{n}  ({read.regime(result, n)}, {read.regime(result, n, 'balance')})" for n in names]
        panels[0].set_yticks(range(len(names)), labels)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        _thresholds(panels[1])
        panels[2].set_xlim(left=-0.02)
        panels[3].set_xlim(-0.02, 1.02)
        untrained = Line2D([], [], ls="", marker="o", ms=4.5, mfc="white", mec=style.MIDDLE, label="untrained gate")
        figure.legend(handles=[untrained], loc="outside upper right", frameon=False)
    return figure


def _panel(axes: Axes, result: xr.Dataset, names: list[str], quantity: str) -> None:
    rows = np.arange(len(names))
    for row, name in zip(rows, names, strict=True):
        kept = result["regime"].sel(arm=name).values != Regime.DIVERGED
        of_arm = result[quantity].sel(arm=name)
        seeds = (of_arm.isel(step=-1) if "step" in of_arm.dims else of_arm).values[kept]
        axes.plot(seeds, np.full(len(seeds), row + 0.22), ls="", marker="|", ms=4, mew=0.7, color=style.MIDDLE)
    axes.plot(_untrained(result, names, quantity), rows, ls="", marker="o", ms=4.5, mfc="white", mec=style.MIDDLE)
    means = [read.final_interval(result, name, quantity) for name in names]
    axes.errorbar(
        [m.mean for m in means], rows, xerr=[m.half_width for m in means], ls="", marker="o", ms=4.5,
        color=style.DARK, ecolor=style.DARK, elinewidth=1.0, capsize=2,
    )  # fmt: skip
    style.rows(axes)


def _untrained(result: xr.Dataset, names: list[str], quantity: str) -> list[float]:
    """Means over seeds with the gate as it was drawn: of experts trained below it, or before any training."""
    if quantity == "gain":
        return [0.0] * len(names)
    values = result["untrained_accuracy"] if quantity == "accuracy" else result[quantity].isel(step=0)
    return [float(values.sel(arm=name).mean()) for name in names]


def _thresholds(axes: Axes) -> None:
    """Where regimes begin, and up to where untrained gates reach."""
    at, found = Thresholds(), null()
    for place in (at.partial, at.specialised):
        axes.axvline(place, color=style.MIDDLE, lw=0.7, ls=":", zorder=0)
    if found is not None:
        axes.axvspan(0, found.quantile, color=style.LIGHT, alpha=0.45, lw=0, zorder=0)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; the extremes of each panel; collapsed arms."""
    full = with_accuracy(result)
    names = read.arms_in_order(result)
    collapsed = [n for n in names if read.counts(result, n, "balance").get(Balance.COLLAPSED)]
    images = read.configuration(result)["data"]["test_images"]
    planted = " The planted control reads the class: no fair rival." if "planted" in names else ""
    drawn = (
        f"Digits, {result.sizes['label']} classes, {images} held-out images, after "
        f" {int(result.step[-1])} steps: means (dots) with 95 % Student intervals over {result.sizes['seed']} "
        f"seeds (ticks below: the seeds). Beside each arm, its most frequent regime and balance. Open dots: accuracy "
        "of experts trained below an untrained gate, and CV and information of the gate before training. Dotted: where "
        f"regimes begin; shaded: 99 % of untrained gates.{planted} {read.untrained_note()}"
    )
    seen = (
        f"Accuracy {_extremes(full, 'accuracy')}; G {_extremes(full, 'gain')}; hard CV {_extremes(full, 'cv')}; "
        "class–expert information "
        f"{_extremes(full, 'information')}. Arms with collapsed seeds: {read.listed(collapsed)}. "
        f"{read.diverged_note(result)}"
    )
    return drawn, seen


def _extremes(result: xr.Dataset, quantity: str) -> str:
    return read.extremes({name: read.final_interval(result, name, quantity) for name in read.arms_in_order(result)})
