"""The whole ledger: every claim comes out as recorded, by methods that can fail."""

import re

import pytest

from himoe_theory.sources import SOURCES
from proofs_checks.claims import CLAIMS
from proofs_checks.kept import KEPT
from proofs_checks.ledger import DEEP, Effort, Outcome, Verdict, examine
from proofs_checks.pages import math

IDS = [claim.id for claim in CLAIMS]
QUICK = Effort(starts=24, steps=60, examples=15)
"""Enough for every control; the command and the figures search longer, `make test-deep` longest."""


@pytest.mark.parametrize("claim", CLAIMS, ids=IDS)
def test_the_verdict_is_the_recorded_one(claim):
    result = examine(claim, QUICK)
    wrong = [(f.method, c.variant) for f in result.void for c in f.controls if not c.passed]
    assert not result.failure
    assert not result.void, f"controls answered wrongly: {wrong}"
    assert result.verdict is claim.recorded
    if result.verdict in (Verdict.REFUTED, Verdict.CORRECTED):
        assert result.witness


@pytest.mark.deep
@pytest.mark.parametrize("claim", CLAIMS, ids=IDS)
def test_longer_searches_come_to_the_same_verdict(claim):
    assert examine(claim, DEEP).as_recorded


def test_there_are_as_many_claims_as_promised_and_ids_are_unique():
    assert len(CLAIMS) >= 80
    assert len(set(IDS)) == len(IDS)
    assert all(re.fullmatch(r"[a-z0-9-]+/[a-z0-9._-]+", name) for name in IDS)


@pytest.mark.parametrize("claim", CLAIMS, ids=IDS)
def test_a_claim_says_what_a_reader_needs(claim):
    keys = re.findall(r"\[([a-z0-9-]+)\]", claim.source)
    assert keys
    assert set(keys) <= set(SOURCES)
    assert claim.words.endswith(".")
    for statement in (claim.statement, *([claim.correction.statement] if claim.correction else [])):
        assert "<code>" not in math(statement), f"not readable as LaTeX: {statement}"
    assert all(f.__module__.startswith("himoe_theory") for f in claim.functions)


@pytest.mark.parametrize("claim", CLAIMS, ids=IDS)
def test_a_claim_says_for_which_numbers_its_functions_keep_it(claim):
    """Of functions that choose, which a tie or a rounding can turn round, the claim itself must say it."""
    unknown = [f.__qualname__ for f in claim.functions if f not in KEPT]
    assert not unknown, f"no `Numbers` in proofs_checks/kept.py for {unknown}"
    chooses = [f for f in claim.functions if KEPT[f].call is not None and not KEPT[f].numbers.roundings]
    stands = claim.recorded is not Verdict.REFUTED and not claim.id.startswith("numbers/")
    assert not (chooses and stands) or claim.numbers is not None


def test_what_is_kept_is_attacked_or_says_why_not():
    attacked = {f for claim in CLAIMS if claim.id.startswith("numbers/") for f in claim.functions}
    assert attacked == set(KEPT)
    for function, kept in KEPT.items():
        known = kept.call is None
        assert known is (not kept.numbers.types or kept.numbers.types == ("any type",)), function


def test_corrections_stand_next_to_what_is_false_and_nowhere_else():
    for claim in CLAIMS:
        assert (claim.correction is not None) is (claim.recorded is Verdict.CORRECTED), claim.id


def test_what_cannot_be_verified_says_why():
    for claim in CLAIMS:
        if claim.recorded is Verdict.UNVERIFIABLE:
            (finding,) = claim.check(Effort())
            assert finding.outcome is Outcome.UNVERIFIABLE
            assert len(finding.steps[0]) > 40
