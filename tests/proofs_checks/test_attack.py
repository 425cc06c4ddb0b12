"""Attacks must find what is planted, and pass over what they cannot decide."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

from proofs_checks.attack import Attack, attack, attack_on
from proofs_checks.ledger import Claim, Control, Effort, Finding, Outcome, Verdict, examine
from proofs_checks.notation import N, e, p, t
from proofs_checks.sums import total
from proofs_checks.symbolic import equation, identity

ROOT = Path(__file__).parents[2]
X, Y = sp.symbols("x y", positive=True)


def sides(values):
    """x^2 against x^2, but for x above 3: a mistake that the start does not show."""
    x = values["x"]
    return np.asarray((x**2).sum()), np.asarray((x**2).sum() + np.maximum(x - 3, 0).sum())


def test_a_difference_away_from_the_start_is_found_and_shrunk():
    planted = Attack({"x": np.array([0.5, 0.7]), "B": np.array([0.0, 1.0])}, sides, 1e-9)
    left, right = planted.sides(planted.start)
    assert left == right
    found = planted.carry_out(Effort(examples=300))
    assert found.outcome is Outcome.VIOLATED
    assert found.counts
    assert found.witness.startswith("at x = ")
    assert "B" not in found.witness  # zeros and ones are not varied


def test_equal_sides_are_not_told_apart():
    same = Attack({"x": np.array([0.5, 0.7])}, lambda values: (sides(values)[0],) * 2, 1e-9)
    found = same.carry_out(Effort(examples=30))
    assert found.outcome is Outcome.NO_VIOLATION
    assert found.counts
    assert found.steps == ("At none do the sides differ by more than 1e-09 of the larger one.",)


def test_an_attack_that_cannot_notice_a_wrong_side_does_not_count():
    blind = Attack({"x": np.array([0.5])}, lambda values: (np.asarray(np.nan), np.asarray(np.nan)), 1e-9)
    assert not blind.carry_out(Effort(examples=10)).counts


def test_whole_numbers_leave_nothing_to_vary():
    assert attack({"n": np.asarray(3), "B": np.array([0.0, 1.0])}, sides, 1e-9) is None


def test_scalar_identities_are_evaluated_beyond_cancellation():
    target = attack_on((X + Y) ** 8 - sp.expand((X + Y) ** 8) + X, X)
    assert target is not None
    assert target.carry_out(Effort(examples=50)).outcome is Outcome.NO_VIOLATION
    wrong = attack_on(sp.sqrt((X - 2) ** 2), 2 - X)  # holds at the start, below 2
    assert wrong is not None
    assert wrong.carry_out(Effort(examples=100)).outcome is Outcome.VIOLATED


@pytest.mark.parametrize("left", [sp.Function("f")(X), sp.log(-X)])
def test_what_has_no_numbers_is_not_attacked(left):
    assert attack_on(left, left) is None


def test_proofs_hand_out_their_attacks_and_examine_carries_them_out():
    row = total(p[t, e], e)
    proofs = [identity(row * row, row**2), equation((X + Y) ** 2, X**2 + 2 * X * Y + Y**2)]
    assert all(proof.attack is not None for proof in proofs)
    result = examine(_claim(proofs), Effort(examples=10))
    assert [finding.method for finding in result.findings[1::2]] == ["directed search"] * 2
    assert result.verdict is Verdict.PROVED


def test_an_attack_that_succeeds_refutes_what_was_called_proved():
    mistaken = Finding("rewriting", Outcome.PROVED, (), (Control("sign", True),), part="first")
    mistaken = dataclasses.replace(mistaken, attack=Attack({"x": np.array([2.9])}, sides, 1e-9))
    result = examine(_claim([mistaken]), Effort(examples=300))
    assert result.verdict is Verdict.REFUTED
    assert {finding.part for finding in result.findings} == {"first"}


def _claim(findings):
    return Claim("a/b", "x", "x", "[himoe] eq. (1)", Verdict.PROVED, lambda effort: findings)


def test_sums_are_attacked_at_the_sizes_they_are_evaluated_at():
    proof = identity(total(p[t, e] * N, e), N * total(p[t, e], e))
    assert proof.attack is not None
    assert {name for name in proof.attack.start} >= {"p", "B"}


def test_a_search_leaves_nothing_behind(tmp_path, monkeypatch):
    """Hypothesis keeps what it knows of the modules in a folder `.hypothesis` where it is started."""
    monkeypatch.chdir(tmp_path)
    script = "import numpy; from proofs_checks.attack import find; print(find(lambda x: x[0] > 0.5, 1, 30, 1.0))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[1.]\n", "")
    assert os.listdir(tmp_path) == []
