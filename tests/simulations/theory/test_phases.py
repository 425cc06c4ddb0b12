"""Phases: corners that are known without the theory, and agreement with it on a small grid."""

import numpy as np
import pytest

from paper_figures.figures import phases as figure
from simulations import theory
from simulations.theory.phases import _batch


@pytest.fixture(scope="module")
def found():
    return theory.phases(strengths=(0.0, 1.5), intra=(1e-6, 1.0), tokens=32, dim=5, steps=400, seed=1)


def names(values):
    return [[theory.PHASES[int(place)] for place in row] for row in values]


def test_corners_are_what_they_must_be(found):
    for kind in ("predicted", "started", "ended"):
        free, loaded = found[kind].values
        # Nothing to learn and no terms to speak of: nothing happens. Terms and no target: the mean of the tokens
        # collapses routing unless a load forbids it, and then experts remain alike.
        assert names(free)[0][0] == names(loaded)[0][0] == "frozen"
        assert names(free)[1][0] == "collapse"
        assert names(loaded)[1][0] == "redundant"
        assert names(free)[0][1] == names(loaded)[0][1] == "specialise"


def test_most_start_as_predicted():
    grid = theory.phases(strengths=(0.0, 0.5, 1.0, 2.0), intra=(0.01, 0.1, 1.0), tokens=48, dim=5, steps=400, seed=2)
    assert figure.agreement(grid, "started") >= figure.BOUND
    assert set(np.unique(grid["predicted"])) == {0, 1, 2, 3}  # a constant answer would not do


def test_a_load_changes_the_phase_before_it_stops_the_common_mode():
    """With no target contrasts lead from αN/λ = 1 - κ_c/κ_0 on, below the edge at 1."""
    x = _batch(1.0, 32, 5, 1)[0]
    mean, about = x.mean(axis=0), np.cov(x.T, bias=True)
    edge = 1 - np.linalg.eigvalsh(about)[-1] / (mean @ mean)
    assert 0.1 < edge < 0.9
    loads = (0.7 * edge, edge + 0.3)
    grid = theory.phases(strengths=(0.0,), intra=(1.0,), loads=loads, tokens=32, dim=5, steps=400, seed=1)
    assert [names(row)[0][0] for row in grid["predicted"].values] == ["collapse", "redundant"]
    assert [names(row)[0][0] for row in grid["started"].values] == ["collapse", "redundant"]
