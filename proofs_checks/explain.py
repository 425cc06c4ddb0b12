"""One claim in full, as text for a terminal."""

import textwrap
from collections.abc import Iterator

import numpy as np

from .ledger import MEANING, Verdict
from .record import Record, slack

WIDTH = 100
BINS = 10


def explain(of: Record) -> str:
    """Statement, verdict, witness, and each method with its steps and controls; a plot of slack where there is one."""
    return "\n".join(_lines(of))


def _lines(of: Record) -> Iterator[str]:
    yield of["id"]
    yield from _field("claim", of["words"])
    yield from _field("in symbols", of["statement"])
    yield from _field("source", of["source"])
    for assumption in of["assumptions"]:
        yield from _field("assumed", assumption)
    for function in of["functions"]:
        yield from _field("compared with", function)
    for each in of["numbers"]:
        yield from _field("numbers", f"{each['of'].removeprefix('himoe_theory.')}, {each['for']}")
    yield from _field("verdict", f"{of['verdict']} {of['sizes']}".strip() + f". {MEANING[Verdict(of['verdict'])]}")
    if not of["as_recorded"]:
        yield from _field("RECORDED", of["recorded"])
    if of["failure"]:
        yield from _field("FAILURE", of["failure"])
    if of["witness"]:
        yield from _field("witness", of["witness"])
    if of["correction"]:
        yield from _field("true instead", of["correction"]["words"])
        yield from _field("in symbols", of["correction"]["statement"])
    if of["remark"]:
        yield from _field("remark", of["remark"])
    for number, finding in enumerate(of["findings"], start=1):
        yield ""
        scope = f" ({finding['scope']})" if finding["scope"] else ""
        counts = "" if finding["counts"] else "; DOES NOT COUNT: it must have controls, and all must be refuted"
        title = f"{number}. {finding['method']}, of the statement {finding['of']}: {finding['outcome']}{scope}{counts}"
        yield from textwrap.wrap(title, WIDTH, subsequent_indent="   ")
        for step in finding["steps"]:
            yield from textwrap.wrap(f"- {step}", WIDTH, initial_indent="   ", subsequent_indent="     ")
        for control in finding["controls"]:
            answer = "answered rightly" if control["passed"] else "ANSWERED WRONGLY"
            yield from textwrap.wrap(
                f"control, {control['variant']}: {answer}", WIDTH, initial_indent="   ", subsequent_indent="     "
            )
    points = slack(of)
    if points:
        yield from _histogram(points)


def _field(name: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, WIDTH, initial_indent=f"  {name + ':':15}", subsequent_indent=" " * 17)


def _histogram(points: dict[str, list[float]]) -> Iterator[str]:
    """How often the search met which ratio of left to right side."""
    left, right = np.asarray(points["left"]), np.asarray(points["right"])
    ratios = left[right > 0] / right[right > 0]
    counts, edges = np.histogram(ratios, BINS, (0.0, max(1.0, float(ratios.max(initial=1.0)))))
    yield ""
    yield f"left / right side at {ratios.size} points of the search (1 is tight):"
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        yield f"  {low:5.2f} to {high:5.2f} {'█' * round(50 * count / max(1, counts.max()))} {count}"
