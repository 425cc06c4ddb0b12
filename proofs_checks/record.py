"""A claim with its evidence as plain data: what is written to JSON, stored, and shown."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from .kept import numbers_of
from .ledger import Finding, Result, Slack

Record = Mapping[str, Any]
"""One claim: `id`, `source`, `statement`, `words`, `assumptions`, `functions`, `numbers`, `verdict`, `sizes`,
`recorded`, `as_recorded`, `methods`, `tightness`, `witness`, `correction`, `remark`, `seconds`, `failure` and, in full,
`findings`."""


def record(result: Result) -> Record:
    """The result as numbers, strings, lists and dictionaries."""
    claim, tightness = result.claim, result.tightness
    correction = claim.correction
    return {
        "id": claim.id,
        "source": claim.source,
        "statement": claim.statement,
        "words": claim.words,
        "assumptions": list(claim.assumptions),
        "functions": [f"{f.__module__}.{f.__qualname__}" for f in claim.functions],
        "numbers": [{"of": of, "for": str(numbers)} for of, numbers in numbers_of(claim)],
        "verdict": str(result.verdict),
        "sizes": result.sizes,
        "recorded": str(claim.recorded),
        "as_recorded": result.as_recorded,
        "methods": list(dict.fromkeys(f.method for f in (*result.findings, *result.corrected) if f.counts)),
        "tightness": None if tightness is None else float(tightness),
        "witness": result.witness,
        "correction": {"statement": correction.statement, "words": correction.words} if correction else None,
        "remark": claim.remark,
        "seconds": round(result.seconds, 3),
        "failure": result.failure,
        "findings": [_finding(f, "as stated") for f in result.findings]
        + [_finding(f, "as corrected") for f in result.corrected],
    }


def _finding(finding: Finding, of: str) -> dict[str, Any]:
    return {
        "of": of,
        "part": finding.part,
        "method": finding.method,
        "outcome": str(finding.outcome),
        "scope": finding.scope,
        "steps": list(finding.steps),
        "controls": [dataclasses.asdict(control) for control in finding.controls],
        "counts": finding.counts,
        "witness": finding.witness,
        "tightness": None if finding.tightness is None else float(finding.tightness),
        "slack": finding.slack and _slack(finding.slack),
    }


def _slack(slack: Slack) -> dict[str, list[float]]:
    """Six digits are enough to plot."""
    return {
        side: [float(f"{value:.6g}") for value in np.asarray(getattr(slack, side), dtype=np.float64)]
        for side in ("left", "right")
    }


def slack(of: Record) -> dict[str, list[float]] | None:
    """Left and right sides of the standing statement that a search visited: of the corrected one, if corrected."""
    standing = "as corrected" if of["verdict"] == "corrected" else "as stated"
    return next((f["slack"] for f in of["findings"] if f["of"] == standing and f["slack"] and f["counts"]), None)
