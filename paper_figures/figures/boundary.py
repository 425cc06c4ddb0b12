"""Where routing collapses: over load and intra term, over the spread of logits under hard counts, over group sizes
(D1, D10), over common mean and load (D12); and what comes first, collapse, redundancy or specialisation (D6)."""

import dataclasses

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations import interval
from simulations.theory import fall

from .. import style
from . import phases

BOUND = 0.01
"""Largest relative difference of a measured edge from theory."""
COUNT_BOUND = 4.0
"""Largest deviation of a measured load under hard counts from theory, in its standard errors."""
ALT = (
    "Six panels: edges of collapse in the plane of the intra term and the load; the hard load that stops collapse "
    "against the spread of logits; growth of contrasts between groups against the scaled ratio of coefficients; heat "
    "map of the load's variation after training over mean and load, with the measured boundary and the predicted one; "
    "and two phase diagrams over the strength of targets and of the intra term, regions predicted and marks measured."
)


def edge_error(result: xr.Dataset) -> float:
    """Largest relative difference of a measured edge from theory."""
    return float(np.abs(result["edge"] / result["predicted_edge"] - 1).max())


def count_error(result: xr.Dataset) -> float:
    """Largest deviation of a measured load under hard counts from theory, in its standard errors."""
    return float(np.abs((result["measured"] - result["predicted"]) / result["standard_error"]).max())


@dataclasses.dataclass(frozen=True)
class Boundary:
    """Trained layers against the predicted boundary; everything from the layers themselves."""

    shares: tuple[float, ...]
    """Measured load, from the CV's mean over seeds, over the predicted one, by mean, where both are above 0."""
    mean: float
    """Measured smallest mean that collapses without a load, from the CV's mean over seeds; NaN if none is."""
    beyond: tuple[int, int]
    """Layers that collapse beyond the predicted boundary, and layers there."""
    within: tuple[int, int]
    """The same for the other side."""

    @property
    def error(self) -> float:
        """Largest relative difference of the measured load from theory; NaN if none is to be compared."""
        return max((abs(share - 1) for share in self.shares), default=float("nan"))


def measured_edge(result: xr.Dataset) -> Float[np.ndarray, " means"]:
    """Loads at which the mean over seeds falls to half of the largest CV: 0, it starts below; NaN, it stays above."""
    rows = result["cv"].mean("seed").transpose("mean", "alpha").values
    return np.array([fall(result["alpha"].values, row, result.attrs["largest"] / 2) for row in rows])


def compared(result: xr.Dataset) -> Boundary:
    """The trained layers against theory."""
    edge, predicted = measured_edge(result), result["predicted_edge"].values
    both = (edge > 0) & (predicted > 0)
    collapsed = result["cv"] > result.attrs["largest"] / 2
    inside = (result["alpha"] < result["predicted_edge"]).broadcast_like(collapsed)
    sides = [(int((collapsed & side).sum()), int(side.sum())) for side in (~inside, inside)]
    without = result["cv"].isel(alpha=0).mean("seed").values
    falling = fall(result["mean"].values[::-1], without[::-1], result.attrs["largest"] / 2) or float("nan")
    return Boundary(tuple((edge[both] / predicted[both]).tolist()), falling, *sides)


def draw(common: xr.Dataset, counts: xr.Dataset, ratio: xr.Dataset, trained: xr.Dataset, started: xr.Dataset) -> Figure:
    """Edges for soft loads and for hard counts, ratios, the trained layers, and the phases."""
    with style.context():
        figure = Figure(figsize=(8.2, 9.6), layout="constrained")
        panels = figure.subplots(3, 2)
        _edges(panels[0, 0], common)
        _counts(panels[0, 1], counts)
        _ratios(panels[1, 0], ratio)
        _trained(figure, panels[1, 1], trained)
        for axes, load in zip(panels[2], started["load_ratio"].values[[0, -1]], strict=True):
            phases.panel(axes, started, float(load))
        style.letter(panels.flat)
    return figure


