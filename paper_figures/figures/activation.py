"""Figure 3: how the use of the experts changes over training, in every arm (after Figure 5 of the Hi-MoE paper)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from .. import read, style
from ..read import ArmFacts

IDLE = 0.01
"""An expert selected by a smaller share of the tokens counts as idle."""
ALT = "One heat map an arm: experts (rows) by optimiser steps (columns), bright where many tokens select the expert."


def draw(result: xr.Dataset) -> Figure:
    """A heat map of the hard load for every arm, on one colour scale."""
    names, facts = read.arms_in_order(result), read.facts(result)
    with style.context():
        figure, cells = style.panels(len(names), width=2.05, height=1.75, top=0.4, hspace=0.36, wspace=0.12)
        image = None
        for name, panel in zip(names, cells, strict=True):
            axes = figure.add_subplot(panel.cell)
            seed = read.shown_seed(result, name)
            image = _heat(axes, result.sel(arm=name, seed=seed), facts[name])
            axes.set_title(f"{name} · seed {seed}", fontsize=7.5)
            axes.tick_params(labelbottom=panel.last)
            if panel.first:
                axes.set_ylabel("expert")
            if panel.last:
                axes.set_xlabel("optimiser step")
        style.colour_bar(figure, image, "hard load (share of tokens)")
    return figure


def _heat(axes: Axes, one: xr.Dataset, arm: ArmFacts) -> AxesImage:
    load = one["hard_load"].transpose("expert", "step").values[arm.by_group]
    steps, experts = one.step.values, one.expert.values[arm.by_group]
    half = (steps[-1] - steps[0]) / (len(steps) - 1) / 2
    extent = (steps[0] - half, steps[-1] + half, len(experts) - 0.5, -0.5)
    look = {"cmap": style.COLOURS, "vmin": 0, "vmax": 1, "aspect": "auto", "interpolation": "none"}
    image = axes.imshow(load, extent=extent, **look)
    axes.set_yticks(range(len(experts)), [str(e) for e in experts], fontsize=5.5)
    axes.set_xticks([steps[0], steps[len(steps) // 2], steps[-1]])
    axes.tick_params(axis="y", length=0, pad=1.5)
    if arm.grouped:
        for place in arm.boundaries:
            axes.axhline(place, color="white", lw=1.0)
    return image


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; in which arms experts fall idle, and the largest load at the end."""
    final = result["hard_load"].isel(step=-1)
    idle = (final < IDLE).sum("expert").mean("seed")
    names = read.arms_in_order(result)
    some = [f"{name} ({float(idle.sel(arm=name)):.1f})" for name in names if float(idle.sel(arm=name)) > 0]
    # Where a token selects every expert, all loads are 1 and say nothing.
    chosen = [name for name in names if float(final.sel(arm=name).min()) < 1] or names
    largest = final.max("expert").mean("seed")
    uneven = max(chosen, key=lambda name: float(np.nan_to_num(largest.sel(arm=name), nan=-1.0)))
    drawn = (
        "The hard load of every expert over training, on a colour scale common to all arms. The seeds are those of "
        "figure 1; lines separate the groups of grouped selection."
    )
    seen = (
        f"Of {result.sizes['expert']} experts, mean number over {result.sizes['seed']} seeds that end up idle "
        f"(selected by less than {IDLE:.0%} of the tokens): {read.listed(some)}{'; 0 in all others' if some else ''}. "
        f"Largest load at the end, mean over seeds: {float(largest.sel(arm=uneven)):.2f}, in {uneven}"
        f"{' (dense layers aside)' if len(chosen) < len(names) else ''}."
    )
    return drawn, seen
