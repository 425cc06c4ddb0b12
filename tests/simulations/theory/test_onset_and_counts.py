"""When specialisation sets in, and which load hard counts need: small versions, within the figures' bounds."""

import numpy as np
import pytest

from paper_figures.figures import boundary, growth
from simulations import theory


@pytest.fixture(scope="module")
def onset():
    return theory.measured_onset(sizes=(2, 6), tokens=64, dim=4, steps=900, seed=3)


def test_onset_follows_theory(onset):
    assert growth.onset_error(onset) <= growth.ONSET_BOUND
    plain = onset.sel(optimiser="plain")
    assert float(np.abs(plain["measured"] / plain["predicted"] - 1).max()) < 0.05


def test_only_plain_steps_wait_for_more_experts(onset):
    later = onset["measured"].sel(experts=6) / onset["measured"].sel(experts=2)
    assert float(later.sel(optimiser="plain")) > 2
    assert float(later.sel(optimiser="Adam")) == pytest.approx(1, abs=0.2)


def test_onset_that_is_not_reached_is_nan():
    found = theory.measured_onset(sizes=(4,), tokens=16, dim=4, steps=5)
    assert np.isnan(found["measured"].sel(optimiser="plain")).all()


def test_hard_counts_follow_theory():
    found = theory.hard_counts(cases=((4, 4, 1), (6, 3, 2)), points=3, tokens=8192, draws=8, seed=2)
    assert boundary.count_error(found) <= boundary.COUNT_BOUND
    assert list(found.case.values) == ["N = 4, K = 1", "N = 6, S = 3, K = 2"]
    # Small spreads need little load; the measurement is not so coarse that anything would agree.
    assert (found["measured"][:, 0] < 0.4).all()
    assert (found["standard_error"] < 0.15 * found["predicted"].max()).all()
