"""Two panels of figure 11: scores that meet a tie under hard counts, and how far steps are from theory there (D10)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from .. import style

ORDER_BOUND = 0.1
"""Largest difference of the fitted order of the error in the step from theory's."""
MISCOUNT_BOUND = 2.0
"""Most steps by which the count of the first expert differs from theory while the two slide, for any size of steps."""
_COLOURS, _MARKS = (style.DARK, style.ACCENT, style.MIDDLE), "os^"


def order_error(result: xr.Dataset) -> float:
    """Largest difference of a fitted order from theory."""
    return float(np.abs(result["order"] - result["predicted_order"]).max())


def miscounted(result: xr.Dataset) -> float:
    """Largest difference from theory of the number of steps that count the first expert while the two slide."""
    return float((np.abs(result["share"] - result["predicted_share"]) * result["slid"] / result.step).max())


def paths(axes: Axes, result: xr.Dataset) -> None:
    """Difference of the scores over time: theory, the largest steps and the smallest."""
    time, steps = result.time.values, result.step.values
    every = max(1, len(time) // 25)
    for case, colour, mark in zip(result.case.values, _COLOURS, _MARKS, strict=False):
        one = result.sel(case=case)
        # No step from above the tie ends lower, none from below higher.
        low, high = (steps.max() * one["approach"].sel(side=side) for side in ("above", "below"))
        axes.fill_between(time, low, high, color=style.LIGHT, lw=0, zorder=0)
        axes.plot(time, one["predicted"], "-", color=style.MIDDLE, lw=1.1)
        axes.plot(time, one["measured"].sel(step=steps.max()), "-", color=colour, lw=0.6)
        fine = one["measured"].sel(step=steps.min())
        axes.plot(time[::every], fine[::every], mark, color=colour, ms=3.4, mfc="white", label=str(case))
    axes.set(xlabel="time: steps times their size", ylabel="lead of the first expert's score")
    told = f"marks: steps of {steps.min():.1g}, thin: of {steps.max():.1g}\ngrey: where the latter may slide"
    style.note(axes, 0.97, 0.04, told, ha="right")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.14))


def distances(axes: Axes, result: xr.Dataset) -> None:
    """Largest distance from theory against the step, beside its order."""
    steps, order = result.step.values, float(result["predicted_order"])
    for case, colour, mark in zip(result.case.values, _COLOURS, _MARKS, strict=False):
        one = result.sel(case=case)
        label = f"{case}; order {float(one['order']):.2f}"
        axes.loglog(steps, one["distance"], mark, color=colour, ms=4, mfc="white", label=label)
        # Theory gives the order and no factor: the line is laid through the middle of the marks.
        factor = np.exp(np.log(one["distance"].values / steps**order).mean())
        axes.loglog(steps, factor * steps**order, "-", color=style.MIDDLE, lw=1.0, zorder=1)
    axes.set(xlabel="size of the steps", ylabel="largest distance of a score from theory")
    told = (
        f"lines: order {order:g}, off by at most {order_error(result):.2f};\n"
        f"steps that count the first while\nit slides, off by at most {miscounted(result):.1f}"
    )
    style.note(axes, 0.97, 0.04, told, ha="right")
    axes.legend(frameon=False, loc="upper left")


def told(result: xr.Dataset) -> str:
    """Orders, shares and steps miscounted, and whether they are within bounds."""
    finest = result.sel(step=result.step.min())
    shares = [
        f"{float(one['share']):.4f} (theory {float(one['predicted_share']):.4f}; {case})"
        for case in result.case.values
        if np.isfinite((one := finest.sel(case=case))["predicted_share"])
    ]
    orders = ", ".join(f"{order:.2f}" for order in result["order"].values)
    order, count = order_error(result) <= ORDER_BOUND, miscounted(result) <= MISCOUNT_BOUND
    return (
        f"The distance of steps from sliding motion is of order {orders} in their size, "
        f"{'within' if order else 'not within'} {ORDER_BOUND:g} of theory's {float(result['predicted_order']):g}. "
        f"While it slides the first expert is counted in a share of the steps of {float(finest.step):.1g} that is "
        f"{', '.join(shares)}; for no size of steps is that off by more than {miscounted(result):.1f} steps, "
        f"{'within' if count else 'not within'} {MISCOUNT_BOUND:g}."
    )
