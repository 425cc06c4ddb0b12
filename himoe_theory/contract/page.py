"""Contracts as one page, and as JSON values."""

from collections.abc import Sequence
from html import escape
from typing import Any

from ..plumbing.html import details, page, table
from .finding import Contract, Finding, Outcome


def contract_page(contracts: Sequence[Contract]) -> str:
    """A whole document that needs nothing but itself."""
    names = ", ".join(each.name for each in contracts)
    body = "\n".join(section(each) for each in contracts)
    return page(f"Contract: {names}", f"<h1>Contract of {escape(names)}</h1>\n{body}")


def section(contract: Contract) -> str:
    """One contract, as a section of a page."""
    rows = [(each.name, str(each.outcome), _standing(each), _told(each)) for each in contract.findings]
    parts = [
        f"<section><h2>{escape(contract.name)}: {contract.kind}</h2>",
        f"<p><strong>{escape(contract.verdict)}</strong></p>",
        table(("property", "outcome", "claim", "what was found"), rows),
    ]
    for each in contract.tables:
        parts.append(f"<h3>{escape(each.title)}</h3>{table(each.heading, each.rows)}<p>{escape(each.note)}</p>")
    parts.append(details("What it says of itself", table((), contract.about)))
    return "\n".join([*parts, "</section>"])


def _standing(finding: Finding) -> str:
    return "" if finding.outcome is Outcome.DOES_NOT_APPLY else finding.standing


def _told(finding: Finding) -> str:
    return f"{finding.text}. Smallest example: {finding.example}" if finding.example else finding.text


def as_json(contract: Contract) -> dict[str, Any]:
    """The same as JSON values."""
    findings = [
        {
            "property": each.name,
            "outcome": str(each.outcome),
            "claimed": each.claimed,
            "broken": each.broken,
            "text": each.text,
            "example": each.example,
        }
        for each in contract.findings
    ]
    tables = [
        {"title": t.title, "heading": list(t.heading), "rows": [list(row) for row in t.rows], "note": t.note}
        for t in contract.tables
    ]
    return {
        "name": contract.name,
        "kind": contract.kind,
        "about": dict(contract.about),
        "holds": not contract.broken,
        "findings": findings,
        "tables": tables,
    }
