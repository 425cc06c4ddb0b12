"""Pictures of stored runs: trajectories, loads over experts, and which experts the clusters go to. No pyplot, no global
state; colours of maps rise in brightness, so that they read in grey."""

import math
import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from himoe_theory.plumbing import files

from .run import interval

COLOURS = "cividis"
TRAJECTORIES = {"test_error": "test error", "cv": "hard CV", "information": "label information"}
"""What is drawn over steps, with its label."""
MOST_MAPS = 8
"""Arms whose maps are drawn; the trajectories have all."""
_OURS = b"himoe-theory, a picture"  # in the file, so that only such pictures are replaced
_STYLES = ("-", "--", ":", "-.")


def plot_runs(result: xr.Dataset, path: Path) -> Any:
    """Draws the result of `simulate`, and stores the picture at `path`; an earlier picture there is replaced.

    Above, means over seeds with their 95 % intervals. Below, of the first seed: the share of test tokens that select
    each expert, along training; and the share of each label's tokens that select each expert, at the end.
    **Returns:** the figure. **Raises:** `ValueError` if something else is there, or the folder cannot be written.
    """
    arms = [str(name) for name in result.arm.values]
    shown = arms[:MOST_MAPS] if "hard_load" in result and "assignment" in result else []
    figure, above, below = halves(len(shown))
    for axes, (name, label) in zip(above.subplots(1, len(TRAJECTORIES)), TRAJECTORIES.items(), strict=True):
        for place, arm in enumerate(arms):
            _trajectory(axes, result.step.values, result[name].sel(arm=arm).values, _style(place, len(arms)), arm)
        over_steps(axes, label)
    _legend(above, axes, len(arms))
    if shown:
        _maps(below, result.isel(seed=0), shown)
    seeds = result.sizes["seed"]
    means = f"means over {seeds} seeds; bands: 95 % interval; " if seeds > 1 else ""
    some = f"; maps of the first {len(shown)} of {len(arms)} arms" if 0 < len(shown) < len(arms) else ""
    title(figure, f"{means}maps of seed {int(result.seed[0])}{some}")
    store_picture(figure, path)
    return figure


def _maps(figure: Any, run: xr.Dataset, arms: list[str]) -> None:
    """A column an arm: loads along training, and where clusters go at the end."""
    loads, maps = figure.subplots(2, len(arms), squeeze=False)
    drawn = run.sel(arm=arms)
    largest = highest(drawn["hard_load"].values), highest(drawn["assignment"].isel(step=-1).values)
    for place, arm in enumerate(arms):
        one = run.sel(arm=arm)
        load = cells(loads[place], one["hard_load"].values.T, largest[0], run.step.values)
        loads[place].set_title(arm, fontsize="small")
        loads[place].set_xlabel("step")
        assigned = cells(maps[place], one["assignment"].isel(step=-1).values, largest[1])
        maps[place].set_xlabel("expert")
    loads[0].set_ylabel("expert")
    maps[0].set_ylabel("cluster")
    figure.colorbar(load, ax=list(loads), label="share of tokens", shrink=0.9)
    figure.colorbar(assigned, ax=list(maps), label="share of cluster", shrink=0.9)


def halves(maps: int) -> tuple[Any, Any, Any]:
    """A figure, its upper part and its lower one, wide enough for so many maps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(9.0, 1.6 + 1.9 * maps), 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.0, 1.5))
    return figure, above, below


def over_steps(axes: Any, label: str) -> None:
    """Whole steps across, and measurements up, of which none is below 0."""
    axes.set_xlabel("step")
    axes.set_title(label, fontsize="small")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(bottom=0.0)


def _trajectory(axes: Any, steps: np.ndarray, values: np.ndarray, style: dict[str, Any], label: str) -> None:
    """The mean over seeds, the first axis, and its interval."""
    found = [interval(column[np.isfinite(column)]) if np.isfinite(column).any() else None for column in values.T]
    mean = np.asarray([math.nan if one is None else one.mean for one in found])
    half = np.asarray([0.0 if one is None or math.isnan(one.half_width) else one.half_width for one in found])
    axes.plot(steps, mean, label=label, **style)
    if half.any():
        axes.fill_between(steps, mean - half, mean + half, color=style["color"], alpha=0.15, linewidth=0)


def _style(place: int, count: int) -> dict[str, Any]:
    """Colours by brightness, and lines that differ where colours are near."""
    from matplotlib import colormaps

    share = place / max(count - 1, 1)
    return {"color": colormaps[COLOURS](0.9 * share), "linestyle": _STYLES[place % len(_STYLES)], "linewidth": 1.4}


def _legend(figure: Any, axes: Any, count: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="x-small", ncols=1 + (count > 12))


def cells(axes: Any, values: np.ndarray, highest: float, steps: np.ndarray | None = None) -> Any:
    """A map `[up, across]`; what is not known is hatched. `steps`: where columns lie, if they are no experts."""
    across = np.arange(values.shape[1]) if steps is None else steps
    axes.set_facecolor("white")
    axes.patch.set_hatch("///")
    how = {"cmap": COLOURS, "vmin": 0.0, "vmax": highest}
    image = axes.pcolormesh(_edges(across), _edges(np.arange(values.shape[0])), np.ma.masked_invalid(values), **how)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(nbins=5, integer=True)
    return image


def _edges(places: np.ndarray) -> np.ndarray:
    """Where cells around these places end: half-way to the next."""
    places = np.asarray(places, float)
    if places.size == 1:
        return places[0] + np.asarray([-0.5, 0.5])
    gaps = np.diff(places) / 2
    return np.concatenate([places[:1] - gaps[:1], places[:-1] + gaps, places[-1:] + gaps[-1:]])


def highest(values: np.ndarray) -> float:
    """The largest value of maps that share a scale."""
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size and known.max() > 0 else 1.0


def title(figure: Any, text: str) -> None:
    """Above everything, in lines that fit."""
    figure.suptitle(textwrap.fill(text, int(figure.get_size_inches()[0] * 13)), fontsize="small", x=0.01, ha="left")


def picture_of(path: Path) -> Path:
    """Where the picture of a result file goes: beside it."""
    return path.with_name(f"{path.stem if path.suffix == '.nc' else path.name}.png")


def store_picture(figure: Any, path: Path) -> None:
    """Writes a picture whole, over an earlier one that was drawn here. **Raises:** `ValueError`."""
    drawable(path)
    with files.whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": _OURS.decode()})


def drawable(path: Path) -> None:
    """**Raises:** `ValueError` if there is something at `path` that was not drawn here."""
    files.check(path)
    if os.path.lexists(path) and _OURS not in files.read(path):
        raise ValueError(f"`{path}` must be a new file or a picture that was drawn here; it is another. Move it away.")
