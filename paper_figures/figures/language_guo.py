"""Figure 16: Guo's ablation in a language model, with the three forms of L_o and the two of L_v."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from simulations import Interval, interval

from .. import style

ALT = "Four line plots against step, one line an arm: expert overlap, silhouette, routing variance, MaxVio."
PANELS = {
    "expert_overlap": "overlap (mean cos² of a token's experts)",
    "silhouette": "silhouette of first experts' outputs",
    "routing_variance": "routing variance",
    "max_violation": "MaxVio",
}
_LOOKS = (
    {"color": style.LIGHT, "ls": "-"},
    {"color": style.MIDDLE, "ls": "-"},
    {"color": style.DARK, "ls": "-"},
    {"color": style.DARK, "ls": "--"},
    {"color": style.DARK, "ls": ":"},
    {"color": style.ACCENT, "ls": "-"},
    {"color": style.ACCENT, "ls": "--"},
    {"color": "black", "ls": "-."},
)


def draw(result: xr.Dataset) -> Figure:
    """Means over layers and seeds; bars at the end are intervals over seeds."""
    with style.context():
        figure = Figure(figsize=(10.0, 3.3), layout="constrained")
        panels = figure.subplots(1, len(PANELS))
        for axes, (quantity, label) in zip(panels, PANELS.items(), strict=True):
            for place, (look, name) in enumerate(zip(_LOOKS, result.arm.values, strict=False)):
                values = result[quantity].sel(arm=name).mean("layer")
                axes.plot(result.record, values.mean("seed"), lw=1.3, label=str(name), **look)
                last = at_end(result, str(name), quantity)
                x = float(result.record[-1]) * (1.03 + 0.02 * place)
                axes.errorbar(x, last.mean, np.nan_to_num(last.half_width), color=look["color"], elinewidth=1)
            axes.set_title(label, fontsize=7.5)
            axes.set_xlabel("optimiser step")
            style.bare(axes)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def at_end(result: xr.Dataset, arm: str, quantity: str) -> Interval:
    """Mean and 95 % interval over seeds of the mean over layers."""
    return interval(result[quantity].sel(arm=arm).isel(record=-1).mean("layer").values)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; every arm's end, and its loss against the load loss alone."""
    drawn = (
        f"Free top-4 of 8 experts with the load loss and what the name adds; L_o in the paper's form, on the span of "
        "the other outputs, and as released; L_v across experts (code) and across tokens (paper). Means over layers "
        f"and {result.sizes['seed']} seeds; bars at the right: 95 % Student intervals at the end."
    )
    base = result["validation_loss"].sel(arm="guo-aux").isel(record=-1).values
    said = []
    for name in (str(n) for n in result.arm.values):
        ends = ", ".join(f"{label} {at_end(result, name, q)}" for q, label in _SHORT.items())
        loss = result["validation_loss"].sel(arm=name).isel(record=-1).values
        against = "" if name == "guo-aux" else f", loss minus guo-aux {interval(loss - base)}"
        said.append(f"{name}: {ends}{against}")
    return drawn, f"At the end: {'; '.join(said)}."


_SHORT = {"expert_overlap": "overlap", "silhouette": "silhouette", "max_violation": "MaxVio"}
