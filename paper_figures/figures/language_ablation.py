"""Figure 20: Hi-MoE's Table 3 as printed and as it comes out here, and the test of why it differs (D11)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations import Interval
from simulations.arms import INTER, INTRA

from .. import printed, read, style
from .language import BASELINE, against

ALT = (
    "Three dot plots with a row for every arm, differences from MoGE: loss and CV of the loads, ours with intervals "
    "beside the printed ones, and effective groups with the side that theory predicts."
)
MEASURES = {"quality": "validation_loss", "cv": "cv"}
"""Printed column → our measurement."""
LABELS = {"validation_loss": "loss", "cv": "CV", "effective_groups": "effective groups"}
FULL, SWAPPED = "hi-moe", "hi-moe-swapped"


def rows(result: xr.Dataset) -> list[str]:
    """The printed rows but the first, and the arm that tests why."""
    return [name for name in (*printed.HIMOE_TABLE3["cv"], SWAPPED) if name in result.arm.values and name != BASELINE]


def printed_difference(column: str, arm: str) -> float:
    """Of the printed means; NaN for an arm that has none."""
    values = printed.HIMOE_TABLE3[column]
    return values[arm].mean - values[BASELINE].mean if arm in values else float("nan")


def verdict(found: Interval, expected: float) -> str:
    """`the same`, `opposite`, or `undecided`: the sign of a difference against the expected one, where clear."""
    if not read.excludes_zero(found) or expected == 0:
        return "undecided"
    return "the same" if np.sign(found.mean) == np.sign(expected) else "opposite"


def collapses(result: xr.Dataset, arm: str) -> bool | None:
    r"""Whether D11 lets tokens settle on few groups: $\lambda_{inter}/\lambda_{intra} \le 1/S$, which
    $\|q_g\|^2 \ge 1/S$ then always exceeds. It does not where the ratio is at least 1 or there is no intra term.
    `None` between, where it depends on q."""
    fact = read.facts(result)[arm]
    intra, inter = fact.terms.get(INTRA, 0.0), fact.terms.get(INTER, 0.0)
    size = int(np.bincount(fact.groups).min())
    if intra == 0 or inter >= intra:
        return False
    return True if inter <= intra / size else None


def draw(result: xr.Dataset) -> Figure:
    """Differences from the baseline, printed and ours."""
    names = rows(result)
    with style.context():
        figure = Figure(figsize=(8.6, 1.3 + 0.3 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(LABELS), sharey=True)
        for axes, (quantity, label) in zip(panels, LABELS.items(), strict=True):
            _panel(axes, result, names, quantity)
            axes.set_xlabel(f"{label} minus {BASELINE}")
        for axes, column in zip(panels, MEASURES, strict=False):
            places = [printed_difference(column, name) for name in names]
            axes.plot(places, np.arange(len(names)) + 0.22, ls="", marker="D", ms=4, mfc="white", color=style.ACCENT)
        for row, name in enumerate(names):
            side = {True: "fewer", False: "not fewer", None: "depends on q"}[collapses(result, name)]
            style.note(panels[-1], 1.02, 1 - (row + 0.5) / len(names), f"theory: {side}", va="center")
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        handles = [panels[0].plot([], [], **look)[0] for look in (_OURS, _PRINTED)]
        figure.legend(
            handles, ["here, 95 % interval", "as printed"], loc="outside upper center", ncols=2, frameon=False
        )
    return figure


_OURS = {"ls": "", "marker": "o", "ms": 4.5, "color": style.DARK}
_PRINTED = {"ls": "", "marker": "D", "ms": 4, "mfc": "white", "color": style.ACCENT}


def _panel(axes: Axes, result: xr.Dataset, names: list[str], quantity: str) -> None:
    for row, name in enumerate(names):
        found = against(result, name, quantity)
        axes.errorbar(found.mean, row, xerr=np.nan_to_num(found.half_width), capsize=2, elinewidth=1.0, **_OURS)
    axes.axvline(0, color=style.MIDDLE, lw=0.7, zorder=0)
    style.rows(axes)


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; signs against the printed ones, and the test of the reason."""
    drawn = (
        f"Differences from {BASELINE} at equal seeds ({result.sizes['seed']}), means with 95 % Student intervals, and "
        "those of Hi-MoE's Table 3 as printed (diamonds; nats a token of another text and model: signs compare, sizes "
        "do not). Right: what the signs of the coefficients predict for the groups a token uses (D11): few if "
        "λ_inter/λ_intra ≤ 1/S, not fewer from 1 on or without the intra term."
    )
    said = [_compared(result, column) for column in MEASURES]
    return drawn, " ".join([*said, _predicted(result), _tested(result)])


