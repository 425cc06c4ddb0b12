"""Figure 5: the same arms on real images: accuracy, balance, and what the experts know of the classes."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations import Regime

from .. import read, style

ALT = (
    "Three dot plots with a row for every arm: test accuracy, hard CV, class–expert information; intervals over seeds."
)

PANELS = {
    "accuracy": "test accuracy",
    "cv": "hard CV of the expert loads",
    "information": "class–expert information\n(share of the largest possible)",
}


def with_accuracy(result: xr.Dataset) -> xr.Dataset:
    """The result with the share of test images classified right."""
    return result.assign(accuracy=1 - result["test_error"])


def draw(result: xr.Dataset) -> Figure:
    """Three panels that share the arms."""
    result = with_accuracy(result)
    names = read.arms_in_order(result)
    with style.context():
        figure = Figure(figsize=(9.0, 1.0 + 0.24 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (name, label) in zip(panels, PANELS.items(), strict=True):
            _panel(axes, result, names, name)
            axes.set_xlabel(label)
        panels[0].set_yticks(range(len(names)), [f"{n}  ({read.regime(result, n)})" for n in names])
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        panels[1].set_xlim(left=-0.02)
        panels[2].set_xlim(-0.02, 1.02)
    return figure


def _panel(axes: Axes, result: xr.Dataset, names: list[str], quantity: str) -> None:
    rows = np.arange(len(names))
    for row, name in zip(rows, names, strict=True):
        kept = result["regime"].sel(arm=name).values != Regime.DIVERGED
        seeds = result[quantity].sel(arm=name).isel(step=-1).values[kept]
        axes.plot(seeds, np.full(len(seeds), row + 0.22), ls="", marker="|", ms=4, mew=0.7, color=style.MIDDLE)
    means = [read.final_interval(result, name, quantity) for name in names]
    axes.errorbar(
        [m.mean for m in means], rows, xerr=[m.half_width for m in means], ls="", marker="o", ms=4.5,
        color=style.DARK, ecolor=style.DARK, elinewidth=1.0, capsize=2,
    )  # fmt: skip
    style.rows(axes)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; the extremes of each panel; collapsed arms."""
    full = with_accuracy(result)
    names = read.arms_in_order(result)
    collapsed = [n for n in names if read.regime_counts(result, n).get(Regime.COLLAPSED)]
    images = read.configuration(result)["data"]["test_images"]
    planted = " The planted control reads the class: no fair rival." if "planted" in names else ""
    drawn = (
        f"Digits, {result.sizes['label']} classes, {images} held-out images, after "
        f" {int(result.step[-1])} steps: means (dots) with 95 % Student intervals over {result.sizes['seed']} "
        f"seeds (ticks below: the seeds). Beside each arm, its most frequent regime.{planted}"
    )
    seen = (
        f"Accuracy {_extremes(full, 'accuracy')}; hard CV {_extremes(full, 'cv')}; class–expert information "
        f"{_extremes(full, 'information')}. Arms with collapsed seeds: {read.listed(collapsed)}. "
        f"{read.diverged_note(result)}"
    )
    return drawn, seen


def _extremes(result: xr.Dataset, quantity: str) -> str:
    return read.extremes({name: read.final_interval(result, name, quantity) for name in read.arms_in_order(result)})