def _counts(axes: Axes, result: xr.Dataset) -> None:
    colours = (style.DARK, style.ACCENT, style.DARK, style.ACCENT)
    for case, marker, colour in zip(result.case.values, "os^D", colours, strict=False):
        one = result.sel(case=case)
        axes.loglog(result.spread, one["predicted"], "-", color=style.MIDDLE, lw=1.0)
        axes.errorbar(
            result.spread, one["measured"], yerr=one["standard_error"], ls="", marker=marker, ms=3.8, mfc="white",
            color=colour, elinewidth=0.9, capsize=2, label=str(case),
        )  # fmt: skip
    axes.axhline(1, color=style.LIGHT, lw=0.8, zorder=0)
    axes.set(xlabel="spread σ of the logits", ylabel="α N / λ_intra at which hard counts\nstop the common mode")
    style.note(axes, 0.97, 0.04, f"largest deviation\n{count_error(result):.1f} standard errors", ha="right")
    axes.legend(frameon=False, loc="upper left")


def _edges(axes: Axes, result: xr.Dataset) -> None:
    for load, marker, colour, line in (("full", "o", style.DARK, "-"), ("frozen", "s", style.ACCENT, "--")):
        one = result.sel(load_kind=load)
        axes.plot(result.intra, one["predicted_edge"], line, color=style.MIDDLE, lw=1.1)
        axes.plot(result.intra, one["edge"], marker, color=colour, ms=4, mfc="white", label=f"{load} load")
    top = float(result.alpha_n[-1])
    axes.set(xlim=(0, None), ylim=(0, top), xlabel="λ_intra", ylabel="α N at which the common mode stops growing")
    style.note(
        axes, 0.97, 0.04, f"lines: λ_intra and 2 λ_intra;\nlargest error {_percent(edge_error(result))}", ha="right"
    )
    axes.legend(frameon=False, loc="upper left")


def _ratios(axes: Axes, result: xr.Dataset) -> None:
    axes.plot(result.ratio, result.ratio - 1, "-", color=style.MIDDLE, lw=1.1, label="theory")
    marks = ("o", "s", "^", "D")
    for place, (size, marker) in enumerate(zip(result.size.values, marks, strict=False)):
        own = result["growth"].sel(size=size)[place :: result.sizes["size"]]
        axes.plot(own.ratio, own, marker, color=style.DARK, ms=4, mfc="white", label=f"S = {size}")
    axes.axhline(0, color=style.LIGHT, lw=0.8, zorder=0)
    axes.axvline(1, color=style.LIGHT, lw=0.8, zorder=0)
    axes.set(xlabel="λ_intra / (S λ_inter)", ylabel="growth of a contrast between groups\n(units of 2 S λ_inter / N²)")
    style.note(axes, 0.97, 0.04, f"largest error of the\ncritical ratio {_percent(edge_error(result))}", ha="right")
    axes.legend(frameon=False, loc="upper left")


