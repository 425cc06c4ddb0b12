"""Figures 14 and 18: arms of a language model (after Tables 2, 3 and 10): loss, balance, groups, what experts know."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations import Interval, interval
from simulations.language.study import compared

from .. import read, style
from ..chance import chance_information

ALT = (
    "Five dot plots with a row for every arm: validation loss, CV of the loads, effective groups, domain–expert "
    "information, similarity of expert outputs; intervals over seeds."
)
PANELS = {
    "validation_loss": "validation loss\n(nats/byte)",
    "cv": "CV of the expert loads",
    "effective_groups": "effective groups",
    "information": "domain–expert\ninformation",
    "output_similarity": "cosine of\nexpert outputs",
}
_CHANCE = {"ms": 9, "mew": 1.2, "color": style.ACCENT}
BASELINE = "moge"
"""What differences are paired with, seed by seed."""


def final(result: xr.Dataset, arm: str, name: str) -> np.ndarray:
    """A measurement at the end for every seed, mean over layers where it has one a layer."""
    values = result[name].sel(arm=arm).isel(record=-1)
    return (values.mean("layer") if "layer" in values.dims else values).values


def against(result: xr.Dataset, arm: str, name: str = "validation_loss", base: str = BASELINE) -> Interval:
    """Mean and 95 % interval of the difference from another arm at equal seeds."""
    return interval(final(result, arm, name) - final(result, base, name))


def chance(result: xr.Dataset, arm: str) -> float:
    """Domain–expert information at the end if domains were dealt to the tokens anew; mean over layers and seeds."""
    last = result.sel(arm=arm).isel(record=-1)
    routes = next(one.router.least_routes for one in compared() if one.name == arm)
    tables = last["assignment"].transpose("seed", "layer", "domain", "expert").values
    return float(chance_information(tables, int(last["domain_tokens"].isel(seed=0).sum()), routes).mean())


def draw(result: xr.Dataset) -> Figure:
    """Panels that share the arms."""
    names = read.arms_in_order(result)
    with style.context():
        figure = Figure(figsize=(10.0, 1.1 + 0.26 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (quantity, label) in zip(panels, PANELS.items(), strict=True):
            _panel(axes, result, names, quantity)
            axes.set_xlabel(label)
            if quantity == "information":
                axes.plot([chance(result, name) for name in names], range(len(names)), ls="", marker="|", **_CHANCE)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _panel(axes: Axes, result: xr.Dataset, names: list[str], quantity: str) -> None:
    for row, name in enumerate(names):
        seeds = final(result, name, quantity)
        if np.isnan(seeds).all():
            continue
        found = interval(seeds)
        axes.plot(seeds, np.full(len(seeds), row + 0.22), ls="", marker="|", ms=4, mew=0.7, color=style.MIDDLE)
        axes.errorbar(
            found.mean, row, xerr=np.nan_to_num(found.half_width), marker="o", ms=4.5, color=style.DARK,
            ecolor=style.DARK, elinewidth=1.0, capsize=2,
        )  # fmt: skip
    style.rows(axes)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """How the arms were trained; which differ from MoGE in loss, and the ends of the other panels."""
    recipe, shape = (read.configuration(result)[part] for part in ("recipe", "shape"))
    drawn = (
        f"Language models of {shape['layers']} layers, width {shape['dim']}, on the Python library's source as bytes: "
        f"{recipe['steps']} steps of {recipe['batch']} × {shape['context']} bytes, the same text in the same order for "
        f"all arms, as many active parameters. Means (dots) with 95 % Student intervals over {result.sizes['seed']} "
        "seeds (ticks); quantities of layers averaged over the layers that are mixtures."
    )
    arms = read.arms_in_order(result)
    clear = "; ".join(f"{label.replace(chr(10), ' ')}: {_clear(result, name)}" for name, label in PANELS.items())
    intervals = [one for name in PANELS for one in _differences(result, name).values()]
    excluded, taken = sum(map(read.excludes_zero, intervals)), len(intervals)
    levels = [chance(result, name) for name in arms if not np.isnan(chance(result, name))]
    above = [name for name in arms if _above_chance(result, name)]
    seen = (
        f"Differences from {BASELINE} at equal seeds whose interval excludes 0: {clear}. That is {excluded} of "
        f"{taken}, of which chance alone would give {0.05 * taken:.0f}. Ends: "
        f"CV {_ends(result, 'cv')}; effective groups {_ends(result, 'effective_groups')}; domain–expert information "
        f"{_ends(result, 'information', 4)}; cosine of expert outputs {_ends(result, 'output_similarity')}. "
        f"Information by chance is {min(levels):.4f} to {max(levels):.4f} and before training "
        f"{_untrained(result):.4f}; the interval lies above chance in {len(above)} of {len(levels)} arms. Chance "
        "treats the tokens of a text as independent, which they are not: it is the least that chance can be."
    )
    return drawn, seen


def _above_chance(result: xr.Dataset, arm: str) -> bool:
    found = interval(final(result, arm, "information"))
    return found.mean - found.half_width > chance(result, arm)


def _untrained(result: xr.Dataset) -> float:
    """Mean information of all arms before the first step."""
    return float(result["information"].isel(record=0).mean())


def _clear(result: xr.Dataset, quantity: str) -> str:
    found = _differences(result, quantity)
    return read.listed(
        [f"{name} {read.told(one, 4, sign=True)}" for name, one in found.items() if read.excludes_zero(one)]
    )


def _differences(result: xr.Dataset, quantity: str) -> dict[str, Interval]:
    """Paired with the baseline, of the arms that have the quantity."""
    others = (name for name in read.arms_in_order(result) if name != BASELINE)
    found = {name: against(result, name, quantity) for name in others}
    return {name: one for name, one in found.items() if not np.isnan(one.mean)}


def _ends(result: xr.Dataset, quantity: str, digits: int = 3) -> str:
    found = {name: interval(final(result, name, quantity)) for name in read.arms_in_order(result)}
    return read.extremes(found, digits)


def table(result: xr.Dataset) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row an arm: loss with its difference from MoGE, perplexity, CV by layer, groups, information, similarity."""
    heading = (
        "arm",
        "loss (nats/byte)",
        f"minus {BASELINE} (paired)",
        "perplexity (per byte)",
        *(f"CV, layer {int(layer)}" for layer in result.layer.values),
        "effective groups",
        "information",
        "output cosine",
        "parameter cosine",
    )
    return heading, [_row(result, name) for name in read.arms_in_order(result)]


def _row(result: xr.Dataset, name: str) -> tuple[str, ...]:
    last = result.sel(arm=name).isel(record=-1)
    by_layer = [last["cv"].sel(layer=layer).values for layer in result.layer.values]
    others = (
        final(result, name, quantity)
        for quantity in ("effective_groups", "information", "output_similarity", "parameter_similarity")
    )
    difference = "" if name == BASELINE else f"{against(result, name)}"
    return (
        name,
        f"{interval(final(result, name, 'validation_loss'))}",
        difference,
        f"{interval(last['perplexity'].values)}",
        *(_or_blank(values) for values in (*by_layer, *others)),
    )


def _or_blank(values: np.ndarray) -> str:
    return "" if np.isnan(values).any() else f"{interval(values)}"
