"""Figure 15: use of the experts of a language model over training, by layer (after Figures 4 to 7 of Hi-MoE)."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from himoe_theory import Router
from simulations.language.study import compared
from simulations.language.traffic import Traffic, traffic

from .. import read, style

ALT = (
    "Heat maps, an arm a column and a layer a row: experts by optimiser step, bright where many tokens select them; "
    "below, the share of router probability of each group at the end."
)
SHOWN = ("gshard", "loss-free", "moge", "hi-moe", "hi-moe-swapped")


def shown(result: xr.Dataset) -> list[str]:
    """The arms that are drawn."""
    return [name for name in SHOWN if name in result.arm.values]


def draw(result: xr.Dataset) -> Figure:
    """The first seed of each arm; groups side by side."""
    names, layers, facts = shown(result), result.layer.values, read.facts(result)
    with style.context():
        figure = Figure(figsize=(1.3 + 1.75 * len(names), 1.0 + 1.45 * (len(layers) + 1)), layout="constrained")
        grid = figure.subplots(len(layers) + 1, len(names), squeeze=False, sharey="row")
        image = None
        for column, name in zip(grid.T, names, strict=True):
            one, arm = result.sel(arm=name).isel(seed=0), facts[name]
            for axes, layer in zip(column, layers, strict=False):
                load = one["train_load"].sel(layer=layer).transpose("expert", "record").values[arm.by_group, 1:]
                edges = result.record.values
                image = axes.imshow(
                    load, cmap=style.COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="none",
                    extent=(edges[0], edges[-1], len(load) - 0.5, -0.5),
                )  # fmt: skip
                for place in arm.boundaries:
                    axes.axhline(place, color="white", lw=1.0 if arm.grouped else 0.5, ls="-" if arm.grouped else ":")
                axes.set_xticks([edges[0], edges[-1]])
            column[0].set_title(name, fontsize=7.5)
            column[-2].set_xlabel("optimiser step")
            _masses(column[-1], one, np.asarray(arm.groups))
        for axes, layer in zip(grid[:, 0], layers, strict=False):
            axes.set_ylabel(f"layer {layer}\nexpert")
        grid[-1, 0].set_ylabel("share of\nprobability")
        grid[-1, 0].set_ylim(bottom=0)
        grid[-1, 0].legend(frameon=False, fontsize=6.5, loc="upper left")
        figure.colorbar(image, ax=grid[:-1].ravel().tolist(), shrink=0.8).set_label("share of tokens")
    return figure


def _masses(axes, one: xr.Dataset, groups: np.ndarray) -> None:
    """Group mass of every layer at the end."""
    soft = one["soft_load"].isel(record=-1).transpose("layer", "expert").values
    marks = "os^v"
    for row, (layer, load) in enumerate(zip(one.layer.values, soft, strict=True)):
        mass = np.bincount(groups, load)
        look = {"marker": marks[row % len(marks)], "mfc": style.DARK if row == 0 else "white", "color": style.DARK}
        axes.plot(range(len(mass)), mass, ls="-", lw=0.5, ms=4, label=f"layer {layer}", **look)
    axes.axhline(1 / (groups.max() + 1), color=style.MIDDLE, lw=0.6, ls=":")
    axes.set_xticks(range(groups.max() + 1))
    axes.set_xlabel("group")
    style.bare(axes)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; the most and the least used expert, and the largest group mass, at the end."""
    names = shown(result)
    drawn = (
        "Share of training tokens that select each expert, between two measurements, first seed; lines separate groups "
        "(dotted where selection does not know them). Below: router probability of each group on validation text at "
        "the end; dotted: equal shares."
    )
    facts, said = read.facts(result), []
    for name in names:
        last = result.sel(arm=name).isel(record=-1)
        load = last["train_load"]
        soft = last["soft_load"].transpose("layer", "expert", "seed").values
        groups = np.asarray(facts[name].groups)
        mass = np.max([soft[:, groups == g].sum(axis=1) for g in np.unique(groups)], axis=0).mean()
        said.append(
            f"{name}: {float(load.min('expert').mean()):.2f} to {float(load.max('expert').mean()):.2f}, "
            f"largest group mass {mass:.2f}"
        )
    seen = f"Least and most used expert and largest group mass, means over layers and seeds: {'; '.join(said)}."
    return drawn, seen


def table(result: xr.Dataset) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One group of experts on each device: what the selections at the end mean for rows, bytes and padding."""
    routers = {arm.name: arm.router for arm in compared()}
    tokens = int(result["domain_tokens"].isel(arm=0, seed=0, record=-1).sum())
    dim = read.configuration(result)["shape"]["dim"]
    heading = (
        "arm, one group on each of four devices",
        "rows a device, mean",
        "fullest device / mean",
        "groups touched a token",
        "KiB sent where needed",
        "KiB gathered",
        "padding",
        "buffer / rows",
    )
    return heading, [_row(result, name, routers[name], tokens, dim) for name in shown(result)]


def _row(result: xr.Dataset, name: str, router: Router, tokens: int, dim: int) -> tuple[str, ...]:
    last = result.sel(arm=name).isel(record=-1).stack(run=("seed", "layer")).transpose("run", ...)
    touched = last["groups_touched"].values
    found = [
        traffic(router, load, each, tokens, dim=dim)
        for load, each in zip(last["hard_load"].values, touched, strict=True)
    ]
    means = traffic_mean(found)
    return (
        name,
        f"{means.rows:.0f}",
        f"{means.fullest:.2f}",
        f"{touched.mean():.2f}",
        f"{means.sent / 1024:.0f}",
        f"{means.gathered / 1024:.0f}",
        f"{means.padding:.0%}",
        f"{means.reserved:.2f}",
    )


def traffic_mean(found: list[Traffic]) -> Traffic:
    """Of every number."""
    return Traffic(*np.mean(found, axis=0))
