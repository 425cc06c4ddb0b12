"""Figure 7: Chen et al.'s mixtures of linear and of cubic experts on four settings, beside the printed numbers."""

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from himoe_theory import SOURCES
from simulations import Interval, interval

from .. import read, style
from ..printed import CHEN, CHEN_SOURCE

ALT = (
    "Four panels: test accuracy (top) and dispatch entropy (bottom) of linear (left) and cubic (right) experts by "
    "setting; printed numbers beside the paper's form, the released form and a single expert."
)
LABELS = {"accuracy": "test accuracy", "entropy": "dispatch entropy H (nats)"}
NAMES = {"paper": "paper's form", "released": "released form", "single": "single expert"}
_MARKS = {
    "paper": {"marker": "o", "mfc": style.DARK, "mec": style.DARK},
    "released": {"marker": "o", "mfc": "white", "mec": style.DARK},
    "single": {"marker": "x", "mfc": style.MIDDLE, "mec": style.MIDDLE},
}
_PRINTED = {"marker": "s", "mfc": style.LIGHT, "mec": style.MIDDLE}
_WIDTH = 0.19


def settings(result: xr.Dataset) -> list[str]:
    """Names of the settings."""
    return [str(name) for name in result.setting.values]


def measured(result: xr.Dataset, quantity: str, model: str, activation: str, setting: str) -> Interval:
    """Mean and 95 % interval over seeds."""
    return interval(result[quantity].sel(model=model, activation=activation, setting=setting).values)


def draw(result: xr.Dataset) -> Figure:
    """Accuracy above entropy; linear experts beside cubic ones."""
    kinds = [str(kind) for kind in result.activation.values]
    with style.context():
        figure = Figure(figsize=(3.9 * len(kinds), 5.6), layout="constrained")
        grid = figure.subplots(2, len(kinds), sharex=True, sharey="row", squeeze=False)
        for row, quantity in zip(grid, LABELS, strict=True):
            for axes, kind in zip(row, kinds, strict=True):
                _panel(axes, result, quantity, kind)
            row[0].set_ylabel(LABELS[quantity])
        for axes, kind in zip(grid[0], kinds, strict=True):
            axes.set_title(f"{kind} experts", fontsize=8.5)
        for axes in grid[1]:
            axes.set_xlabel("setting")
        _legend(figure, result)
    return figure


def _panel(axes: Axes, result: xr.Dataset, quantity: str, kind: str) -> None:
    models = [str(m) for m in result.model.values if not (m == "single" and quantity == "entropy")]
    for place, setting in enumerate(settings(result)):
        known = CHEN[quantity][kind, setting]
        axes.errorbar(
            place - 1.5 * _WIDTH, known.mean, known.spread, **_PRINTED, ecolor=style.MIDDLE, ms=5, capsize=2, ls=""
        )
        for number, model in enumerate(models):
            x = place + (number - 0.5) * _WIDTH
            found = measured(result, quantity, model, kind, setting)
            seeds = result[quantity].sel(model=model, activation=kind, setting=setting).values
            axes.plot(np.full(len(seeds), x + 0.07), seeds, ".", ms=2.5, color=style.MIDDLE, alpha=0.8, mew=0)
            axes.errorbar(
                x, found.mean, np.nan_to_num(found.half_width), **_MARKS[model], ecolor=style.DARK, ms=5, capsize=2,
                ls="", label=f"{model} {setting}",
            )  # fmt: skip
        if quantity == "accuracy" and setting in ("3", "4"):
            axes.hlines(7 / 8, place - 0.5, place + 0.5, color=style.DARK, ls=":", lw=1)
    axes.set_xticks(range(len(settings(result))), settings(result))
    axes.set_xlim(-0.5, len(settings(result)) - 0.5)
    if quantity == "entropy":
        axes.axhline(math.log(4), color=style.DARK, ls="--", lw=0.8)
        axes.set_ylim(-0.06, 1.05 * math.log(4))
    else:
        axes.set_ylim(min(0.98 * float(result["accuracy"].min()), 0.86), 1.01)
    for edge in range(1, len(settings(result))):
        axes.axvline(edge - 0.5, color=style.LIGHT, lw=0.4)
    axes.grid(axis="y", color=style.LIGHT, lw=0.4)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)
    style.bare(axes)


