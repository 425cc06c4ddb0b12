"""Figure 22: how often each expert is used, and loads of groups beside their probability (Figures 4, 6 and 7 of
Hi-MoE)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import read, style
from .language_loads import shown

ALT = (
    "An arm a column; for every layer a panel with the share of tokens that select each expert, a mark for every seed "
    "and a bar for their mean, and a panel with every group's share of selections beside its share of probability."
)
_KINDS = {"hard_load": "selections", "soft_load": "probability"}
_LOOKS = {
    "hard_load": {"marker": "s", "color": style.DARK},
    "soft_load": {"marker": "o", "color": style.ACCENT, "mfc": "white"},
}


def of_groups(result: xr.Dataset, arm: str, layer: int, kind: str) -> np.ndarray:
    """Every group's share of selections or of probability at the end, by seed and group."""
    groups = np.asarray(read.facts(result)[arm].groups)
    values = result[kind].sel(arm=arm, layer=layer).isel(record=-1).transpose("seed", "expert").values
    shares = np.stack([values[:, groups == group].sum(axis=1) for group in np.unique(groups)], axis=1)
    return shares / shares.sum(axis=1, keepdims=True)


def draw(result: xr.Dataset) -> Figure:
    """Two rows a layer."""
    names, layers = shown(result), result.layer.values.tolist()
    with style.context():
        figure = Figure(figsize=(1.0 + 1.75 * len(names), 0.9 + 2.7 * len(layers)), layout="constrained")
        grid = figure.subplots(2 * len(layers), len(names), squeeze=False, sharey="row")
        for column, name in zip(grid.T, names, strict=True):
            column[0].set_title(name, fontsize=7.5)
            for place, layer in enumerate(layers):
                _experts(column[2 * place], result, name, layer)
                _groups(column[2 * place + 1], result, name, layer)
        for place, layer in enumerate(layers):
            grid[2 * place, 0].set(ylabel=f"layer {layer}\nshare of tokens", ylim=(0, 1.02))
            grid[2 * place + 1, 0].set(ylabel=f"layer {layer}\nshare of a group", ylim=(0, 1.02))
        handles = grid[1, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _experts(axes: Axes, result: xr.Dataset, arm: str, layer: int) -> None:
    fact = read.facts(result)[arm]
    load = result["hard_load"].sel(arm=arm, layer=layer).isel(record=-1).transpose("seed", "expert").values
    load = load[:, fact.by_group]
    axes.bar(range(load.shape[1]), load.mean(axis=0), color=style.LIGHT, width=0.8)
    for one in load:
        axes.plot(range(len(one)), one, ls="", marker="_", ms=6, color=style.DARK)
    for place in fact.boundaries:
        axes.axvline(place, color=style.MIDDLE, lw=0.7, ls="-" if fact.grouped else ":")
    axes.axhline(load.sum(axis=1).mean() / load.shape[1], color=style.MIDDLE, lw=0.6, ls=":")
    axes.set_xticks(range(load.shape[1]), [str(expert) for expert in fact.by_group])
    axes.set_xlabel("expert")
    style.bare(axes)


def _groups(axes: Axes, result: xr.Dataset, arm: str, layer: int) -> None:
    for aside, (kind, label) in zip((-0.12, 0.12), _KINDS.items(), strict=True):
        found = of_groups(result, arm, layer, kind)
        places = np.broadcast_to(np.arange(found.shape[1]) + aside, found.shape)
        axes.plot(places.ravel(), found.ravel(), ls="", ms=4, label=f"share of {label}", **_LOOKS[kind])
    axes.axhline(1 / found.shape[1], color=style.MIDDLE, lw=0.6, ls=":")
    axes.set_xticks(range(found.shape[1]))
    axes.set_xlabel("group")
    style.bare(axes)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; the fullest group by selections and by probability, and the most and least used expert."""
    drawn = (
        "On validation text at the end, by layer. Above: share of tokens that select each expert, seeds (marks) and "
        "their mean (bars); lines separate groups (dotted where selection does not know them). Below: each group's "
        f"share of selections and of router probability, a mark for each of {result.sizes['seed']} seeds. Dotted: "
        "equal shares."
    )
    told = [_said(result, name) for name in shown(result)]
    return drawn, f"Means over layers and seeds of the extremes: {'; '.join(told)}."


def _said(result: xr.Dataset, arm: str) -> str:
    load = result["hard_load"].sel(arm=arm).isel(record=-1).transpose("layer", "seed", "expert").values
    most, least = load.max(axis=-1).mean(), load.min(axis=-1).mean()
    fullest = [
        np.mean([of_groups(result, arm, layer, kind).max(axis=1) for layer in result.layer.values.tolist()])
        for kind in _KINDS
    ]
    return (
        f"{arm}: experts take {least:.2f} to {most:.2f} of the tokens, the fullest group {fullest[0]:.2f} of the "
        f"selections and {fullest[1]:.2f} of the probability"
    )
