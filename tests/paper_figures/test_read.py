"""What figures read from stored results."""

import numpy as np
import pytest

from paper_figures import read
from simulations import Regime, arms
from simulations.language.available import PLAIN

from .synthetic import ARMS, set_final, set_names, simulated


@pytest.fixture
def result():
    return simulated([ARMS["gshard"], ARMS["hi-moe"]])


def test_facts_come_from_the_stored_configuration(result):
    facts = read.facts(result)["hi-moe"]
    assert facts.terms == {"load_per_token": 0.01, "intra_group_global": 0.1, "inter_group_dense": 0.05}
    assert facts.groups == (0, 1, 0, 1)
    assert facts.grouped
    assert not read.facts(result)["gshard"].grouped


def test_experts_of_a_group_come_side_by_side(result):
    facts = read.facts(result)["hi-moe"]
    np.testing.assert_array_equal(facts.by_group, [0, 2, 1, 3])
    np.testing.assert_array_equal(facts.boundaries, [1.5])


def test_every_arm_has_a_place():
    assert set(read.ORDER) == {PLAIN, *arms()}
    assert len(read.ORDER) == len(arms()) + 1


def test_unknown_arms_come_last(result):
    renamed = result.assign_coords(arm=["mine", "hi-moe"])
    assert read.arms_in_order(renamed) == ["hi-moe", "mine"]


def test_regime_names_the_most_frequent_and_counts_seeds(result):
    changed = set_names(result, "hi-moe", Regime.PARTIAL, Regime.SPECIALISED, Regime.PARTIAL)
    assert read.regime(changed, "hi-moe") == "partial 2/3"
    assert read.counts(changed, "hi-moe") == {Regime.SPECIALISED: 1, Regime.PARTIAL: 2}
    assert read.regime(changed, "gshard") == "specialised 3/3"
    assert read.regime(changed, "gshard", "balance") == "uneven 3/3"


def test_the_shown_seed_is_the_median_of_the_named_regime():
    result = simulated([ARMS["moge"]], seeds=(4, 5, 6, 7, 8))
    result = set_final(result, "moge", "test_error", [0.5, 0.1, 0.9, 0.7, 0.2])
    assert read.shown_seed(result, "moge") == 4
    # Of the three partial seeds 5, 6 and 7, with errors 0.1, 0.9 and 0.7.
    c, s = Regime.PARTIAL, Regime.SPECIALISED
    assert read.shown_seed(set_names(result, "moge", s, c, c, c, s), "moge") == 7
    # The lower one of an even number: of seeds 5 and 6.
    assert read.shown_seed(set_names(result, "moge", s, c, c, Regime.UNLEARNED, Regime.NOT_JUDGED), "moge") == 5


def test_intervals_leave_diverged_seeds_out(result):
    changed = set_final(result, "hi-moe", "test_error", [0.1, np.inf, 0.3])
    changed = set_names(changed, "hi-moe", Regime.SPECIALISED, Regime.DIVERGED, Regime.SPECIALISED)
    interval = read.final_interval(changed, "hi-moe", "test_error")
    assert interval.mean == pytest.approx(0.2)
    # Half-width for two values: t(0.975; 1) = 12.7062, times 0.1.
    assert interval.half_width == pytest.approx(1.27062, rel=1e-5)
    assert read.diverged_note(changed, result) == "1 diverged runs are left out of means and intervals."
    assert read.diverged_note(result) == "No run diverged."
    every = set_names(result, "hi-moe", *[Regime.DIVERGED] * 3)
    assert np.isnan(read.final_interval(every, "hi-moe", "test_error").mean)


def test_listed():
    assert read.listed([]) == "none"
    assert read.listed(["a"]) == "a"
    assert read.listed(["a", "b", "c"]) == "a, b and c"
