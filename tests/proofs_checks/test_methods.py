"""Every method proves what is true, finds what is false, and is void when its controls fail."""

import dataclasses
import fractions

import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
import z3

from himoe_theory.objectives import intra_group
from proofs_checks.ledger import Control, Effort, Finding, Outcome, Verdict, judge
from proofs_checks.notation import NORMALISED, ONE_GROUP, B, N, e, g, j, p, t, through_softmax
from proofs_checks.precision import float64
from proofs_checks.search import measured, search
from proofs_checks.solvers import Problem, decide, reals
from proofs_checks.sums import total
from proofs_checks.symbolic import certificate, equation, for_sizes, identity, visibly_nonnegative
from proofs_checks.witnesses import exhaustive, reported, witness

SMALL = Effort(starts=8, steps=60, examples=30, seconds=5.0)


def failed(finding: Finding) -> list[str]:
    return [control.variant for control in finding.controls if not control.passed]


# SymPy


def test_a_true_identity_is_proved_and_each_assumption_is_needed():
    found = identity(total(B[g, e] * p[t, e], g, e), sp.S.One, assumptions=(NORMALISED, ONE_GROUP))
    assert found.outcome is Outcome.PROVED
    assert found.counts
    assert len(found.controls) == 4


def test_an_assumption_that_is_not_needed_fails_its_control():
    found = identity(total(p[t, e], e), sp.S.One, assumptions=(NORMALISED, ONE_GROUP))
    assert failed(found) == ["assumption left out: every expert is in exactly one group"]
    assert not found.counts


def test_a_false_identity_is_violated_with_values():
    found = identity(total(p[t, e], e) ** 2, total(p[t, e] ** 2, e))
    assert found.outcome is Outcome.VIOLATED
    assert "p = [[" in found.witness


def test_code_that_computes_something_else_is_noticed():
    square = total(p[t, e] ** 2, e)
    right = identity(square, square + 0, code=lambda d: (d["p"] ** 2).sum(axis=1))
    assert right.outcome is Outcome.PROVED
    with pytest.raises(AssertionError, match="himoe_theory computes"):
        identity(square, square, code=lambda d: 1.001 * (d["p"] ** 2).sum(axis=1))


def test_through_softmax_is_the_gradient_in_the_logits():
    def code(data):
        gradient = intra_group.intra_group_global_grad(jnp.log(data["p"]))
        return (len(data["p"]) * gradient).T  # free indices in the order of their names: e, t

    def sample(rng):
        return NORMALISED.impose({"p": rng.uniform(0.1, 1.0, (3, 5))})

    chain = through_softmax(lambda token, expert: -2 * p[token, expert], t, e)
    closed = -2 * p[t, e] * (p[t, e] - total(p[t, j] ** 2, j))
    with float64():
        found = identity(chain, closed, code=code, sample=sample)
    assert found.outcome is Outcome.PROVED


def test_a_certificate_must_be_visibly_non_negative():
    w = sp.IndexedBase("w", real=True)
    difference = N * total(w[e] ** 2, e) - total(w[e], e) ** 2
    squares = total((w[e] - w[j]) ** 2, e, j) / 2

    def sample(rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"w": rng.normal(size=5)}

    assert certificate(difference, squares, sample=sample).counts
    with pytest.raises(AssertionError, match="not visibly non-negative"):
        certificate(difference, difference + 0, sample=sample)


@pytest.mark.parametrize(
    ("expr", "visible"),
    [
        (p[t, e] * B[g, e], True),
        ((p[t, e] - p[t, j]) ** 2, True),
        ((p[t, e] - p[t, j]) ** 3, False),
        (p[t, e] - p[t, j], False),
        (-((p[t, e] - p[t, j]) ** 2), False),
        (sp.sqrt(sp.Symbol("z")) ** 2, False),
        ((1 + sp.I * p[t, e]) ** 2, False),
    ],
)
def test_visibly_nonnegative(expr, visible):
    assert visibly_nonnegative(expr) is visible


