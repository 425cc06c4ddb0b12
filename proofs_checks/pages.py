"""The ledger as a page that reads like a referee's report."""

import base64
import collections
import io
import re
from collections.abc import Sequence
from html import escape
from xml.etree import ElementTree

import numpy as np
from latex2mathml.converter import convert
from matplotlib.figure import Figure

from himoe_theory.plumbing.html import details, page, table

from .ledger import MEANING, Verdict
from .record import Record, slack

_ELEMENTS = frozenset(
    "math mrow mi mn mo mtext mspace mstyle mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd "
    "menclose mpadded mphantom".split()
)
"""Of formulas."""


def ledger_page(records: Sequence[Record], note: str = "") -> str:
    """A whole document: how verdicts are reached, an overview, each claim in full. `note`: HTML, after the heading."""
    counts = collections.Counter(each["verdict"] for each in records)
    meanings = [(str(v), str(counts[v]), MEANING[v]) for v in Verdict]
    different = [each["id"] for each in records if not each["as_recorded"]]
    warning = f"<p><strong>Not as recorded: {escape(', '.join(different))}.</strong></p>" if different else ""
    parts = [
        f"<h1>The claims ledger: {len(records)} claims, checked by machine</h1>{note}{warning}",
        "<p>Verdicts follow from evidence. A method counts only if it also answered rightly on variants of the claim "
        "whose answer is known (controls). Tightness is the largest ratio of left to right side that a directed search "
        "reached: 1 is tight.</p>",
        table(("verdict", "claims", "what it means"), meanings),
        "<section id='overview'><h2>Overview</h2>",
        _overview(records),
        "</section>",
        *(_claim(each) for each in records),
    ]
    return page("himoe-theory: the claims ledger", "\n".join(parts))


def _overview(records: Sequence[Record]) -> str:
    rows = "".join(
        f"<tr><th scope=row><a href='#{_place(each)}'>{escape(each['id'])}</a></th><td>{_mixed(each['words'])}</td>"
        f"<td>{escape(each['verdict'])}</td><td>{_ratio(each)}</td></tr>"
        for each in records
    )
    head = "".join(f"<th scope=col>{cell}</th>" for cell in ("claim", "in words", "verdict", "tightness"))
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _claim(of: Record) -> str:
    verdict = f"{of['verdict']} {of['sizes']}".strip()
    facts = [("verdict", f"<strong>{escape(verdict)}</strong>"), ("source", escape(of["source"]))]
    facts += [("assumed", _mixed(assumption)) for assumption in of["assumptions"]]
    if of["failure"]:
        facts.append(("failure", escape(of["failure"])))
    if of["witness"]:
        facts.append(("witness", escape(of["witness"])))
    if of["correction"]:
        words, statement = of["correction"]["words"], of["correction"]["statement"]
        facts.append(("true instead", f"{_mixed(words)}<br>{math(statement)}"))
    if of["tightness"] is not None:
        facts.append(("tightness", _ratio(of)))
    if of["remark"]:
        facts.append(("remark", _mixed(of["remark"])))
    facts += [("compared with", f"<code>{escape(name)}</code>") for name in of["functions"]]
    facts += [("numbers", f"<code>{escape(each['of'])}</code>, {escape(each['for'])}") for each in of["numbers"]]
    rows = "".join(f"<tr><th scope=row>{name}</th><td>{text}</td></tr>" for name, text in facts)
    evidence = details(f"Evidence: {', '.join(of['methods']) or 'none'} ({of['seconds']:.1f} s)", _evidence(of))
    return (
        f"<section id='{_place(of)}'><h2>{escape(of['id'])}</h2><p>{_mixed(of['words'])}</p>"
        f"<div class=wide>{math(of['statement'], block=True)}</div><div class=wide><table>{rows}</table></div>"
        f"{evidence}{_plot(of)}</section>"
    )


def _evidence(of: Record) -> str:
    parts = []
    for finding in of["findings"]:
        scope = f" ({escape(finding['scope'])})" if finding["scope"] else ""
        counts = "" if finding["counts"] else " <strong>Does not count.</strong>"
        parts.append(f"<p><strong>{escape(finding['method'])}</strong>, of the statement {escape(finding['of'])}: ")
        parts.append(f"{escape(finding['outcome'])}{scope}.{counts}</p><ul>")
        parts += [f"<li>{_mixed(step)}</li>" for step in finding["steps"]]
        parts.append("</ul>")
        rows = [(c["variant"], "answered rightly" if c["passed"] else "ANSWERED WRONGLY") for c in finding["controls"]]
        if rows:
            parts.append(table(("control", ""), rows))
    return "".join(parts)


def _plot(of: Record) -> str:
    """Left against right side, if a search visited points."""
    points = slack(of)
    if not points:
        return ""
    left, right = np.asarray(points["left"]), np.asarray(points["right"])
    figure = Figure(figsize=(3.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(right, left, ".", ms=3, color="#1f4e79")
    ends = [0, float(right.max())]
    axes.plot(ends, ends, color="black", lw=0.8)
    axes.set_xlabel("right side")
    axes.set_ylabel("left side")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    image = base64.b64encode(file.getvalue()).decode()
    alt = f"{escape(of['id'])}: left against right side at {left.size} points; the line is equality"
    return f"<img class=small alt='{alt}' src='data:image/png;base64,{image}'>"


def _place(of: Record) -> str:
    return re.sub(r"[^a-z0-9]+", "-", of["id"].lower())


def _ratio(of: Record) -> str:
    return "" if of["tightness"] is None else f"{of['tightness']:.4g}"


def math(latex: str, block: bool = False) -> str:
    """MathML, which browsers draw themselves; the source where it cannot be read, or would bring in anything else."""
    try:
        converted = convert(latex, display="block" if block else "inline")
        # The converter passes text on as it is. What is no XML ends here, too.
        plain = all(_plain(element) for element in ElementTree.fromstring(converted).iter())
    except Exception:  # the converter has no common error of its own; the source is still readable
        plain, converted = False, ""
    return converted if plain else f"<code>{escape(latex)}</code>"


def _plain(element: ElementTree.Element) -> bool:
    """Whether it is an element of a formula that neither runs, loads nor leads to anything."""
    name = element.tag.removeprefix("{http://www.w3.org/1998/Math/MathML}")
    return name in _ELEMENTS and not any(re.match("on|style|.*(href|src)", key) for key in element.attrib)


def _mixed(text: str) -> str:
    """Text with formulas between dollar signs."""
    parts = re.split(r"\$([^$]+)\$", text)
    return "".join(math(part) if odd % 2 else escape(part) for odd, part in enumerate(parts))
