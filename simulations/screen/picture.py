"""The pictures of a card, as PNG bytes: no pyplot, no global state."""

import io
import itertools
from collections.abc import Sequence
from typing import Any

from .card import Card, Line
from .runs import MEANS, UNTRAINED

_OWN, _RIVAL, _NULL = "#0b5394", "#b45f06", "#666666"
_MARKERS, _LINES = "sD^vP", ("-", "--", "-.", ":", (0, (1, 3)))


def over_coefficients(card: Card) -> bytes:
    """Test error and CV along the coefficient, at either mean; what stands beside it as lines with names."""
    return _drawn(card, (("test_error", "test error"), ("cv", "hard CV")))


def quality_and_balance(card: Card) -> bytes:
    """G against the hard CV, one mark an arm, at either mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    for axes, mean in zip(figure.subplots(1, 2, sharey=True), MEANS, strict=True):
        axes.axhline(0.5, color=_NULL, linewidth=0.6, linestyle=":")
        own = card.of(mean, screened=True)
        _bars(axes, own, color=_OWN, fmt="o-", label=card.name)
        for line in own:
            at = line.quantities["cv"][0], line.quantities["gain"][0]
            axes.annotate(f"{line.coefficient:g}", at, xytext=(4, 4), textcoords="offset points", fontsize=7)
        for marker, line in zip(itertools.cycle(_MARKERS), card.of(mean, screened=False), strict=False):
            colour = _NULL if line.arm == UNTRAINED else _RIVAL
            _bars(axes, [line], color=colour, fmt=marker, label=line.arm)
        axes.set_title(f"clusters, μ = {mean:g}", fontsize="medium", loc="left")
        axes.set_xlabel("hard CV at the end")
    figure.axes[0].set_ylabel("G (dotted: specialised from 0.5 on)")
    figure.legend(*figure.axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return _png(figure)


def _bars(axes: Any, lines: Sequence[Line], **how: Any) -> None:
    x, y = (zip(*[line.quantities[name] for line in lines], strict=True) for name in ("cv", "gain"))
    (x, x_width), (y, y_width) = x, y
    axes.errorbar(x, y, xerr=x_width, yerr=y_width, markersize=5, linewidth=1, elinewidth=0.7, **how)


def _drawn(card: Card, quantities: Sequence[tuple[str, str]]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 2.9 * len(quantities)), layout="constrained")
    table = figure.subplots(len(quantities), len(MEANS), sharex=True, squeeze=False)
    for row, (name, label) in zip(table, quantities, strict=True):
        for axes, mean in zip(row, MEANS, strict=True):
            own = card.of(mean, screened=True)
            values, widths = zip(*[line.quantities[name] for line in own], strict=True)
            place = range(len(own))
            axes.errorbar(place, values, yerr=widths, fmt="o-", color=_OWN, markersize=4, label=card.name)
            for style, line in zip(itertools.cycle(_LINES), card.of(mean, screened=False), strict=False):
                colour = _NULL if line.arm == UNTRAINED else _RIVAL
                axes.axhline(line.quantities[name][0], color=colour, linestyle=style, linewidth=1, label=line.arm)
            axes.set_xticks(list(place), [f"{line.coefficient:g}" for line in own])
        row[0].set_ylabel(label)
    for axes, mean in zip(table[0], MEANS, strict=True):
        axes.set_title(f"clusters, μ = {mean:g}", fontsize="medium", loc="left")
    for axes in table[-1]:
        axes.set_xlabel("coefficient")
    figure.legend(*table[0][-1].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return _png(figure)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=140)
    return file.getvalue()
