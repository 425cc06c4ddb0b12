"""Attacks in floating point must find where a function stops being the real one, and that a stated range is wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from himoe_theory import Partition, Softmax, TopK, ranked
from proofs_checks.explain import explain
from proofs_checks.floats import attacked
from proofs_checks.kept import KEPT, numbers_of
from proofs_checks.ledger import Claim, Effort, Numbers, Outcome, Verdict, examine
from proofs_checks.pages import ledger_page
from proofs_checks.precision import float64, unoptimised
from proofs_checks.record import record

ONE = Numbers("loads", 1e18, roundings=4, types=("float32",))


def findings(function, numbers):
    with float64(), unoptimised():
        return list(attacked("planted", function, numbers))


def squares(load):
    return jnp.square(load).sum()


def test_a_range_that_ends_where_squares_overflow_is_right():
    (found,) = findings(squares, ONE)
    assert found.outcome is Outcome.NO_VIOLATION
    assert found.counts
    assert [c.variant for c in found.controls] == ["arguments with a third of their digits", "just outside, at 1e19"]


def test_a_range_that_could_be_larger_does_not_count():
    (found,) = findings(squares, dataclasses.replace(ONE, largest=1e10))
    assert found.outcome is Outcome.NO_VIOLATION
    assert not found.counts
    assert "At 1e11 " in " ".join(found.steps)


@pytest.mark.parametrize("largest", [1e19, float("inf")])
def test_a_range_that_is_too_large_is_refuted_where_it_breaks(largest):
    (found,) = findings(squares, dataclasses.replace(ONE, largest=largest))
    assert found.outcome is Outcome.VIOLATED
    assert found.counts
    assert "planted in float32" in found.witness


def test_the_lower_end_is_attacked_too():
    def inverse(rate):
        return 1 / jnp.where(rate == 0, 1, jnp.square(rate))

    def ends_at(smallest):
        return findings(inverse, Numbers("rates", 1e18, smallest, 16, ("float32",)))[0]

    right, large, small = (ends_at(smallest) for smallest in (1e-18, 1e-10, 1e-25))
    assert small.outcome is Outcome.VIOLATED
    assert (large.outcome, large.counts) == (Outcome.NO_VIOLATION, False)
    assert (right.outcome, [c.variant for c in right.controls[1:]]) == (
        Outcome.NO_VIOLATION,
        ["just outside, at 1e19", "just outside, at 1e-19"],
    )


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_selection_by_values_that_saturate_is_found(kind):
    """A sigmoid is 1 for logits 18 and 30: selected by its values, the larger logit loses to the lower number."""

    def by_values(logits):
        return ranked(TopK(2), jax.nn.sigmoid(logits), Partition((0,) * 4))

    (found,) = findings(by_values, Numbers("logits", types=(kind,)))
    assert found.outcome is Outcome.VIOLATED


def test_what_the_argument_does_not_change_is_no_evidence():
    (found,) = findings(lambda load: jnp.ones_like(load), ONE)
    assert not found.counts


def test_a_softmax_that_is_not_shifted_overflows():
    def plain(logits):
        raised = jnp.exp(logits)
        return raised / raised.sum(axis=-1, keepdims=True)

    numbers = KEPT[Softmax.value].numbers
    assert {f.outcome for f in findings(plain, numbers)} == {Outcome.VIOLATED}
    assert {f.outcome for f in findings(Softmax().value, numbers)} == {Outcome.NO_VIOLATION}


def test_every_report_says_for_which_numbers():
    own = Numbers("logits", 1e4, roundings=2, besides="no ties")
    claim = Claim(
        "a/b", "x", "X.", "[himoe] eq. (1)", Verdict.UNVERIFIABLE, lambda e: [], functions=(Softmax.value,), numbers=own
    )
    said = "float32 and bfloat16: logits up to 1e+04, to 2 roundings; no ties"
    assert next(iter(numbers_of(claim))) == ("the statement", own)
    shown = record(examine(claim, Effort()))
    assert shown["numbers"][0] == {"of": "the statement", "for": said}
    assert shown["numbers"][1]["of"] == "himoe_theory.scores.Softmax.value"
    assert said in explain(shown).replace("\n" + " " * 17, " ")
    assert said in ledger_page([shown])