def _trained(figure: Figure, axes: Axes, result: xr.Dataset) -> None:
    values = result["cv"].mean("seed").transpose("mean", "alpha").values
    image = axes.imshow(values, origin="lower", cmap=style.COLOURS, vmin=0, vmax=result.attrs["largest"], aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > 0.5 * result.attrs["largest"] else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_xticks(range(result.sizes["alpha"]), [f"{a:g}" for a in result.alpha.values])
    axes.set_yticks(range(result.sizes["mean"]), [f"{m:g}" for m in result["mean"].values])
    axes.set(xlabel="coefficient α of the hard load", ylabel="common mean μ of the tokens")
    figure.colorbar(image, ax=axes, aspect=30, pad=0.02).set_label("hard CV (1: collapsed)")
    rows = np.arange(result.sizes["mean"])
    edges = {"measured": ("o-", measured_edge(result)), "predicted": ("s--", result["predicted_edge"].values)}
    for label, (line, edge) in edges.items():
        # Between two columns, by their loads.
        places = np.where(edge > 0, np.interp(edge, result.alpha, np.arange(result.sizes["alpha"])), np.nan)
        axes.plot(places, rows + 0.28, line, color="white", mfc=style.ACCENT, mec="white", ms=4.5, lw=1.3, label=label)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
    axes.legend(fontsize=6, facecolor=style.MIDDLE, labelcolor="white", **below)
    axes.set_title(f"boundary: {_shares(compared(result))}", fontsize=7)


def caption(
    common: xr.Dataset, counts: xr.Dataset, ratio: xr.Dataset, trained: xr.Dataset, started: xr.Dataset
) -> tuple[str, str]:
    """What is drawn; the largest errors; which trained layers collapse; which phases are as predicted."""
    seeds = trained.sizes["seed"]
    drawn = (
        "(a): coefficient of a soft load at which the common mode of uniform routing neither grows nor decays; below "
        "the line tokens collapse onto few experts (D1). (b): the same for hard counts, whose answer to an offset "
        "depends on how far logits are spread (D1, D10); 1 is the full load at equal logits. (c): contrasts between "
        f"groups of S experts grow above λ_intra = S λ_inter (D1). (d): Hi-MoE layers trained on clusters ({seeds} "
        "seeds): hard CV at the end (D12); dashed the load below which the mean of the tokens can lead, the edge of "
        "(b) at its highest times μ²/(μ² + ρ²/C), what clusters of radius ρ leave of its lead (D1). (e), (f): what "
        "dense layers of linear experts start by, predicted by the leading mode of their symmetric state (regions) "
        "and measured as what has lowered the loss most when routing decides (marks; ringed if another): the "
        "task, the router's terms on the mean of "
        "probabilities, or about it, where experts stay alike (D6 with D1)."
    )
    errors = (edge_error(common), edge_error(ratio))
    inside = "within" if max(errors) <= BOUND else "not within"
    deviation = count_error(counts)
    peaks = [f"{case}: {float(counts['predicted'].sel(case=case).max()):.1f}" for case in counts.case.values]
    seen = (
        f"Edges differ from theory by at most {_percent(errors[0])} (load) and {_percent(errors[1])} (group ratio), "
        f"{inside} {BOUND:.0%}; hard counts by {deviation:.1f} standard errors, "
        f"{'within' if deviation <= COUNT_BOUND else 'not within'} {COUNT_BOUND:g}. Largest load that hard counts need "
        f"on this grid, in the same unit, {'; '.join(peaks)}. {_told(trained)} The edges of (a) and (b) are for the "
        f"regularisers alone; in (d) task and Adam are not in the prediction. {phases.told(started)}"
    )
    return drawn, seen


def _shares(found: Boundary) -> str:
    """By how much the measured load misses the predicted one."""
    if not found.shares:
        return "no α to compare"
    low, high = min(found.shares), max(found.shares)
    return f"measured α / predicted {low:.2g} to {high:.2g}, error {found.error:.0%}"


def _told(trained: xr.Dataset) -> str:
    """The measured boundary and the predicted one, row by row, and on which side layers collapse."""
    found = compared(trained)
    rows = [
        f"μ = {float(mean):g}: {_seeds(trained['edge'].sel(mean=mean))} (predicted "
        f"{float(trained['predicted_edge'].sel(mean=mean)) or 0:.2g})"
        for mean in trained["mean"].values
    ]
    return (
        f"Trained layers: α at which CV falls to half of the largest (0: below it without a load), {'; '.join(rows)}; "
        f"of the mean over seeds, {_shares(found)}. Without a load they collapse from μ = {found.mean:.2g}, "
        f"predicted: from any mean. Beyond the predicted boundary {found.beyond[0]} of {found.beyond[1]} "
        f"layers collapse, within it {found.within[0]} of {found.within[1]}."
    )


def _seeds(edges: xr.DataArray) -> str:
    """Mean with its 95 % interval over seeds."""
    found = interval(edges.values)
    return f"{found.mean:.2g} ± {found.half_width:.1g}"


def _percent(share: float) -> str:
    return f"{100 * share:.1g} %"