def _compared(result: xr.Dataset, column: str) -> str:
    names = [name for name in rows(result) if name in printed.HIMOE_TABLE3[column]]
    quantity = MEASURES[column]
    found = {name: against(result, name, quantity) for name in names}
    wanted = {name: printed_difference(column, name) for name in names}
    verdicts = [verdict(found[name], wanted[name]) for name in names]
    counted = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("the same", "opposite", "undecided"))
    spread = printed.HIMOE_TABLE3[column][BASELINE].spread
    within = sum(abs(value) <= spread for value in wanted.values())
    listed = "; ".join(
        f"{name} printed {wanted[name]:+.3f}, here {read.told(found[name], sign=True)}" for name in names
    )
    return (
        f"{LABELS[quantity]} minus {BASELINE}: {listed}. Signs against the printed ones: {counted} of {len(names)}; "
        f"{within} of the printed differences are within the printed standard deviation, {spread:g}."
    )


def _predicted(result: xr.Dataset) -> str:
    sides = {name: collapses(result, name) for name in rows(result)}
    decided = [name for name, side in sides.items() if side is not None]
    found = {name: against(result, name, "effective_groups") for name in decided}
    fewer = {name: read.excludes_zero(one) and one.mean < 0 for name, one in found.items()}
    right = [name for name in decided if fewer[name] == sides[name]]
    few = [f"{name} {read.told(found[name], sign=True)}" for name in decided if fewer[name]]
    return (
        f"Clearly fewer effective groups: {read.listed(few)}; as predicted in {len(right)} of {len(decided)} arms. "
        "So the intra term does not only sharpen choices within groups: it outweighs the inter term between them."
        if len(right) == len(decided)
        else f"Clearly fewer effective groups: {read.listed(few)}; as predicted in {len(right)} of {len(decided)} arms."
    )


def _tested(result: xr.Dataset) -> str:
    told = []
    for quantity, label in LABELS.items():
        found = against(result, SWAPPED, quantity, FULL)
        decided = "the interval excludes 0" if read.excludes_zero(found) else "undecided"
        told.append(f"{label} {read.told(found, sign=True)} ({decided})")
    groups = against(result, SWAPPED, "effective_groups", FULL)
    held = "returns" if read.excludes_zero(groups) and groups.mean > 0 else "does not clearly return"
    return f"With the two weights swapped the use of the groups {held}: {SWAPPED} minus {FULL}, {', '.join(told)}."


def table(result: xr.Dataset) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row an arm: printed and own differences, and what theory says of the groups."""
    heading = (
        "arm",
        *(f"{LABELS[m]}, {who}" for m in MEASURES.values() for who in ("printed", "here")),
        "groups, here",
    )
    return heading, [_row(result, name) for name in rows(result)]


def _row(result: xr.Dataset, name: str) -> tuple[str, ...]:
    cells = [name]
    for column, quantity in MEASURES.items():
        told = printed_difference(column, name)
        cells += ["" if np.isnan(told) else f"{told:+.3f}", read.told(against(result, name, quantity), sign=True)]
    return (*cells, read.told(against(result, name, "effective_groups"), sign=True))
