"""A view of a sweep as a picture. Colours rise in brightness, so that it reads in grey; no pyplot, no global state."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..null import rules
from ..picture import COLOURS, store_picture
from .show import View, is_number, labels, number

_LETTER = 0.085  # inches, of a tick label's letter
_MARKERS = "osD^vX"  # one a name, for readers who see no colour
_MOST_WRITTEN = 12  # levels along an axis up to which cells have room for text
_MOST_LETTERED = 40  # up to which they have room for a letter
_DECADES = 2  # numbers that spread over more of them, evenly in their logarithms, get a logarithmic axis


def plot(view: View, path: Path) -> Any:
    """Points with intervals along one field; of two, a map of cells if they are crossed, coloured points if not.

    **Returns:** the figure, which is also stored at `path`; an earlier picture there is replaced, nothing else.
    **Raises:** `ValueError` if something else is there, or the folder cannot be written.
    """
    from matplotlib.figure import Figure

    size = _size(view)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    if view.matrix:
        _map(figure, axes, view, size)
    elif len(view.fields) == 2:
        _scatter(figure, axes, view, size)
    else:
        _line(axes, view, size)
    lost, title = int(view.diverged.sum()), view.title
    if len(view.fields) == 1 and np.isfinite(view.half_width).any():
        title += "; bars: 95 % interval over seeds"
    if view.kind:
        lines = [textwrap.fill(line, int(size[0] * 15)) for line in rules(view.kind)]
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize="x-small")
    elif lost:
        title += f"; {lost} of {view.runs.sum()} runs diverged"
    axes.set_title(textwrap.fill(title, int(size[0] * 13)), fontsize="small", loc="left")
    axes.set_xlabel(view.fields[0])
    store_picture(figure, path)
    return figure


def _size(view: View) -> tuple[float, float]:
    """In inches: larger for larger maps."""
    if not view.matrix:
        return 6.0, 4.0
    x, y = map(len, view.values)
    return min(max(5.5, 2.2 + 0.45 * x), 12.0), min(max(3.8, 1.6 + 0.3 * y), 9.0)


def _map(figure: Any, axes: Any, view: View, size: tuple[float, float]) -> None:
    """Cells side by side in the order of the levels; empty where no run is stored, crossed where all diverged."""
    paint = _painting(view)
    image = axes.imshow(
        np.ma.masked_invalid(view.mean.T), origin="lower", aspect="auto", cmap=paint["cmap"], norm=paint["norm"]
    )
    axes.set_facecolor("white")
    _ticks(axes.xaxis, view.values[0], size[0] - 2.0)
    _ticks(axes.yaxis, view.values[1], size[1] - 1.0, along=False)
    axes.set_ylabel(view.fields[1])
    marks = {place: _mark(view, place) for place in np.ndindex(view.mean.shape)}
    for place in filter(marks.get, marks):
        dark = not math.isnan(view.mean[place]) and sum(image.cmap(image.norm(view.mean[place]))[:3]) < 1.5
        style = {"ha": "center", "va": "center", "fontsize": 7, "color": "white" if dark else "black"}
        # Not in the layout, which many texts make slow.
        axes.text(*place, marks[place], in_layout=False, **style)
    _colour_bar(figure, axes, image, view)


def _mark(view: View, place: tuple[int, ...]) -> str:
    """What is written in a cell of a map; the less, the more cells there are."""
    levels, mean = max(map(len, view.values)), view.mean[place]
    if levels > _MOST_LETTERED or not view.runs[place]:
        return ""
    if view.kind:
        share = f"\n{view.agreeing[place]}/{view.runs[place]}" * bool(view.agreeing[place] < view.runs[place])
        return view.kind(int(mean)).name[0] + share * (levels <= _MOST_WRITTEN)
    if view.diverged[place] == view.runs[place]:
        return "×"
    return number(mean, 2) if levels <= _MOST_WRITTEN else ""


def _scatter(figure: Any, axes: Any, view: View, size: tuple[float, float]) -> None:
    """A point a setting; crossed where all its runs diverged."""
    across, up = (
        _positions(axis, values, room, along)
        for axis, values, room, along in (
            (axes.xaxis, view.values[0], size[0] - 2.0, True),
            (axes.yaxis, view.values[1], size[1] - 1.0, False),
        )
    )
    drawn = np.isfinite(view.mean)
    style = {"edgecolors": "black", "linewidths": 0.4, "s": 28, **_painting(view)}
    if view.kind:
        for name in view.names:
            here = view.mean == name
            style |= {"marker": _MARKERS[name], "label": name.label}
            axes.scatter(across[here], up[here], c=view.mean[here], **style)
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), title=view.measurement)
    else:
        image = axes.scatter(across[drawn], up[drawn], c=view.mean[drawn], **style)
        _colour_bar(figure, axes, image, view)
        lost = (view.runs > 0) & ~drawn
        if lost.any():
            axes.scatter(
                across[lost], up[lost], marker="x", color="black", s=28, linewidths=1, label="all runs diverged"
            )
            axes.legend(fontsize="small")
    axes.set_ylabel(view.fields[1])


def _line(axes: Any, view: View, size: tuple[float, float]) -> None:
    """Numbers at their places, other values side by side; joined if they are the levels of a grid."""
    levels, kind = view.values[0], view.kind
    at = _positions(axes.xaxis, levels, size[0] - 1.0, True)
    joined = is_number(levels[0]) and not view.scattered and not kind
    axes.errorbar(
        at,
        view.mean,
        np.nan_to_num(view.half_width),
        fmt="o-" if joined else "o",
        color="black",
        ecolor="0.55",
        markersize=4,
        linewidth=1,
        capsize=2 if len(levels) <= 40 else 0,
    )
    axes.set_ylabel(view.measurement)
    if kind:
        axes.set_yticks(range(len(kind)), [name.label for name in kind])
        axes.set_ylim(-0.5, len(kind) - 0.5)
        if len(levels) <= 2 * _MOST_WRITTEN:
            shares = [f"{n}/{m}" if m else "" for n, m in zip(view.agreeing, view.runs, strict=True)]
            turned = 90 if sum(map(len, shares)) > 6 * _MOST_WRITTEN * 0.75 else 0
            style = {"textcoords": "offset points", "ha": "center", "fontsize": 7, "rotation": turned}
            for share, where in zip(shares, zip(at, np.nan_to_num(view.mean), strict=True), strict=True):
                axes.annotate(share, where, (0, 6), **style)
    else:
        _scale(axes.yaxis, view.mean[np.isfinite(view.mean)])


def _painting(view: View) -> dict[str, Any]:
    """Colour map and scale: one step of brightness a name; numbers as `_logarithmic` finds."""
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, LogNorm, Normalize

    if view.kind:
        count = len(view.kind)
        return {"cmap": colormaps[COLOURS].resampled(count), "norm": BoundaryNorm(np.arange(count + 1) - 0.5, count)}
    found = view.mean[np.isfinite(view.mean)]
    low, high = (found.min(), found.max()) if found.size else (0.0, 1.0)
    scale = LogNorm if found.size and low > 0 and _logarithmic(found) else Normalize
    return {"cmap": colormaps[COLOURS], "norm": scale(low, high)}


def _colour_bar(figure: Any, axes: Any, image: Any, view: View) -> None:
    bar = figure.colorbar(image, ax=axes, label=view.measurement)
    if view.kind:
        bar.set_ticks(range(len(view.kind)), labels=[f"{name.name[0]} {name.label}" for name in view.kind])


def _positions(axis: Any, values: Sequence[object], room: float, along: bool) -> np.ndarray:
    """Where values lie on an axis, which is set up for them."""
    if is_number(values[0]):
        at = np.asarray(values, dtype=float)
        _scale(axis, at)
        return at
    levels = list(dict.fromkeys(values))
    _ticks(axis, levels, room, along=along)
    return np.asarray([levels.index(value) for value in values], dtype=float)


def _ticks(axis: Any, levels: Sequence[object], room: float, *, along: bool = True) -> None:
    """One tick a level, or every second, third, ... if they would touch; names are rather turned than left out."""
    texts = labels(levels, 3)
    turned = along and not is_number(levels[0]) and len(levels) * max(map(len, texts)) * _LETTER > room
    width = _LETTER * (1 + max(map(len, texts))) if along and not turned else 2 * _LETTER
    step = math.ceil(len(levels) / max(1, int(room / width)))
    axis.set_ticks(range(0, len(levels), step), texts[::step])
    if turned:
        axis.set_tick_params(rotation=90)


def _scale(axis: Any, values: np.ndarray) -> None:
    """A logarithmic axis for values that are spread like that, linear below the least positive one if some are 0."""
    if not values.size or not _logarithmic(values):
        return
    least = values[values > 0].min()
    how = {} if values.min() > 0 else {"linthresh": least, "linscale": 0.5}
    getattr(axis.axes, f"set_{axis.axis_name}scale")("symlog" if how else "log", **how)


def _logarithmic(values: np.ndarray) -> bool:
    """Whether numbers, none negative, span decades and their median is nearer the middle of the logarithms' range."""
    positive = np.unique(values[values > 0])
    if values.min() < 0 or positive.size < 3 or positive[-1] < 10**_DECADES * positive[0]:
        return False
    off = [abs(np.median(v) - (v[0] + v[-1]) / 2) / (v[-1] - v[0]) for v in (positive, np.log(positive))]
    return bool(off[1] < off[0])
