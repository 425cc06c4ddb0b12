"""Angles, rates and examples: against closed forms, other code and small cases by hand."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from himoe_theory import cosines, growth
from himoe_theory.contract.angles import chance
from himoe_theory.contract.cases import drawn, renaming, written
from himoe_theory.contract.examine import Property
from himoe_theory.contract.finding import Outcome
from himoe_theory.contract.shrink import smallest
from himoe_theory.dynamics import (
    common_between_full,
    common_within_full,
    contrast_between,
    contrast_within,
    critical_load_full,
)
from himoe_theory.objectives import OBJECTIVES
from himoe_theory.partition import Partition


def test_rates_are_those_of_the_growth_law():
    """Eight experts in four groups of two, by the closed forms, one term at a time."""
    intra, inter, load = (growth(name) for name in ("intra_group_global", "inter_group_dense", "p_squared"))
    wanted = {
        "contrast within": (contrast_within(1.0, 8), 0.0, 0.0),
        "contrast between": (contrast_between(1.0, 0.0, 8, 2), contrast_between(0.0, 1.0, 8, 2), 0.0),
        "common within": (contrast_within(1.0, 8), 0.0, common_within_full(0.0, 1.0, 8)),
        "common between": (
            contrast_between(1.0, 0.0, 8, 2),
            contrast_between(0.0, 1.0, 8, 2),
            common_between_full(0.0, 0.0, 1.0, 8, 2),
        ),
    }
    for mode, rates in wanted.items():
        for found, rate in zip((intra, inter, load), rates, strict=True):
            np.testing.assert_allclose([found[mode].rate, found[mode].least, found[mode].greatest], rate, atol=1e-12)
    assert load["common within"].critical == pytest.approx(critical_load_full(0.1, 8))
    assert load["common within"].against == "intra_group_global 0.1"
    assert load["contrast within"].critical is None
    assert intra["common within"].critical == pytest.approx(0.01 * 8 / 2)  # 2 c/N² against .01/N
    assert intra["contrast within"].critical is None


def test_cosines_of_what_is_parallel_opposite_or_by_chance():
    found = cosines("p_squared", 1.0, draws=16)
    assert found.chance == chance(56)
    same = found.with_["load_frozen"]
    assert (same.mean, same.low, same.high) == pytest.approx((1.0, 1.0, 1.0))
    other = found.with_["intra_group_global"]
    assert other.low < other.mean < other.high < 0
    assert "p_squared" not in found.with_
    assert not {name for name in found.with_ if OBJECTIVES[name].of == "outputs"}


def test_chance_is_that_of_drawn_directions():
    """95 % of 40,000 pairs in 56 dimensions, within four standard errors of a share of .95."""
    a, b = np.random.default_rng(0).standard_normal((2, 40_000, 56))
    found = np.abs((a * b).sum(axis=1)) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert abs((found <= chance(56)).mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 40_000)
    assert chance(2) == pytest.approx(np.sin(0.95 * np.pi / 2))  # an angle is uniform
    assert stats.beta(0.5, 27.5).cdf(chance(56) ** 2) == pytest.approx(0.95)


@pytest.mark.parametrize("ask", [cosines, growth])
def test_what_has_no_gradient_in_logits_is_refused(ask):
    with pytest.raises(ValueError, match="gradient in logits; that of orthogonality_span is in outputs"):
        ask("orthogonality_span")
    hidden = dataclasses.replace(OBJECTIVES["load"], name="hidden", needs=frozenset({"parameters"}))
    with pytest.raises(ValueError, match="hidden needs `parameters`, which are there in training alone"):
        ask(hidden)


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="`spread` must be above 0; got 0"):
        cosines("load", 0.0)
    with pytest.raises(ValueError, match=r"`num_groups` must be at most 4 \(groups of two experts\); got 5"):
        growth("load", num_groups=5)


def test_the_smallest_example_is_small():
    table = np.array([[1.37, -2.9, 0.4], [0.2, 5.3, 0.1]])
    found = smallest(table, lambda tables: tables[:, 1].max(axis=1) > 0.5, ties=True)
    np.testing.assert_array_equal(found, [[0, 0, 0], [0, 1, 0]])
    apart = smallest(table, lambda tables: tables[:, 1, 1] > 0.5, ties=False)
    np.testing.assert_array_equal(apart, [[0, -0.1, -0.2], [0, 1, -0.2]])


def test_what_is_no_number_fails_before_all_else():
    cases = drawn(np.random.default_rng(0), [1.0, 1.0])
    rule = Property("p", True, lambda some: np.full(some.number, np.nan), lambda some: "nan", "held")
    found = rule.examine(cases)
    assert (found.outcome, found.example) == (Outcome.FAILS, "logits (0, 0, 0, 0, 0, 0, 0, 0) x 8")


def test_a_renaming_keeps_the_partition():
    partition = Partition((0, 1, 0, 2, 1, 0, 3, 3))
    order = renaming(partition)
    assert sorted(order) == list(range(8))
    assert (order != np.arange(8)).any()
    groups = [{partition.group_of[e] for e in order[partition.members(g)]} for g in range(4)]
    assert [len(each) for each in groups] == [1, 1, 1, 1]
    apart = renaming(partition, (1, 1, 1, 2))
    assert {partition.group_of[e] for e in apart[partition.members(3)]} == {3}


def test_a_case_is_one_line():
    table = np.array([[0.0, -0.0], [0.0, 0.0], [1 / 3, 1e4]])
    assert written("logits", table) == "logits (0, 0) x 2, (0.333333, 10000)"
    assert written("outputs", table[:, :, None]) == "outputs [(0), (0)] x 2, [(0.333333), (10000)]"
