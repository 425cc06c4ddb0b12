"""Where routing collapses: over load and intra term, over the spread of logits under hard counts, over group sizes
(D1, D10), over common mean and load (D12)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import style

BOUND = 0.01
"""Largest relative difference of a measured edge from theory."""
COUNT_BOUND = 4.0
"""Largest deviation of a measured load under hard counts from theory, in its standard errors."""
ALT = (
    "Four panels: edges of collapse in the plane of the intra term and the load; the hard load that stops collapse "
    "against the spread of logits; growth of contrasts between groups against the scaled ratio of coefficients; heat "
    "map of the load's variation after training over mean and load."
)


def edge_error(result: xr.Dataset) -> float:
    """Largest relative difference of a measured edge from theory."""
    return float(np.abs(result["edge"] / result["predicted_edge"] - 1).max())


def count_error(result: xr.Dataset) -> float:
    """Largest deviation of a measured load under hard counts from theory, in its standard errors."""
    return float(np.abs((result["measured"] - result["predicted"]) / result["standard_error"]).max())


def draw(common: xr.Dataset, counts: xr.Dataset, ratio: xr.Dataset, trained: xr.Dataset) -> Figure:
    """Edges for soft loads and for hard counts, ratios, and the trained layers."""
    with style.context():
        figure = Figure(figsize=(8.2, 6.6), layout="constrained")
        panels = figure.subplots(2, 2)
        _edges(panels[0, 0], common)
        _counts(panels[0, 1], counts)
        _ratios(panels[1, 0], ratio)
        _trained(figure, panels[1, 1], trained)
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
        one = result.sel(load=load)
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


def caption(common: xr.Dataset, counts: xr.Dataset, ratio: xr.Dataset, trained: xr.Dataset) -> tuple[str, str]:
    """What is drawn; the largest errors; which trained layers collapse."""
    seeds = trained.sizes["seed"]
    drawn = (
        "(a): coefficient of a soft load at which the common mode of uniform routing neither grows nor decays; below "
        "the line tokens collapse onto few experts (D1). (b): the same for hard counts, whose answer to an offset "
        "depends on how far logits are spread (D1, D10); 1 is the full load at equal logits. (c): contrasts between "
        f"groups of S experts grow above λ_intra = S λ_inter (D1). (d): Hi-MoE layers trained on clusters ({seeds} "
        "seeds): hard CV at the end (D12)."
    )
    errors = (edge_error(common), edge_error(ratio))
    inside = "within" if max(errors) <= BOUND else "not within"
    deviation = count_error(counts)
    peaks = [f"{case}: {float(counts['predicted'].sel(case=case).max()):.1f}" for case in counts.case.values]
    cv = trained["cv"].mean("seed")
    collapsed = cv >= trained.attrs["largest"] / 2
    least = [f"{float(m):g}: {_largest_alpha(collapsed.sel(mean=m))}" for m in trained["mean"].values]
    seen = (
        f"Edges differ from theory by at most {_percent(errors[0])} (load) and {_percent(errors[1])} (group ratio), "
        f"{inside} {BOUND:.0%}; hard counts by {deviation:.1f} standard errors, "
        f"{'within' if deviation <= COUNT_BOUND else 'not within'} {COUNT_BOUND:g}. Largest load that hard counts need "
        f"on this grid, in the same unit, {'; '.join(peaks)}. Trained layers: largest α of the grid with more than "
        f"half of the largest CV, by μ: "
        f"{', '.join(least)}. The edges of (a) and (b) are for the regularisers alone."
    )
    return drawn, seen


def _largest_alpha(collapsed: xr.DataArray) -> str:
    alphas = collapsed.alpha.values[collapsed.values]
    return f"{alphas.max():g}" if len(alphas) else "none"


def _percent(share: float) -> str:
    return f"{100 * share:.1g} %"
