"""Figure 21: the load counted in micro-batches of one sequence or in the whole batch (D2)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from himoe_theory import dynamics
from simulations import Interval, interval
from simulations.arms import INTRA, LOAD

from .. import read, style

ALT = (
    "Line plots against step, a row for every load coefficient: collision information, CV of the loads and validation "
    "loss of models whose load loss counts a micro-batch and of those whose load loss counts the whole batch."
)
PANELS = {
    "collision_information": "collision information I₂ (nats)",
    "cv": "CV of the expert loads",
    "validation_loss": "validation loss (nats/byte)",
}
_LOOKS = (
    ("a micro-batch", {"color": style.ACCENT, "ls": "--", "marker": "o", "mfc": "white"}),
    ("the whole batch", {"color": style.DARK, "ls": "-", "marker": "s"}),
)


def over_training(result: xr.Dataset, arm: str, quantity: str) -> xr.DataArray:
    """Mean over layers, by seed and record."""
    values = result[quantity].sel(arm=arm)
    return values.mean("layer") if "layer" in values.dims else values


def difference(micro: xr.Dataset, whole: xr.Dataset, arm: str, quantity: str) -> Interval:
    """Whole batch minus micro-batch at the end, at equal seeds."""
    ends = (over_training(one, arm, quantity).isel(record=-1).values for one in (whole, micro))
    return interval(np.subtract(*ends))


def taken(result: xr.Dataset, arm: str) -> tuple[float, float]:
    r"""What counting in the smaller and in the whole batch takes of $\lambda_{intra}$, as a share of it: the critical
    batch of hard counts over the tokens counted (D2). The tokens of a text are not independent: it is the least."""
    settings, fact = read.configuration(result), read.facts(result)[arm]
    routes = result["hard_load"].sel(arm=arm).isel(record=-1).sum("expert").mean().item()
    critical = dynamics.critical_batch_hard(fact.terms[INTRA], fact.terms[LOAD] * routes, len(fact.groups))
    tokens = settings["recipe"]["batch"] * settings["shape"]["context"]
    return critical * settings["recipe"]["micro_batches"] / tokens, critical / tokens


def draw(micro: xr.Dataset, whole: xr.Dataset) -> Figure:
    """One row an arm."""
    with style.context():
        names = [str(name) for name in micro.arm.values]
        figure = Figure(figsize=(8.6, 0.5 + 2.2 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), len(PANELS), squeeze=False)
        for row, name in zip(grid, names, strict=True):
            for axes, (quantity, label) in zip(row, PANELS.items(), strict=True):
                for result, look in zip((micro, whole), _LOOKS, strict=True):
                    _line(axes, over_training(result, name, quantity), *look)
                axes.set_title(name, fontsize=7.5)
                axes.set(xlabel="optimiser step", ylabel=label)
        style.letter(grid.flat)
        handles = grid[0, 0].get_legend_handles_labels()
        figure.legend(*handles, title="the load counts", loc="outside lower center", ncols=2, frameon=False)
    return figure


def _line(axes: Axes, values: xr.DataArray, label: str, look: dict[str, str]) -> None:
    found = [interval(values.sel(record=record).values) for record in values.record]
    axes.errorbar(
        values.record, [one.mean for one in found], yerr=np.nan_to_num([one.half_width for one in found]), label=label,
        ms=3.5, lw=1, elinewidth=0.7, capsize=1.5, **look,
    )  # fmt: skip


def caption(micro: xr.Dataset, whole: xr.Dataset) -> tuple[str, str]:
    """What is drawn; paired differences, against the sign that theory gives."""
    settings = read.configuration(micro)
    batch, context = settings["recipe"]["batch"], settings["shape"]["context"]
    drawn = (
        f"The same {settings['recipe']['steps']} steps, cut into {settings['recipe']['micro_batches']} micro-batches; "
        f"the load loss counts selections of its own micro-batch or of all {batch * context} tokens. Means over "
        f"layers, 95 % Student intervals over {micro.sizes['seed']} seeds. A batch of T tokens takes αKN/(2T) of "
        "λ_intra (D2, hard counts): smaller counts hold tokens back from choosing, so that I₂ is the lower."
    )
    names = [str(name) for name in micro.arm.values]
    return drawn, " ".join(_said(micro, whole, name) for name in names) + f" {_verdict(micro, whole, names)}"


def _said(micro: xr.Dataset, whole: xr.Dataset, name: str) -> str:
    small, large = taken(micro, name)
    told = [f"{label} {read.told(difference(micro, whole, name, q), 4, sign=True)}" for q, label in _SHORT.items()]
    return (
        f"{name}: micro-batches take at least {small:.0%} of λ_intra, the whole batch {large:.0%}; whole minus micro "
        f"at the end, {', '.join(told)}."
    )


def _verdict(micro: xr.Dataset, whole: xr.Dataset, names: list[str]) -> str:
    found = {name: difference(micro, whole, name, "collision_information") for name in names}
    clear = [name for name, one in found.items() if read.excludes_zero(one)]
    higher = [name for name in clear if found[name].mean > 0]
    lower = [name for name in clear if found[name].mean < 0]
    undecided = [name for name in names if name not in clear]
    return (
        f"I₂ is clearly higher with the whole batch, as predicted: {read.listed(higher)}; clearly lower: "
        f"{read.listed(lower)}; undecided: {read.listed(undecided)}."
    )


_SHORT = {"collision_information": "I₂", "cv": "CV", "validation_loss": "loss"}
