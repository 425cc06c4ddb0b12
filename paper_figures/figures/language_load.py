"""Figure 17: the load coefficient in a language model: balance, quality, and where the theory puts the boundary."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from himoe_theory import dynamics
from simulations import Interval, interval

from .. import read, style

ALT = (
    "Three panels: CV of the loads and effective groups against the load coefficient, with the predicted boundaries as "
    "vertical lines, and validation loss against CV; with and without the regularisers, intervals over seeds."
)
_LOOKS = {
    "moge": {"marker": "o", "mfc": "white", "color": style.MIDDLE},
    "hi-moe": {"marker": "s", "mfc": style.DARK, "color": style.DARK},
}
_LABELS = {"cv": "CV of the expert loads", "effective_groups": "effective groups"}
_ZERO = 3e-5
"""Where α = 0 stands on the logarithmic axis."""


def alphas(result: xr.Dataset) -> list[float]:
    """Load coefficients, from the arms' names."""
    return sorted({float(str(name).split("α=")[1]) for name in result.arm.values})


def at_end(result: xr.Dataset, arm: str, alpha: float, quantity: str) -> Interval:
    """Mean and 95 % interval over seeds of the mean over layers at the end."""
    values = result[quantity].sel(arm=f"{arm} α={alpha:g}").isel(record=-1)
    return interval((values.mean("layer") if "layer" in values.dims else values).values)


def boundaries(result: xr.Dataset) -> tuple[float, float]:
    r"""Load coefficients that theory names (D1, frozen counts): where the common mode stops to grow,
    $\lambda_{intra} = \alpha K N / 2$, and where it stops to outgrow the strongest contrast between tokens, with
    $\kappa_0$ and $\kappa_c$ measured from the gates' inputs before training; the mean over layers and seeds."""
    fact = next(fact for name, fact in read.facts(result).items() if name.startswith("hi-moe"))
    experts, intra = len(fact.groups), fact.terms["intra_group_global"]
    routes = result["load"].isel(record=-1, arm=0).sum("expert").mean().item()
    common = dynamics.critical_load_frozen(intra, experts) / routes
    start = result.isel(record=0, arm=0)
    ratio = float((start["contrast_power"] / start["common_power"]).mean())
    return float(common), float(common) * (1 - ratio)


def draw(result: xr.Dataset) -> Figure:
    """CV and effective groups over α; loss over CV."""
    with style.context():
        figure = Figure(figsize=(9.6, 3.1), layout="constrained")
        cv, groups, trade = figure.subplots(1, 3)
        for axes, (quantity, label) in zip((cv, groups), _LABELS.items(), strict=True):
            for arm in _LOOKS:
                _over_alpha(axes, result, arm, quantity)
            for place, ls in zip(boundaries(result), ("--", ":"), strict=True):
                if place > 0:
                    axes.axvline(place, color=style.ACCENT, lw=1, ls=ls)
            axes.set_xscale("log")
            axes.set_xticks([_ZERO, *(a for a in alphas(result) if a)], ["0", *(f"{a:g}" for a in alphas(result) if a)])
            axes.minorticks_off()
            axes.set_xlabel("load coefficient α")
            axes.set_ylabel(label)
        for arm, look in _LOOKS.items():
            points = [(at_end(result, arm, a, "cv"), at_end(result, arm, a, "validation_loss")) for a in alphas(result)]
            trade.errorbar(
                [x.mean for x, _ in points], [y.mean for _, y in points],
                yerr=[np.nan_to_num(y.half_width) for _, y in points],
                lw=0.6, ms=4.5, elinewidth=0.6, label=arm, **look,
            )  # fmt: skip
        trade.set_xlabel("CV of the expert loads")
        trade.set_ylabel("validation loss (nats/byte)")
        trade.legend(frameon=False)
        style.letter((cv, groups, trade))
    return figure


def _over_alpha(axes: Axes, result: xr.Dataset, arm: str, quantity: str) -> None:
    found = [at_end(result, arm, alpha, quantity) for alpha in alphas(result)]
    axes.errorbar(
        [alpha or _ZERO for alpha in alphas(result)], [one.mean for one in found],
        yerr=[np.nan_to_num(one.half_width) for one in found], lw=0.8, ms=4.5, elinewidth=0.6, label=arm, **_LOOKS[arm],
    )  # fmt: skip


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; what happens at no load and beside the boundaries."""
    common, race = boundaries(result)
    drawn = (
        "Balance and quality of language models over the load coefficient, with Hi-MoE's regularisers and without; "
        f"means over layers, 95 % Student intervals over {result.sizes['seed']} seeds. Dashed: α at which the common "
        "mode stops to grow at uniform routing, 2λ/(KN); dotted: at which it stops to outgrow the strongest contrast "
        "between tokens, (1 − κ_c/κ_0) of that (none below 0), with both powers measured at the gates before training."
    )
    ends = "; ".join(
        f"{arm} at α = {alpha:g}: CV {at_end(result, arm, alpha, 'cv')}, effective groups "
        f"{at_end(result, arm, alpha, 'effective_groups')}, loss {at_end(result, arm, alpha, 'validation_loss')}"
        for arm in _LOOKS
        for alpha in (alphas(result)[0], alphas(result)[-1])
    )
    half = _half(result)
    second = f"and {race:.2g}" if race > 0 else "and none (contrasts are the stronger at any load)"
    seen = (
        f"Predicted boundaries: α = {common:.2g} {second}. Hi-MoE's CV falls to half of its largest value at "
        f"α ≈ {half:.2g}. {ends}."
    )
    return drawn, seen


def _half(result: xr.Dataset) -> float:
    """The smallest α of the grid from which Hi-MoE's CV stays below half of its largest; NaN if it never does."""
    cv = [at_end(result, "hi-moe", alpha, "cv").mean for alpha in alphas(result)]
    below = [i for i in range(len(cv)) if all(value < max(cv) / 2 for value in cv[i:])]
    return alphas(result)[below[0]] if below else float("nan")
