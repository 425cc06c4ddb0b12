"""Figure 8: a direction that cancels over clusters, seen by a mixture and by a pooled network."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from himoe_theory import SOURCES
from simulations import interval

from .. import read, style

ALT = (
    "Three panels: largest overlap of a neuron with the shared direction over the steps, mixture and pooled network; "
    "the Hermite moment of that direction within each cluster and pooled; test errors of both networks."
)
_LOOKS = {"mixture": {"color": style.DARK, "ls": "-"}, "pooled": {"color": style.MIDDLE, "ls": "--"}}


def stages(result: xr.Dataset) -> tuple[int, int, int]:
    """Steps at which the stages explore, route and exploit end."""
    chosen = read.configuration(result)
    first = chosen["explore"]
    return first, first + chosen["route"], first + chosen["route"] + chosen["exploit"]


def draw(result: xr.Dataset) -> Figure:
    """Overlaps, moments, errors."""
    with style.context():
        figure = Figure(figsize=(10.2, 3.1), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(2.2, 1.2, 1))
        _overlaps(left, result)
        _moments(middle, result)
        _errors(right, result)
        for axes in (left, middle, right):
            style.bare(axes)
            axes.set_axisbelow(True)
    return figure


def _overlaps(axes: Axes, result: xr.Dataset) -> None:
    for network, look in _LOOKS.items():
        for seed in result.seed.values:
            one = result["shared_overlap"].sel(network=network, seed=seed)
            axes.plot(result.step, one, lw=0.5, alpha=0.45, **look)
        mean = result["shared_overlap"].sel(network=network).mean("seed")
        axes.plot(result.step, mean, lw=1.6, label=network, **look)
    begins = 0
    for end, name in zip(stages(result), ("explore", "route", "exploit"), strict=True):
        axes.axvline(end, color=style.LIGHT, lw=0.7)
        axes.text((begins + end) / 2, 1.04, name, ha="center", va="bottom", fontsize=7, color=style.DARK)
        begins = end
    axes.set(xlim=(0, begins), ylim=(0, 1.03), xlabel="step", ylabel=r"largest $|w \cdot w_g|$ of a neuron")
    axes.legend(frameon=False, loc="upper left")


def _moments(axes: Axes, result: xr.Dataset) -> None:
    labels = [str(label) for label in result.label.values]
    values = np.column_stack([result["cluster_moment"].values, result["pooled_moment"].values])
    exact = result["exact_moment"].values[0]
    _points(axes, values)
    for place, level in enumerate([*exact, exact.mean()]):
        axes.hlines(level, place - 0.35, place + 0.35, color=style.MIDDLE, lw=1.2, zorder=1)
    axes.set_xticks(range(len(labels) + 1), [*labels, "pooled"])
    axes.set_xlabel("cluster")
    axes.set_ylabel(r"$E[y\,\mathrm{He}_k(w_g \cdot x)]\,/\sqrt{k!}$")
    axes.axhline(0, color=style.LIGHT, lw=0.6, zorder=0)


def _errors(axes: Axes, result: xr.Dataset) -> None:
    names = [str(name) for name in result.network.values]
    _points(axes, result["test_error"].transpose("seed", "network").values)
    axes.axhline(float(result["target_variance"].mean()), color=style.DARK, ls=":", lw=1)
    axes.text(0.98, 1.01, "dotted: variance of y", transform=axes.transAxes, ha="right", fontsize=6.5)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("test error (mean squared)")


def _points(axes: Axes, values: Float[np.ndarray, "seeds places"]) -> None:
    """Means with 95 % intervals, and the seeds beside them."""
    for place, column in enumerate(values.T):
        found = interval(column)
        axes.plot(np.full(len(column), place + 0.18), column, ".", ms=3, color=style.MIDDLE, mew=0)
        axes.errorbar(place, found.mean, np.nan_to_num(found.half_width), fmt="o", ms=4, color=style.DARK, capsize=2)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; overlaps, information and errors at the end."""
    chosen = read.configuration(result)
    data = chosen["data"]
    source = SOURCES["kawata"]
    drawn = (
        f"Single-index clusters after {source.title} ({source.identifier}): {data['clusters']} clusters in dimension "
        f"{data['dim']}, information exponent k = {data['exponent']}, {chosen['experts']} experts of "
        f"{chosen['neurons']} neurons, batches of {chosen['batch']}; thick lines and dots: means over "
        f"{result.sizes['seed']} seeds with 95 % Student intervals. Left: the shared direction w_g, with signs that "
        "cancel over clusters; at the start of the last stage the mixture's neurons are drawn anew. Middle: its moment "
        "(lines: exact values). Right: after least squares for the second layer."
    )
    final = {n: interval(result["shared_overlap"].isel(step=-1).sel(network=n).values) for n in _LOOKS}
    errors = {n: interval(result["test_error"].sel(network=n).values) for n in _LOOKS}
    seen = (
        f"At the end max |w · w_g| is {final['mixture']} in the mixture and {final['pooled']} in the pooled network; "
        f"router–cluster information {interval(result['information'].values)} of the largest possible; test error "
        f"{errors['mixture']} against {errors['pooled']}, variance of y {float(result['target_variance'].mean()):.3f}. "
        f"Pooled moment {interval(result['pooled_moment'].values)}, within clusters "
        f"{interval(np.abs(result['cluster_moment'].values).mean(axis=1))} in size."
    )
    return drawn, seen