def _legend(figure: Figure, result: xr.Dataset) -> None:
    handles = [Line2D([], [], ls="", **_PRINTED, label="printed (± standard deviation)")]
    handles += [Line2D([], [], ls="", **_MARKS[str(m)], label=NAMES[str(m)]) for m in result.model.values]
    handles += [
        Line2D([], [], color=style.DARK, ls=":", lw=1, label="1 − 1/8"),
        Line2D([], [], color=style.DARK, ls="--", lw=0.8, label="ln 4"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)


def table(result: xr.Dataset) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heading and rows: every setting and activation, ours beside what is printed."""
    mixtures = [str(model) for model in result.model.values if model != "single"]
    heading = ["setting", "experts"]
    for text in LABELS.values():
        heading += [f"{text}, printed", *(f"{text}, {NAMES[model]}" for model in mixtures)]
    single = "single" in result.model.values
    heading += ["test accuracy, single expert"] * single
    rows = []
    for setting in settings(result):
        for kind in map(str, result.activation.values):
            row = [setting, kind]
            for quantity in LABELS:
                row += [str(CHEN[quantity][kind, setting])]
                row += [str(measured(result, quantity, model, kind, setting)) for model in mixtures]
            row += [str(measured(result, "accuracy", model, kind, setting)) for model in ["single"] * single]
            rows.append(tuple(row))
    return tuple(heading), rows


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; where ours and the printed numbers agree, and how often the two regimes are there."""
    chosen = read.configuration(result)
    drawn = (
        f"Patch data of {SOURCES[CHEN_SOURCE].title} ({SOURCES[CHEN_SOURCE].identifier}), {chosen['experts']} experts "
        f"of {chosen['filters']} filters an output, {chosen['samples']} samples, {chosen['steps']} full-batch steps: "
        f"means with 95 % Student intervals over {result.sizes['seed']} seeds (small dots: the seeds). Squares: the "
        "printed numbers, ± the standard deviation of their runs. Paper's form: softmax gate, cross-entropy, no noise "
        "at test. Released form: the noisy logit as gate, softmax before the cross-entropy, biases, noise at test, and "
        "early stopping. No sum over patches can do better than 7/8 where α and γ have one law, in settings 3 and 4."
    )
    pieces = [_agreement(result, model) for model in ("paper", "released") if model in result.model.values]
    if "single" in result.model.values:
        best = float(result["accuracy"].sel(model="single", setting=[s for s in settings(result) if s in "34"]).max())
        pieces.append(f"The best single expert in settings 3 and 4 is right on {best:.3f}; the bound is 0.875.")
    return drawn, " ".join(pieces)


def _agreement(result: xr.Dataset, model: str) -> str:
    """How often the printed mean is inside our interval, and in how many runs H tells the activations apart."""
    said = []
    for quantity, text in LABELS.items():
        cells = [(kind, setting) for kind in map(str, result.activation.values) for setting in settings(result)]
        found = {cell: measured(result, quantity, model, *cell) for cell in cells}
        inside = sum(
            abs(found[cell].mean - CHEN[quantity][cell].mean) <= np.nan_to_num(found[cell].half_width) for cell in cells
        )
        said.append(f"{text} {inside} of {len(cells)}")
    entropy = result["entropy"].sel(model=model)
    regimes = []
    for kind, test, words in (("linear", entropy > 1, "H > 1"), ("cubic", entropy < 0.7, "H < 0.7")):
        if kind in result.activation.values:
            runs = test.sel(activation=kind)
            regimes.append(f"{words} in {int(runs.sum())} of {runs.size} runs of {kind} experts")
    return (
        f"{NAMES[model].capitalize()}: the printed mean is inside our interval for {read.listed(said)}; "
        f"{read.listed(regimes)}."
    )
