"""Two panels of figure 13: the phases that theory predicts, and what small trainings start by and end in (D1, D6)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from simulations.theory import PHASES

from .. import style

BOUND = 0.9
"""Least share of trainings that start by what is predicted."""
_REGIONS = ("#ffffff", "#7a8290", "#e9dcb8", "#c9ced6")
_MARKS = (".", "X", "s", "o")


def agreement(result: xr.Dataset, when: str) -> float:
    """Share of the trainings whose phase, `started` or `ended`, is the predicted one."""
    return float((result[when] == result["predicted"]).mean())


def panel(axes: Axes, result: xr.Dataset, load: float) -> None:
    """Regions: predicted; marks: what training starts by; ringed where they differ."""
    one = result.sel(load_ratio=load).transpose("intra", "strength", ...)
    predicted, started = one["predicted"].values, one["started"].values
    last = len(PHASES) - 1
    axes.imshow(predicted, origin="lower", aspect="auto", cmap=ListedColormap(_REGIONS), vmin=-0.5, vmax=last + 0.5)
    for (row, column), place in np.ndenumerate(started):
        axes.plot(column, row, _MARKS[place], color=style.DARK, ms=4.5, mfc="white" if place > 1 else style.DARK)
        if place != predicted[row, column]:
            axes.plot(column, row, "o", color=style.ACCENT, ms=10, mfc="none", mew=1.4)
    axes.set_xticks(range(one.sizes["strength"]), [f"{s:g}" for s in one.strength.values])
    axes.set_yticks(range(one.sizes["intra"]), [f"{a:g}" for a in one.intra.values])
    axes.set(xlabel="strength of the targets' residual", ylabel="λ_intra")
    agree = f"{agreement(result.sel(load_ratio=[load]), 'started'):.0%}"
    axes.set_title(f"full load α N = {load:g} λ_intra: {agree} start as predicted", fontsize=7)
    handles = [
        Line2D([], [], ls="", marker=mark, color=style.DARK, mfc=style.DARK if i < 2 else "white", ms=4.5)
        for i, mark in enumerate(_MARKS)
    ]
    axes.legend(handles, PHASES, fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, frameon=False)


def told(result: xr.Dataset) -> str:
    """Both shares, and the trainings that start otherwise."""
    missed = [
        f"{PHASES[int(one['started'])]} for {PHASES[int(one['predicted'])]} at "
        f"αN = {float(one['load_ratio']):g} λ_intra, λ_intra = {float(one['intra']):g}, "
        f"strength {float(one.strength):g}"
        for load in result["load_ratio"].values
        for intra in result.intra.values
        for strength in result.strength.values
        if (one := result.sel(load_ratio=load, intra=intra, strength=strength))["started"] != one["predicted"]
    ]
    share = agreement(result, "started")
    return (
        f"Of {result['predicted'].size} small layers {share:.0%} start by the predicted phase "
        f"({'within' if share >= BOUND else 'not within'} the bound of {BOUND:.0%}), "
        f"{agreement(result, 'ended'):.0%} end in it after {result.attrs['steps']} steps. Otherwise start: "
        f"{'; '.join(missed) or 'none'}."
    )
