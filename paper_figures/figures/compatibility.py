"""Angles between the gradients of objectives: over the concentration of routing, and along a training run (D3, D4)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from himoe_theory.objectives import OBJECTIVES
from simulations.theory import DUPLICATES

from .. import read, style

BOUND = 1e-9
"""Largest difference of a cosine from one that theory gives, in float64."""
LABELS = {name: objective.label for name, objective in OBJECTIVES.items()} | {"task": "task"}
PAIRS = (
    ("intra_group_global", "inter_group_dense", "-", style.DARK),
    ("task", "intra_group_global", "--", style.DARK),
    ("task", "load_per_token", ":", style.DARK),
    ("load_per_token", "intra_group_global", "-.", style.MIDDLE),
    ("task", "variance_across_tokens", "--", style.ACCENT),
)
ALT = (
    "Heat maps of cosines between the gradients of sixteen objectives at three concentrations, Euclidean above and "
    "Fisher below the diagonal; and cosines of five pairs along a training run."
)


def exact_error(cosines: xr.Dataset) -> float:
    """Largest difference of a cosine from one that theory gives."""
    return float(np.abs(cosines["exact_measured"] - cosines["exact"]).max())


def draw(cosines: xr.Dataset, training: xr.Dataset) -> Figure:
    """Three maps, and the pairs along training below."""
    every = cosines.concentration.values
    shown = every[[0, len(every) // 2, -1]]
    with style.context():
        figure = Figure(figsize=(13.0, 9.6), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=(1.45, 1))
        maps = list(upper.subplots(1, 3))
        image = None
        for axes, concentration in zip(maps, shown, strict=True):
            image = _map(axes, cosines["cosine"].sel(concentration=concentration), axes is maps[0])
            axes.set_title(
                f"logits of standard deviation {concentration:g}\nabove: Euclidean, below: Fisher", fontsize=7
            )
        if image is not None:
            upper.colorbar(image, ax=maps, aspect=25, pad=0.01, shrink=0.7).set_label("cosine of two gradients")
        below = list(lower.subplots(1, 2, width_ratios=(1, 1.5)))
        _over_concentration(below[0], cosines)
        _along(below[1], training)
        for axes in below:
            style.bare(axes)
    return figure


def _map(axes: Axes, cosine: xr.DataArray, first: bool) -> AxesImage:
    names = [LABELS[str(name)] for name in cosine.a.values]
    above = np.triu(np.ones((len(names), len(names)), bool), 1)
    values = np.where(above, cosine.sel(metric="Euclidean").values, cosine.sel(metric="Fisher").values)
    np.fill_diagonal(values, np.nan)
    image = axes.imshow(values, cmap=style.COLOURS, vmin=-1, vmax=1, interpolation="none")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{100 * value:.0f}".replace("-0", "0").replace("-", "−")
            colour = "black" if value > 0 else "white"
            axes.text(column, row, text, ha="center", va="center", fontsize=4.2, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.set_yticks(range(len(names)), names if first else [""] * len(names), fontsize=6)
    axes.tick_params(length=0)
    return image


def _over_concentration(axes: Axes, cosines: xr.Dataset) -> None:
    shown = (("intra_group_global", "-"), ("intra_group_conditional", "--"), ("load", ":"))
    for metric, colour in (("Euclidean", style.DARK), ("Fisher", style.ACCENT)):
        for name, line in shown:
            one = cosines["cosine"].sel(metric=metric, a="inter_group_dense", b=name)
            axes.semilogx(cosines.concentration, one, line, color=colour, lw=1.2, label=f"{LABELS[name]}, {metric}")
    axes.axhline(0, color=style.LIGHT, lw=0.8, zorder=0)
    axes.set(xlabel="standard deviation of the logits", ylabel="cosine with R_inter dense", ylim=(-1.05, 1.05))
    axes.legend(frameon=False, fontsize=6, ncols=2, loc="upper left")
    style.note(axes, 0.03, 0.72, f"largest error of an exact relation {exact_error(cosines):.0e}")


def _along(axes: Axes, training: xr.Dataset) -> None:
    for a, b, line, colour in PAIRS:
        one = training["cosine"].sel(a=a, b=b)
        axes.plot(training.step, one.mean("seed"), line, color=colour, lw=1.3, label=f"{LABELS[a]}, {LABELS[b]}")
    experts = training["experts_cosine"].mean("seed")
    axes.plot(training.step, experts, "-", color=style.ACCENT, lw=1.3, label="task, L_o (in the experts)")
    axes.axhline(0, color=style.LIGHT, lw=0.8, zorder=0)
    axes.set(xlabel="optimiser step", ylabel="cosine of gradients,\nmean over seeds", ylim=(-1.05, 1.05))
    axes.legend(frameon=False, fontsize=6.5, loc="center left", bbox_to_anchor=(1.0, 0.5))


def caption(cosines: xr.Dataset, training: xr.Dataset) -> tuple[str, str]:
    """What is drawn; the exact relations; which objectives oppose each other."""
    arm = read.configuration(training)["arm"] if "configuration" in training.attrs else "hi-moe"
    drawn = (
        "Above: cosines (× 100) of the batch gradients in the logits of every pair of objectives, eight experts in "
        "four groups, one selected in each (left out: "
        f"{', '.join(f'{a} as {b}' for a, b in DUPLICATES.items())}, whose gradients are multiples of each "
        "other); above the diagonal Euclidean, below it Fisher (the z-loss has none). Below "
        "left: cosines with R_inter over the concentration of routing. Below right: cosines in the gate's weights "
        f"while {arm} trains on clusters with a common mean; L_o reaches the experts alone and is compared with the "
        f"task there; recorded {_every(int(training.step[1]))}."
    )
    pair = {"a": "intra_group_global", "b": "inter_group_dense"}
    over = cosines["cosine"].sel(**pair, metric="Euclidean")
    along = training["cosine"].sel(**pair).mean("seed").values
    task = training["cosine"].sel(a="task", b="intra_group_global").mean(("seed", "step"))
    seen = (
        f"What theory gives exactly holds to {exact_error(cosines):.0e}: functions of the group masses and of the "
        "conditionals are orthogonal in the Fisher metric, and the released L_v is R_intra. R_intra and R_inter, which "
        f"Hi-MoE adds up, point against each other: cosine {float(over[0]):.2f} to {float(over[-1]):.2f} over "
        f"concentration (largest {float(over.max()):.2f}), {along[0]:.2f} before and {along[-1]:.2f} after training. "
        f"Task and R_intra: {float(task):.2f} in the mean over training."
    )
    return drawn, seen


def _every(steps: int) -> str:
    return "at every step" if steps == 1 else f"every {steps} steps"
