"""Figure 6: left against right side of every inequality of the claims ledger, over the points that a search visited."""

import collections
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from proofs_checks.ledger import Verdict
from proofs_checks.record import Record, slack

from .. import read, style

ALT = "Small panels, one for each inequality: left side against right side; points below the diagonal fulfil it."
COLUMNS = 6
FLOOR = 1e-6
"""Sides smaller than this share of the largest right side are drawn there."""


def records(result: xr.Dataset) -> list[Record]:
    """The claims with their evidence, as stored."""
    return [json.loads(str(text)) for text in result["record"].values]


def inequalities(result: xr.Dataset) -> list[Record]:
    """Claims for which a search measured both sides, tightest first."""
    found = [each for each in records(result) if slack(each) and each["tightness"] is not None]
    return sorted(found, key=lambda each: -each["tightness"])


def draw(result: xr.Dataset) -> Figure:
    """Panels with logarithmic axes and the line of equality."""
    found = inequalities(result)
    with style.context():
        rows = max(1, -(-len(found) // COLUMNS))
        figure = Figure(figsize=(11.5, 0.5 + 1.75 * rows), layout="constrained")
        grid = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes in grid.flat[len(found) :]:
            axes.set_axis_off()
        for axes, each in zip(grid.flat, found, strict=False):
            points = slack(each)
            if points is not None:
                _panel(axes, each, points)
        figure.supxlabel("right side", fontsize=8)
        figure.supylabel("left side", fontsize=8)
    return figure


def _panel(axes: Axes, each: Record, points: Mapping[str, list[float]]) -> None:
    left, right = np.asarray(points["left"]), np.asarray(points["right"])
    top = max(float(right.max()), float(left.max()), np.finfo(np.float64).tiny)
    low = FLOOR * top
    positive = np.concatenate([left[left > low], right[right > low]])
    low = max(low, 0.5 * float(positive.min(initial=top)))
    axes.loglog(np.maximum(right, low), np.maximum(left, low), ".", ms=2.5, color=style.DARK, alpha=0.6, mew=0)
    axes.plot([low, 1.3 * top], [low, 1.3 * top], color=style.MIDDLE, lw=0.8)
    axes.set(xlim=(low, 1.3 * top), ylim=(low, 1.3 * top))
    axes.set_title(f"{each['id']}\nreaches {_said(each['tightness'])}", fontsize=6)
    axes.tick_params(labelsize=5, which="both", pad=1)
    axes.minorticks_off()
    style.bare(axes)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; how many are tight, which is loosest; the ledger's verdicts."""
    found = inequalities(result)
    drawn = (
        "Both sides of every inequality in the claims ledger (in its corrected form where the printed one is false) at "
        "the starts and ends of a directed search that maximises their ratio; on the line they are equal. Titles give "
        "the largest ratio reached. Axes are logarithmic, with sides near 0 drawn at the edge."
    )
    tight = [each for each in found if each["tightness"] > 0.99]
    loose = f" The loosest is {found[-1]['id']}, which reaches {_said(found[-1]['tightness'])}." if found else ""
    seen = f"{len(tight)} of {len(found)} inequalities are reached within 1 %.{loose} {verdicts(result)}"
    return drawn, seen


def verdicts(result: xr.Dataset) -> str:
    """How many claims have which verdict, and which are not as recorded."""
    every = records(result)
    counts: Mapping[Any, int] = collections.Counter(each["verdict"] for each in every)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    different = read.listed([each["id"] for each in every if not each["as_recorded"]])
    return f"The ledger has {len(every)} claims: {told}. Not as recorded: {different}."


def _said(ratio: float) -> str:
    return f"{ratio:.3g}"
