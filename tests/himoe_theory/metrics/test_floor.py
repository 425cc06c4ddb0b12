"""What sampling alone does to a load, against simulated balanced routing; and verdicts on counts of the field."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import dynamics, metrics

from ..test_bad_input import refuses


def simulated(experts, routes, tokens, batches, seed):
    """CV and MaxVio of batches of tokens that each draw distinct experts with equal chances."""
    rank = np.random.default_rng(seed).random((batches, tokens, experts)).argsort(axis=-1)
    counts = (rank < routes).sum(axis=1)
    excess = counts * experts / (routes * tokens) - 1
    return counts, np.sqrt(np.square(excess).mean(axis=1)), excess.max(axis=1)


@pytest.mark.parametrize(("experts", "routes", "tokens"), [(8, 2, 100), (6, 3, 64), (2, 1, 200)])
def test_the_floor_is_what_balanced_routing_does(experts, routes, tokens):
    batches = 4000
    _, cv, excess = simulated(experts, routes, tokens, batches, 3)
    floor = metrics.sampling_floor(experts, routes, tokens, level=0.95)
    error = 4.5 * np.square(cv).std() / math.sqrt(batches)
    assert np.square(cv).mean() == pytest.approx(metrics.cv_floor(experts, routes, tokens) ** 2, abs=error)
    assert floor.cv == pytest.approx(cv.mean(), rel=0.02)
    assert floor.max_violation == pytest.approx(excess.mean(), rel=0.03)
    assert (cv > floor.cv_quantile).mean() == pytest.approx(0.05, abs=0.02)
    assert 0.01 <= (excess > floor.max_violation_quantile).mean() <= 0.05
    assert floor.max_violation == dynamics.max_violation_floor(experts, routes, tokens)


def test_the_root_mean_square_floor_by_hand_and_exactly():
    np.testing.assert_allclose(
        metrics.cv_floor(8, np.array([2.0, 2.5, 8.0, 0.0]), 4), [0.75**0.5, 0.55**0.5, 0, np.inf]
    )
    # One token, of one expert or of three of 4 with equal chances: CV^2 is 3 or 1/3, of a mean K of 2 at most 1.
    assert metrics.cv_floor(4, 2.0, 1) == 1.0
    rng = np.random.default_rng(1)  # three tokens of 1, 1 and 4 of 4: only the first two are random
    counts = 1 + (rng.integers(4, size=(20_000, 2, 1)) == np.arange(4)).sum(axis=1)
    exact = (4 / 2 - 6 / 4) / 3  # N / mean K - mean K^2 / (mean K)^2, over T
    assert np.square(counts / 1.5 - 1).mean() == pytest.approx(exact, rel=0.03)
    assert exact <= metrics.cv_floor(4, 2.0, 3) ** 2


def test_balanced_routing_is_called_uneven_as_rarely_as_said():
    counts, *_ = simulated(8, 2, 100, 2000, 5)
    called = [metrics.verdict(each, 2, level=0.9).name for each in counts]
    assert called.count("sampling") / len(called) == pytest.approx(0.9, abs=0.03)
    assert "collapsed" not in called


def test_counts_of_the_field():
    nothing = metrics.verdict(np.array([628, 649, 658, 630, 668, 652, 634, 601], np.int32), 2)
    assert (nothing.name, round(nothing.cv, 4), round(nothing.max_violation, 4)) == ("sampling", 0.0309, 0.0437)
    assert round(nothing.floor.max_violation, 4) == 0.0521
    assert nothing.words.startswith("nothing to explain: CV 0.0309 (sampling 0.0330, ")
    real = metrics.verdict(jnp.array([5538, 4318, 5339, 4762, 6003, 4760]), 3)
    assert (real.name, round(real.cv, 4), round(real.max_violation, 4)) == ("uneven", 0.11, 0.1725)
    assert round(real.floor.max_violation, 4) == 0.0137
    assert real.chance < 1e-100
    assert real.words.startswith("real, far from collapse: CV 0.1100")
    assert "MaxVio 0.1725 (sampling 0.0137)" in real.words


def test_collapse_and_its_absence_by_hand():
    one = metrics.verdict(np.array([100, 0, 0, 0]), 1)
    assert (one.name, one.collapse) == ("collapsed", pytest.approx(1))
    half = metrics.verdict(np.array([60, 60, 0, 0]), 1)  # CV^2 = 1 of at most 3
    assert (half.name, half.collapse) == ("uneven", pytest.approx(1 / 3))
    everything = metrics.verdict(np.array([9, 9]), 2)
    assert (everything.name, everything.chance, everything.floor.cv) == ("sampling", 1.0, 0.0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: metrics.verdict(np.array([3, 2, 2]), 2),
            r"sum to 2 times the tokens.* of 7 and entries in 2\.\.3",
        ),
        (
            lambda: metrics.verdict(np.array([7, 1]), 2),
            r"each at most the tokens; .* of 8 and entries in 1\.\.7",
        ),
        (lambda: metrics.verdict(np.array([3, -1]), 1), r"got a sum of 2 and entries in -1\.\.3"),
        (lambda: metrics.verdict(np.array([0, 0]), 1), "got a sum of 0"),
        (lambda: metrics.verdict(np.array([3.0, 1.0]), 1), "`counts` must be whole numbers, .*; got float64 of shape"),
        (lambda: metrics.verdict(np.array([[3, 1]]), 1), r"got int64 of shape \(1, 2\)"),
        (
            lambda: metrics.verdict(np.array([3, 1]), 3),
            r"at most 2 \(the experts of `counts`\); got 3",
        ),
        (lambda: metrics.verdict(np.array([3, 1]), 1, level=1.0), "`level` must be strictly between 0 and 1; got 1"),
        (lambda: metrics.sampling_floor(4, 2, 8, level=math.nan), "`level` must be finite .*; got nan"),
        (lambda: metrics.sampling_floor(4, 5, 8), "`routes` must be at most 4"),
        (lambda: metrics.cv_floor(4, np.array([4.0, 4.5]), 8), r"`routes` must be from 0 to .* 4; got \[4.0, 4.5\]"),
        (lambda: metrics.cv_floor(4, math.nan, 8), "`routes` must be from 0 to .* 4; got nan"),
    ],
)
def test_floors_refuse(call, match):
    refuses(call, match=match)
