"""The card as a page that needs nothing but itself, and as JSON values."""

import base64
import dataclasses
from html import escape
from typing import Any

from himoe_theory.contract.page import as_json, section
from himoe_theory.plumbing.html import details, page, table

from ..regimes import DEFAULT
from . import picture
from .card import QUANTITIES, Card, Line
from .runs import MEANS

_HEADINGS = {
    "test_error": "test error",
    "gain": "G",
    "information": "label info",
    "cv": "hard CV",
    "cv_at_start": "at the start",
    "cv_floor": "floor",
}


def plain(card: Card) -> dict[str, Any]:
    """The card as plain values, for JSON."""
    return dataclasses.asdict(card) | {"contract": as_json(card.contract)}


def html(card: Card) -> str:
    """The whole document."""
    title = f"{card.name}: {card.kind}, screened"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><strong>{escape(card.contract.verdict)}</strong> {escape(_summary(card))}</p>",
        _picture(picture.quality_and_balance(card), "What was learned against how unevenly experts are used."),
        _picture(picture.over_coefficients(card), "Along the coefficient; lines without marks: what stands beside."),
        *(_runs(card, mean) for mean in MEANS),
        _legend(card),
        section(card.contract),
        details("source", table((), [(name, str(value)) for name, value in card.source.items()])),
    ]
    return page(title, "\n".join(parts))


def _summary(card: Card) -> str:
    """How the best coefficient fares beside the rivals, at either mean; a mean over seeds is all that ranks."""
    said = []
    for mean in MEANS:
        best = min(card.of(mean, screened=True), key=lambda line: line.quantities["test_error"][0])
        *rivals, null = card.of(mean, screened=False)
        beaten = ", ".join(line.arm for line in rivals if _clearly_below(best, line)) or "no rival"
        (error, width), (own, _) = best.quantities["test_error"], null.quantities["test_error"]
        said.append(
            f"At μ {mean:g} its least test error, of five coefficients, is {error:.3f} ± {width:.3f} at "
            f"{best.coefficient:g} (an untrained gate: {own:.3f}); clearly below {beaten}."
        )
    return " ".join(said)


def _clearly_below(one: Line, other: Line) -> bool:
    """Whether the 95 % intervals of the test errors do not meet."""
    (a, a_width), (b, b_width) = one.quantities["test_error"], other.quantities["test_error"]
    return a + a_width < b - b_width


def _picture(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    image = f"<img alt='{escape(caption)}' src='data:image/png;base64,{data}'>"
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _runs(card: Card, mean: float) -> str:
    heading = ("arm", *_HEADINGS.values(), "regime (seeds)", "balance (seeds)")
    lines = [*card.of(mean, screened=True), *card.of(mean, screened=False)]
    rows = [
        (line.arm, *(_cell(line, name) for name in _HEADINGS), *(_counts(found) for found in line.names.values()))
        for line in lines
    ]
    return f"<h2>Clusters, μ = {mean:g}</h2>{table(heading, rows)}"


def _cell(line: Line, name: str) -> str:
    value, width = line.quantities[name]
    return f"{value:.3f}" if width == 0 else f"{value:.3f} ± {width:.3f}"


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items(), key=lambda item: -item[1]))


def _legend(card: Card) -> str:
    rows = [(_HEADINGS[name], text) for name, text in QUANTITIES.items()]
    note = (
        f"Means and 95 % Student intervals over {card.seeds} seeds after {card.steps} steps of Adam; all arms see the "
        f"same data. Regimes: specialised from G {DEFAULT.specialised:g} on, partial from {DEFAULT.partial:g}; the "
        f"same arm with its gate left as it was drawn has G 0."
    )
    return f"<p>{escape(note)}</p>{details('columns', table((), rows))}"
