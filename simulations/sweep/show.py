"""A sweep as a table and a picture of one or two of its axes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..regimes import Regime
from ..run import interval

_OWN = {"seed", "record", "expert"}


@dataclasses.dataclass(frozen=True)
class View:
    """A measurement at the end of training over the values of one field, or of two.

    `mean`, `half_width` (of the 95 % interval over seeds; NaN for fewer than two) and `diverged`, `runs` (counts) are
    `[x]` or `[x, y]`. Diverged runs are counted and left out of the mean; runs that are not stored are left out.
    """

    fields: tuple[str, ...]
    values: tuple[list[object], ...]
    measurement: str
    mean: np.ndarray
    half_width: np.ndarray
    diverged: np.ndarray
    runs: np.ndarray


def view(result: xr.Dataset, x: str | None = None, y: str | None = None, measurement: str = "test_error") -> View:
    """The mean over the rest and over seeds; seeds are what the interval is over.

    **Arguments:** `x`, `y`: fields of the design. If neither is given: the first with several values, and the second
    of a grid.
    **Raises:** `ValueError` for a field or measurement that the sweep does not have.
    """
    at_end = _scalars(result)
    if measurement not in at_end:
        raise ValueError(f"`value` must be one of {', '.join(sorted(at_end))}; got {measurement!r}.")
    fields = _fields(result, x, y)
    regime = result["regime"]
    arrays = {"value": at_end[measurement], "regime": regime, "seed": result["seed"]}
    arrays |= {field: result[field] for field in fields}
    flat = {n: a.broadcast_like(regime).transpose(*regime.dims).values.ravel() for n, a in arrays.items()}
    stored, diverged = flat["regime"] >= 0, flat["regime"] == Regime.DIVERGED
    levels = tuple(list(dict.fromkeys(result[field].values.tolist())) for field in fields)
    shape = tuple(map(len, levels))
    mean, half, lost, runs = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, int), np.zeros(shape, int)
    for place in np.ndindex(shape):
        here = stored.copy()
        for field, level, i in zip(fields, levels, place, strict=True):
            here &= flat[field] == level[i]
        lost[place], runs[place] = (here & diverged).sum(), here.sum()
        good = here & ~diverged
        seeds = [flat["value"][good & (flat["seed"] == s)].mean() for s in np.unique(flat["seed"][good])]
        if seeds:
            over = interval(np.asarray(seeds))
            mean[place], half[place] = over.mean, over.half_width
    return View(fields, levels, measurement, mean, half, lost, runs)


def _scalars(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Measurements without experts, at each run's last record."""
    last = result["step"].notnull().sum("record") - 1
    return {
        str(name): values.isel(record=last) if "record" in values.dims else values
        for name, values in result.data_vars.items()
        if name != "regime" and "expert" not in values.dims
    }


def _fields(result: xr.Dataset, x: str | None, y: str | None) -> tuple[str, ...]:
    known = [str(name) for name in result.coords if name not in {*_OWN, "step", "setting"}]
    for name, given in (("x", x), ("y", y)):
        if given is not None and given not in known:
            raise ValueError(f"`{name}` must be an axis of the sweep, one of {', '.join(known)}; got {given!r}.")
    if x is not None and x == y:
        raise ValueError(f"`x` and `y` must be different fields; got {x!r} twice.")
    several = [name for name in known if len(np.unique(result[name].values)) > 1 and name not in (x, y)]
    first = x or (several.pop(0) if several else (known[:1] or ["seed"])[0])
    if y is None and x is None and "setting" not in result.dims and several:
        y = several[0]
    return (first,) if y is None else (first, y)


def cell(view: View, place: tuple[int, ...]) -> str:
    """Mean ± half-width, and how many runs diverged if any did."""
    if not view.runs[place]:
        return "-"
    text = f"{view.mean[place]:.4g} ± {view.half_width[place]:.2g}".replace("± nan", "± n/a")
    return f"{text} ({view.diverged[place]} div.)" if view.diverged[place] else text


def table(view: View) -> Table:
    """Rows are the first field's values, columns the second's."""
    title = f"{view.measurement} at the end, mean ± 95 % interval over seeds; div.: diverged runs, left out"
    out = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title)
    out.add_column(view.fields[0], no_wrap=True)
    if len(view.fields) == 1:
        out.add_column(view.measurement)
        out.add_column("runs")
        for i, level in enumerate(view.values[0]):
            out.add_row(_text(level), cell(view, (i,)), str(view.runs[i]))
        return out
    for level in view.values[1]:
        out.add_column(f"{view.fields[1]} {_text(level)}")
    for i, level in enumerate(view.values[0]):
        out.add_row(_text(level), *(cell(view, (i, j)) for j in range(len(view.values[1]))))
    return out


def plot(view: View, path: Path) -> None:
    """A line with its interval, or a heat map of two fields. Without pyplot: no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(view.fields[0])
    if len(view.fields) == 1:
        _line(axes, view)
    else:
        image = axes.imshow(np.ma.masked_invalid(view.mean.T), origin="lower", aspect="auto")
        for axis, levels in ((axes.xaxis, view.values[0]), (axes.yaxis, view.values[1])):
            axis.set_ticks(range(len(levels)), [_text(level) for level in levels])
        axes.set_ylabel(view.fields[1])
        figure.colorbar(image, label=view.measurement)
    figure.savefig(path, dpi=150)


def _line(axes: Any, view: View) -> None:
    """Numbers at their places, in rising order; other values side by side."""
    levels = view.values[0]
    numbers = all(isinstance(level, (int, float)) and not isinstance(level, bool) for level in levels)
    at = np.asarray(levels if numbers else range(len(levels)), dtype=float)
    order = np.argsort(at)
    at, mean, half = at[order], view.mean[order], np.nan_to_num(view.half_width[order])
    (line,) = axes.plot(at, mean, "o-" if numbers else "o")
    if numbers:
        axes.fill_between(at, mean - half, mean + half, alpha=0.25, color=line.get_color(), linewidth=0)
    else:
        axes.errorbar(at, mean, half, fmt="none", color=line.get_color())
        axes.set_xticks(at, [_text(level) for level in levels])
    axes.set_ylabel(view.measurement)


def _text(level: object) -> str:
    return f"{level:.4g}" if isinstance(level, float) else str(level)
