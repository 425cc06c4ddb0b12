"""Figure 1: which expert takes which planted cluster, in every arm and before training, and what that is called."""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from simulations import NAMES, Name, name_of

from .. import read, style
from ..read import ArmFacts

ALT = (
    "One panel an arm: a matrix of planted clusters (rows) by experts (columns), bright where a cluster's tokens "
    "select the expert, above bars of every expert's load; the last panel is an untrained gate."
)


def sort_rows(matrix: Float[np.ndarray, "labels experts"]) -> Int[np.ndarray, " labels"]:
    """Order of the clusters that puts those with the same experts side by side: by expert 0, then 1, and so on."""
    # Rounded, so that a token or two do not decide the order.
    keys = -np.round(matrix, 1)
    return np.lexsort(keys.T[::-1])


def draw(result: xr.Dataset) -> Figure:
    """A panel for every arm, assignment of the shown seed and the hard load below it; and one for an untrained gate."""
    names, facts = read.arms_in_order(result), read.facts(result)
    bare = untrained(result)
    with style.context():
        figure, cells = style.panels(len(names) + 1, width=2.05, height=2.75, top=0.5, hspace=0.46, wspace=0.16)
        image = None
        for name, panel in zip([*names, None], cells, strict=True):
            parts = panel.cell.subgridspec(2, 1, height_ratios=(4, 1), hspace=0.06)
            top, bottom = figure.add_subplot(parts[0]), figure.add_subplot(parts[1])
            arm = bare if name is None else name
            one = result.isel(step=0 if name is None else -1).sel(arm=arm, seed=read.shown_seed(result, arm))
            image = _matrix(top, one, facts[arm])
            _load(bottom, one, facts[arm])
            top.set_title(_named(result, one, name), fontsize=6, color=style.DARK, linespacing=1.1)
            head = f"untrained ({bare}, step 0)" if name is None else name
            top.text(0.5, 1.18, head, transform=top.transAxes, ha="center", va="bottom", weight="bold", fontsize=8)
            bottom.tick_params(labelleft=panel.first)
            if panel.first:
                top.set_ylabel("planted cluster")
                bottom.set_ylabel("load")
            if panel.last:
                bottom.set_xlabel("expert")
        style.colour_bar(figure, image, "share of the cluster's tokens\nthat select the expert")
    return figure


def untrained(result: xr.Dataset) -> str:
    """The arm whose gate is shown as it was drawn: the first whose groups select, if there is one."""
    facts = read.facts(result)
    return next((name for name in read.arms_in_order(result) if facts[name].grouped), str(result.arm.values[0]))


def _named(result: xr.Dataset, one: xr.Dataset, name: str | None) -> str:
    """Regime and balance of an arm; of the untrained gate what there is to see, since training named nothing."""
    if name is None:
        return f"G = 0 · label info {float(one['information']):.2f}\nCV {float(one['cv']):.2f} · seed {int(one.seed)}"
    return f"{read.regime(result, name)} · seed {int(one.seed)}\n{read.regime(result, name, 'balance')}"


def _matrix(axes: Axes, one: xr.Dataset, arm: ArmFacts) -> AxesImage:
    matrix = one["assignment"].transpose("label", "expert").values[:, arm.by_group]
    rows = sort_rows(matrix)
    image = axes.imshow(matrix[rows], cmap=style.COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="none")
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), [str(label) for label in one.label.values[rows]], fontsize=5.5)
    axes.tick_params(length=0, pad=1.5)
    _boundaries(axes, arm, "white")
    return image


def _load(axes: Axes, one: xr.Dataset, arm: ArmFacts) -> None:
    load = one["hard_load"].values[arm.by_group]
    axes.bar(range(len(load)), load, width=0.7, color=style.MIDDLE)
    axes.axhline(load.sum() / len(load), color=style.DARK, lw=0.7, ls=":")
    axes.set_xlim(-0.5, len(load) - 0.5)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1])
    axes.set_xticks(range(len(load)), [str(e) for e in one.expert.values[arm.by_group]], fontsize=5.5)
    axes.tick_params(axis="x", length=0, pad=1.5)
    style.bare(axes)
    _boundaries(axes, arm, style.LIGHT)


def _boundaries(axes: Axes, arm: ArmFacts, colour: str) -> None:
    """Where a group ends; only arms whose groups select have such lines."""
    if arm.grouped:
        for place in arm.boundaries:
            axes.axvline(place, color=colour, lw=1.2)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; which arms have which regime and which balance."""
    drawn = (
        f"After {int(result.step[-1])} steps: the share of each planted cluster's test tokens that select each expert, "
        "and below it the hard load (share of all test tokens; dotted: equal use). Clusters are sorted so that those "
        "with the same experts are neighbours; vertical lines separate the groups of grouped selection. A dense layer "
        "selects every expert; its balance is read from the probabilities. Each panel shows one seed of "
        f"{result.sizes['seed']}: that of median test error among those in the named regime; above it the most "
        f"frequent regime and balance. The last panel is the gate of {untrained(result)} before training, which tells "
        f"clusters apart without having learned to. {read.untrained_note()}"
    )
    seen = " ".join(f"Most frequent {name}: {_arms_by_name(result, name)}." for name in NAMES)
    return drawn, f"{seen} {read.diverged_note(result)}"


def _arms_by_name(result: xr.Dataset, name: str) -> str:
    """The arms of each regime or balance, and those whose seeds do not agree."""
    named: dict[Name, list[str]] = {}
    split: list[str] = []
    for arm in read.arms_in_order(result):
        named.setdefault(name_of(result, arm, name)[0], []).append(arm)
        counts = read.counts(result, arm, name)
        if len(counts) > 1:
            split.append(f"{arm} ({', '.join(f'{n} {one.label}' for one, n in counts.items())})")
    told = [f"{one.label}: {read.listed(named[one])}" for one in NAMES[name] if one in named]
    return f"{'; '.join(told)}; seeds do not agree: {read.listed(split)}"