def test_identities_size_by_size():
    x, y = sp.symbols("x y", real=True)
    found = for_sizes("n = 2", [((x + y) ** 2, x**2 + 2 * x * y + y**2)])
    assert found.outcome is Outcome.PROVED_FOR_SIZES
    assert found.counts
    assert for_sizes("n = 2", [((x + y) ** 2, x**2 + y**2)]).outcome is Outcome.VIOLATED
    assert equation(sp.sin(x) ** 2 + sp.cos(x) ** 2, sp.S.One).outcome is Outcome.PROVED
    with pytest.raises(ValueError, match="`cases` must not be empty"):
        for_sizes("none", [])


# z3


def test_z3_decides_and_needs_its_controls():
    a, b = reals("a", 2)
    true = Problem("n = 2", [], 2 * (a**2 + b**2) >= (a + b) ** 2, {"1 for 2": ([], a**2 + b**2 >= (a + b) ** 2)})
    assert decide([true], SMALL).counts
    false = dataclasses.replace(true, claim=a**2 + b**2 >= (a + b) ** 2)
    found = decide([false], SMALL)
    assert found.outcome is Outcome.VIOLATED
    assert "a0 = " in found.witness
    toothless = dataclasses.replace(true, false={"true after all": ([], a**2 >= 0)})
    assert not decide([toothless], SMALL).counts


def test_a_timeout_supports_and_never_proves(monkeypatch):
    monkeypatch.setattr(z3.Solver, "check", lambda self, *assumed: z3.unknown)
    a, b = reals("a", 2)
    found = decide([Problem("n = 2", [], a**2 + b**2 >= 0, {})], SMALL)
    assert found.outcome is Outcome.NO_VIOLATION
    assert "gave up within 5 s for n = 2" in found.steps[0]


# Search


def squares(point):
    return jnp.square(point.sum()), point.size * jnp.square(point).sum()


def test_search_reaches_the_supremum_and_reports_it():
    with float64():
        found = search(squares, 3, SMALL, false_factor=0.9, what="three numbers")
    assert found.outcome is Outcome.NO_VIOLATION
    assert found.counts
    assert found.tightness == pytest.approx(1, abs=1e-6)


def test_search_finds_a_violation_and_shows_it():
    with float64():
        found = search(lambda x: (squares(x)[0], 0.8 * squares(x)[1]), 3, SMALL, false_factor=0.9, what="three numbers")
    assert found.outcome is Outcome.VIOLATED
    assert found.tightness == pytest.approx(1.25, rel=1e-3)


def test_a_rare_violation_is_left_to_hypothesis():
    def sides(x):  # flat everywhere, so that no gradient leads there
        return jnp.where((jnp.abs(x - 22) < 2).all(), 2.0, 0.5), jnp.ones(())

    with float64():
        found = search(sides, 1, dataclasses.replace(SMALL, examples=500), false_factor=0.4, what="one number")
    assert found.outcome is Outcome.VIOLATED
    assert "[2" in found.witness
    assert found.tightness == 2


def test_search_does_not_pass_over_what_is_not_finite():
    with float64(), pytest.raises(AssertionError, match="not finite"):
        search(lambda x: (jnp.sqrt(x.sum()), jnp.ones(())), 2, SMALL, false_factor=0.5, what="roots")


def test_a_control_that_is_out_of_reach_voids_the_search():
    with float64():
        found = search(lambda x: (0.1 * squares(x)[0], squares(x)[1]), 3, SMALL, false_factor=0.5, what="slack")
    assert not found.counts


def test_measured_predictions():
    pairs = [("rate", 1.0, 1.01)]
    assert measured("rates", pairs, within=0.02, wrong={"twice": [2.0]}).counts
    assert measured("rates", pairs, within=0.001, wrong={"twice": [2.0]}).outcome is Outcome.VIOLATED
    assert not measured("rates", pairs, within=0.02, wrong={"hardly different": [1.005]}).counts
    assert measured("rates", [("nan", 1.0, float("nan"))], within=0.1, wrong={}).outcome is Outcome.VIOLATED


# Exact evaluation


