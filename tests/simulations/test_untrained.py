"""How often names err, on gates that nobody trained and on gates that know the labels: as stored, and computed anew."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from simulations import Balance, Regime, Training, read_result, untrained
from simulations.null import EVIDENCE, Rate, null, rate, rules

QUICK = Training(steps=200, batch=128, records=1, test_tokens=512)
KINDS = list(untrained.KINDS)


def highest(count, runs, level):
    """Upper Clopper–Pearson bound, one-sided."""
    return stats.beta.ppf(level, count + 1, runs - count)


@pytest.fixture(scope="module")
def evidence():
    return read_result(EVIDENCE)


def test_the_stored_evidence_is_of_this_study(evidence):
    cells = untrained.cells()
    assert [str(name) for name in evidence.cell.values] == [cell.name for cell in cells]
    assert list(evidence.kind.values) == KINDS
    assert evidence.sizes["cell"] * evidence.sizes["draw"] == 1000
    seeds = [seed for cell in cells for seed in cell.seeds]
    assert len(set(seeds)) == len(seeds) == 1000


def test_at_most_one_percent_of_untrained_gates_have_a_name_that_training_gives(evidence):
    found = null()
    own, foreign = evidence.sel(kind="own"), evidence.sel(kind="foreign")
    assert (own["gain"] == 0).all()
    assert (own["regime"] == Regime.UNLEARNED).all()
    assert found.specialised == Rate(int((foreign["regime"] == Regime.SPECIALISED).sum()), 1000)
    assert found.collapsed == Rate(int((own["balance"] == Balance.COLLAPSED).sum()), 1000)
    for errors in (found.specialised, found.collapsed):
        assert highest(errors.count, 1000, 0.975) <= 0.01
    # A gate that is drawn lopsided is said to be that.
    assert (own["balance"] == Balance.LOPSIDED).mean() > 0.3


def test_partial_is_what_luck_gives_more_often_than_one_percent(evidence):
    """Which is why the rule says so wherever it is printed."""
    gained = evidence.sel(kind="foreign")["gain"].values
    assert null().partial == Rate(int((gained >= 0.1).sum()), 1000)
    assert null().partial.interval()[0] > 0.01


def test_gates_that_know_the_labels_are_specialised(evidence):
    missed = null().missed
    assert highest(missed.count, missed.runs, 0.95) <= 0.1
    assert (evidence["trained"].median("trained_seed") >= 0.5).all()
    assert (evidence["trained_regime"] == Regime.SPECIALISED).all()


def test_one_target_for_all_is_never_specialised(evidence):
    assert evidence["one_target"].size == 84
    assert (evidence["one_target_regime"] == Regime.UNLEARNED).all()


@pytest.mark.parametrize("place", [0, 5])
def test_both_errors_on_a_few_gates(place):
    """The first cell, and selections so wide that they hardly tell labels apart, at μ 4."""
    cell = untrained.cells()[place]
    found = untrained.judged(cell, range(6), QUICK)
    own, foreign, centres = (dict(zip(found, (v[i] for v in found.values()), strict=True)) for i in range(3))
    np.testing.assert_array_equal(own["gain"], 0)
    np.testing.assert_array_equal(own["cv"], own["cv_start"])
    assert (own["balance"] != Balance.COLLAPSED).all()
    assert (foreign["gain"] != 0).all()
    assert (foreign["regime"] < Regime.SPECIALISED).all()
    assert (centres["regime"] == Regime.SPECIALISED).all()
    assert (own["cv"] != foreign["cv"]).all()


@pytest.mark.deep
def test_both_errors_on_other_seeds(optimised):
    """A hundred in every cell that the evidence does not have."""
    specialised = collapsed = missed = 0
    for number, cell in enumerate(untrained.cells()):
        for start in range(20_000 + 100 * number, 20_100 + 100 * number, 20):
            found = untrained.judged(cell, range(start, start + 20))
            specialised += int((found["regime"][1] == Regime.SPECIALISED).sum())
            collapsed += int((found["balance"][0] == Balance.COLLAPSED).sum())
            missed += int((found["regime"][2] != Regime.SPECIALISED).sum())
    assert specialised <= 10
    assert collapsed <= 10
    assert missed <= 100


def test_rates_are_exact_intervals():
    flags = xr.DataArray([True, False, False, False])
    assert rate(flags) == Rate(1, 4)
    low, high = Rate(1, 4).interval()
    assert (low, high) == (pytest.approx(stats.beta.ppf(0.025, 1, 4)), pytest.approx(stats.beta.ppf(0.975, 2, 3)))
    assert str(Rate(0, 1000)) == "0 of 1000 (at most 0.37 %)"


def test_the_legend_says_what_the_evidence_says():
    found = null()
    rule, made = rules(Regime)
    assert "specialised from 0.5" in rule
    assert f"{found.specialised} specialised, {found.partial.count} partial" in made
    assert f"99 % have G ≤ {found.quantile:.2f}" in made
    assert f"{found.collapsed} collapsed" in rules(Balance)[1]