def test_a_witness_violates_exactly():
    third = fractions.Fraction(1, 3)
    found = witness("w = 1/3", third, "<=", fractions.Fraction(1, 4), holds_at={"w = 1/5": (third / 2, third)})
    assert found.outcome is Outcome.VIOLATED
    assert "1/3" in found.witness
    assert witness("w = 0", 0, "<=", third, holds_at={"same": (0, 0)}).outcome is Outcome.NO_VIOLATION
    with pytest.raises(AssertionError, match=r"himoe_theory computes 0\.3 at w"):
        witness("w", third, "=", third, holds_at={}, code=[(0.3, third)])
    with pytest.raises(ValueError, match=r"must be one of <=, =, >=; got '<'"):
        witness("w", 0, "<", 1, holds_at={})


@pytest.mark.parametrize(
    ("printed", "outcome"),
    [("5.6", Outcome.PROVED), ("5.5", Outcome.VIOLATED), ("5.57", Outcome.PROVED), ("6", Outcome.PROVED)],
)
def test_reported_numbers_are_compared_at_their_digits(printed, outcome):
    found = reported("reduction", sp.Rational(557, 100), printed)
    assert found.outcome is outcome
    assert found.counts


def test_a_number_computed_in_floating_point_supports_and_never_proves():
    assert reported("root", sp.Float(5.57, 17), "5.6").outcome is Outcome.NO_VIOLATION
    assert reported("root", sp.Float(5.57, 17), "5.5").outcome is Outcome.VIOLATED
    assert reported("root", sp.sqrt(31), "5.57").outcome is Outcome.PROVED


def test_all_cases():
    found = exhaustive("n < 9", range(9), lambda n: n * n >= n, false={"strict": lambda n: n * n > n})
    assert found.outcome is Outcome.PROVED_FOR_SIZES
    assert found.counts
    bad = exhaustive("n < 9", range(9), lambda n: n != 4, false={})
    assert bad.outcome is Outcome.VIOLATED
    assert "fails for 4" in bad.witness
    assert bad.counts
    with pytest.raises(ValueError, match="`cases` must not be empty"):
        exhaustive("none", [], bool, false={})


# Verdicts


def finding(outcome: Outcome, passed: bool = True, part: str = "") -> Finding:
    return Finding("method", outcome, (), (Control("variant", passed),), part=part)


@pytest.mark.parametrize(
    ("outcomes", "corrected", "verdict"),
    [
        ([Outcome.PROVED, Outcome.NO_VIOLATION], [], Verdict.PROVED),
        ([Outcome.PROVED_FOR_SIZES, Outcome.NO_VIOLATION], [], Verdict.PROVED_FOR_SIZES),
        ([Outcome.NO_VIOLATION], [], Verdict.SUPPORTED),
        ([Outcome.PROVED, Outcome.VIOLATED], [], Verdict.REFUTED),
        ([Outcome.VIOLATED], [Outcome.PROVED], Verdict.CORRECTED),
        ([Outcome.VIOLATED], [Outcome.PROVED_FOR_SIZES], Verdict.CORRECTED),
        ([Outcome.VIOLATED], [Outcome.NO_VIOLATION], Verdict.REFUTED),
        ([Outcome.UNVERIFIABLE], [], Verdict.UNVERIFIABLE),
        ([], [], Verdict.UNVERIFIABLE),
    ],
)
def test_verdicts_follow_from_findings(outcomes, corrected, verdict):
    assert judge(list(map(finding, outcomes)), list(map(finding, corrected))) is verdict


def test_a_method_that_cannot_fail_is_no_evidence():
    assert judge([finding(Outcome.PROVED, passed=False)]) is Verdict.UNVERIFIABLE
    assert judge([Finding("method", Outcome.PROVED, ())]) is Verdict.UNVERIFIABLE


def test_a_statement_is_as_strong_as_its_weakest_part():
    first, second = finding(Outcome.PROVED, part="first"), finding(Outcome.NO_VIOLATION, part="second")
    assert judge([first, second]) is Verdict.SUPPORTED
    assert judge([first, second, finding(Outcome.PROVED_FOR_SIZES, part="second")]) is Verdict.PROVED_FOR_SIZES
    assert judge([first, finding(Outcome.PROVED, passed=False, part="second")]) is Verdict.UNVERIFIABLE
