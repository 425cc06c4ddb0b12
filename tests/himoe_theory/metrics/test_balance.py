"""Loads and how uneven they are, against SciPy, loops over tokens and hand values."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from himoe_theory import Partition, from_routes, metrics, to_dense
from himoe_theory.metrics import _common

from .cases import (
    PARTITIONS,
    SELECTED,
    UNEQUAL,
    check_slope,
    loads,
    loose_selections,
    probabilities,
    run,
    selections,
    slope,
)

PAIRS = Partition((0, 0, 1, 1))
UNEVENNESS = [metrics.coefficient_of_variation, metrics.max_violation, metrics.max_absolute_violation]


@given(loose_selections())
def test_hard_load_counts_tokens(selected):
    load = run(metrics.hard_load, selected)
    counts = [sum(1 for token in selected if token[e]) for e in range(selected.shape[1])]
    np.testing.assert_allclose(load, np.array(counts) / len(selected), rtol=1e-15)
    assert load.dtype == jnp.float64


@given(selections())
def test_hard_load_sums_to_the_routes(case):
    selected, routes = case
    np.testing.assert_allclose(run(metrics.hard_load, selected).sum(), routes, rtol=1e-14)


@given(probabilities())
def test_soft_load_is_the_mean_probability(probs):
    np.testing.assert_allclose(run(metrics.soft_load, probs), probs.mean(axis=0), rtol=1e-12, atol=1e-300)


def test_soft_load_accepts_weights_that_lost_mass():
    load = run(metrics.soft_load, np.array([[0.5, 0.0], [0.25, 0.25]]))
    np.testing.assert_allclose(load, [0.375, 0.125], rtol=1e-15)


def routing(active, kept):
    """Three tokens, two routes each; expert 0 is wanted by all."""
    experts = jnp.array([[0, 2], [0, 1], [0, 2]])
    record = from_routes(jnp.zeros((3, 3)), experts, Partition((0, 0, 1)), active=jnp.asarray(active))
    return dataclasses.replace(record, kept=to_dense(jnp.asarray(kept), experts, 3))


def test_load_before_and_after_drops():
    active = [[True, True], [True, False], [True, True]]
    kept = [[True, True], [True, False], [False, True]]
    before, after = metrics.load_before_and_after_drops(routing(active, kept))
    np.testing.assert_allclose(before, [1, 0, 2 / 3], rtol=1e-15)
    np.testing.assert_allclose(after, [2 / 3, 0, 2 / 3], rtol=1e-15)
    np.testing.assert_allclose(run(metrics.drop_rate, active, kept), 1 / 5, rtol=1e-15)


@given(loose_selections(), st.integers(0, 2**31 - 1))
def test_drop_rate_is_the_lost_share(active, seed):
    kept = active & (np.random.default_rng(seed).random(active.shape) < 0.5)
    rate = run(metrics.drop_rate, active, kept)
    lost = sum(a and not k for a, k in zip(active.ravel(), kept.ravel(), strict=True))
    assert rate == (lost / active.sum() if active.any() else 0.0)


@given(loads())
def test_cv_against_scipy_and_the_norm_form(load):
    cv = run(metrics.coefficient_of_variation, load)
    if load.any():
        np.testing.assert_allclose(cv, scipy.stats.variation(load), rtol=1e-11, atol=1e-14)
        # Proposition B.1 of the paper.
        share = load / load.sum()
        np.testing.assert_allclose(cv**2, len(load) * (share @ share) - 1, rtol=1e-11, atol=1e-13)
    assert -1e-15 <= cv <= math.sqrt(len(load) - 1) * (1 + 1e-12)


@given(loads())
def test_violations_against_loops(load):
    mean = sum(load) / len(load)
    above = [(one - mean) / mean if mean else 0.0 for one in load]
    largest, size = max(above), max(abs(a) for a in above)
    np.testing.assert_allclose(run(metrics.max_violation, load), largest, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(run(metrics.max_absolute_violation, load), size, rtol=1e-11, atol=1e-14)
    assert largest <= len(load) - 1 + 1e-12
    assert size <= max(1, len(load) - 1) + 1e-12


@given(loads())
def test_cv_and_max_violation_bound_each_other(load):
    experts = len(load)
    cv, violation, absolute = (float(f(jnp.asarray(load))) for f in UNEVENNESS)
    assert violation <= math.sqrt(experts - 1) * cv * (1 + 1e-12) + 1e-14
    assert absolute <= math.sqrt(max(experts - 1, 0)) * cv * (1 + 1e-12) + 1e-14
    assert cv <= math.sqrt(max(violation, 0)) * (1 + 1e-12) + 1e-7  # the root of a rounding is 1e-8
    assert violation <= absolute


def test_where_the_two_bounds_are_reached():
    lower = jnp.array([5.0, 1.0, 1.0, 1.0])  # one expert above equal others: MaxVio = 3/2
    np.testing.assert_allclose(run(metrics.coefficient_of_variation, lower), 1.5 / math.sqrt(3), rtol=1e-14)
    np.testing.assert_allclose(run(metrics.max_violation, lower), 1.5, rtol=1e-14)
    upper = jnp.array([2.0, 0.0, 2.0, 0.0, 0.0])  # nothing or the maximum: MaxVio = 3/2
    np.testing.assert_allclose(run(metrics.coefficient_of_variation, upper), math.sqrt(1.5), rtol=1e-14)
    np.testing.assert_allclose(run(metrics.max_violation, upper), 1.5, rtol=1e-14)


def test_hand_values():
    load = jnp.array([0.0, 5.0, 3.0, 4.0])  # mean 3, squares of deviations 9, 4, 0, 1
    np.testing.assert_allclose(run(metrics.coefficient_of_variation, load), math.sqrt(14 / 4) / 3, rtol=1e-14)
    np.testing.assert_allclose(run(metrics.max_violation, load), 2 / 3, rtol=1e-14)
    np.testing.assert_allclose(run(metrics.max_absolute_violation, load), 1.0, rtol=1e-14)


def test_group_hand_values():
    load, totals, means = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), [9.0, 2.0, 4.0], [3.0, 2.0, 4.0]
    by_total, by_expert = (run(f, load, static=(UNEQUAL,)) for f in (metrics.group_cv, metrics.group_cv_per_expert))
    np.testing.assert_allclose(by_total, scipy.stats.variation(totals), rtol=1e-14)
    np.testing.assert_allclose(by_expert, scipy.stats.variation(means), rtol=1e-14)
    # Uniform routing: unequal totals, equal work.
    np.testing.assert_allclose(
        run(metrics.group_cv, np.ones(5), static=(UNEQUAL,)), scipy.stats.variation([3, 1, 1]), rtol=1e-14
    )
    assert run(metrics.group_cv_per_expert, np.ones(5), static=(UNEQUAL,)) == 0.0


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda p: str(p.group_of))
@given(data=st.data())
def test_group_cv_against_loops(partition, data):
    load = data.draw(loads(partition.num_experts))
    totals = np.zeros(partition.num_groups)
    for expert, group in enumerate(partition.group_of):
        totals[group] += load[expert]
    means = totals / [partition.group_of.count(g) for g in range(partition.num_groups)]
    expected = [scipy.stats.variation(x) if load.any() else 0.0 for x in (totals, means)]
    by_total = run(metrics.group_cv, load, static=(partition,))
    by_expert = run(metrics.group_cv_per_expert, load, static=(partition,))
    np.testing.assert_allclose([by_total, by_expert], expected, rtol=1e-11, atol=1e-13)
    assert by_total <= math.sqrt(partition.num_groups - 1) * (1 + 1e-12)
    if len(set(partition.sizes)) == 1:
        np.testing.assert_allclose(by_total, by_expert, rtol=1e-12, atol=1e-14)
        assert by_total <= run(metrics.coefficient_of_variation, load) * (1 + 1e-12) + 1e-14


@given(selections())
def test_hard_routing_stays_below_max_cv(case):
    selected, routes = case
    limit = metrics.max_cv(selected.shape[1], routes)
    assert run(metrics.coefficient_of_variation, run(metrics.hard_load, selected)) <= limit * (1 + 1e-12) + 1e-14
    agreed = jnp.asarray(np.repeat(selected[:1], 3, axis=0))
    reached = run(metrics.coefficient_of_variation, run(metrics.hard_load, agreed))
    np.testing.assert_allclose(reached, limit, rtol=1e-12, atol=1e-14)


def test_max_cv_hand_values():
    assert metrics.max_cv(8, 2) == pytest.approx(math.sqrt(3), rel=1e-15)
    assert metrics.max_cv(5, 5) == 0.0


@pytest.mark.parametrize("measure", UNEVENNESS)
@pytest.mark.parametrize(
    "load", [[0.0, 0.0, 0.0], [0.7], [0.0], [0.1] * 7, [1e-30] * 3], ids=["zero", "one", "one-idle", "equal", "tiny"]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_loads_are_exactly_balanced_with_gradient_zero(measure, load, dtype):
    load = np.array(load, dtype)
    assert run(measure, load) == 0.0
    assert jnp.isfinite(slope(measure, load)).all()
    if measure is metrics.coefficient_of_variation:
        np.testing.assert_array_equal(slope(measure, load), 0.0)


def test_group_measures_of_zero_load_and_of_one_group():
    one = Partition((0, 0, 0))
    for measure in (metrics.group_cv, metrics.group_cv_per_expert):
        assert run(measure, np.zeros(5), static=(UNEQUAL,)) == 0.0
        assert run(measure, np.array([1.0, 2.0, 9.0]), static=(one,)) == 0.0
        np.testing.assert_array_equal(slope(measure, np.zeros(5), static=(UNEQUAL,)), 0.0)


def test_nothing_active_means_nothing_lost():
    none = jnp.zeros((3, 2), bool)
    assert run(metrics.drop_rate, none, none) == 0.0


@pytest.mark.parametrize("measure", UNEVENNESS)
@pytest.mark.parametrize(("dtype", "scale"), [("float64", 1e300), ("float64", 1e-300), ("float32", 1e37)])
def test_scale_does_not_matter(measure, dtype, scale):
    load = jnp.array([3.0, 1.0, 0.0, 5.0, 2.0], dtype)
    tolerance = 8 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(run(measure, load * scale), run(measure, load), rtol=tolerance)


@pytest.mark.parametrize("measure", UNEVENNESS)
def test_gradient_where_loads_differ(measure):
    check_slope(measure, np.array([0.3, 0.95, 0.1, 0.7]))


def test_cv_gradient_in_closed_form():
    load = np.array([3.0, 1.0, 0.5, 5.0])
    mean, cv = load.mean(), scipy.stats.variation(load)
    # CV^2 = mean(L^2)/mean^2 - 1.
    closed = (load / mean**2 - (load @ load / 4) / mean**3) / (4 * cv)
    np.testing.assert_allclose(slope(metrics.coefficient_of_variation, load), closed, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_loads_at_the_end_of_the_range(dtype):
    """The reciprocal of the largest numbers is below the least normal one, which is flushed to 0."""
    largest = float(jnp.finfo(dtype).max)
    measures = [*UNEVENNESS, lambda x: metrics.group_cv(x, PAIRS), lambda x: metrics.group_cv_per_expert(x, PAIRS)]
    for load, expected in (
        ([largest, 0, 0, 0], [math.sqrt(3), 3, 3, 1, 1]),
        ([largest, 1, 1, 1], [math.sqrt(3), 3, 3, 1, 1]),
        ([largest, largest, 0, 0], [1, 1, 1, 1, 1]),
        ([largest] * 4, [0, 0, 0, 0, 0]),
    ):
        found = [float(run(measure, np.array(load, dtype))) for measure in measures]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_counts_and_layers(dtype):
    """Whole numbers are loads, and every axis but the last stays."""
    counts = np.array([[[3, 0, 5, 1], [7, 7, 7, 7]], [[0, 0, 0, 0], [200, 0, 0, 0]]], dtype)
    for measure in (*UNEVENNESS, metrics.group_cv, metrics.group_cv_per_expert):
        static = (PAIRS,) if "group" in measure.__name__ else ()
        found = run(measure, counts, static=static)
        assert found.shape == (2, 2)
        assert found.dtype == jnp.float64
        single = [[float(run(measure, one.astype(float), static=static)) for one in layer] for layer in counts]
        np.testing.assert_array_equal(found, single)


def test_counts_beyond_what_32_bits_hold():
    with jax.enable_x64(False):
        for measure in UNEVENNESS:  # 2^32 + 1 would be 1
            assert float(measure(np.array([2**32 + 1, 2**32 - 1]))) == 0.0
            assert float(measure(np.array([2**33, 0]))) == 1.0


def test_every_token_counts_in_float32():
    """One by one, float32 counts to 2^24 and stays there."""
    tokens = 2**24 + 2**23
    with jax.enable_x64(False):
        flags = jnp.ones((tokens, 1), bool)
        assert float(metrics.hard_load(flags)[0]) == 1.0
        assert float(metrics.co_activation(flags)[0, 0]) == 1.0
        assert float(metrics.groups_touched(flags, Partition((0,)))) == 1.0
        labels = jnp.zeros(tokens, jnp.int32)
        assert float(metrics.contingency(labels, flags, 1)[0, 0]) == tokens


def test_products_of_many_tokens_are_taken_in_parts(monkeypatch):
    monkeypatch.setattr(_common, "EXACT", 4)
    chosen = np.random.default_rng(0).random((11, 3)) < 0.5
    flags = jnp.asarray(chosen)
    np.testing.assert_array_equal(_common.joint_counts(flags, flags), chosen.T.astype(int) @ chosen)


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match=r"`load` must not be negative; its smallest entry is -0\.25"):
        metrics.coefficient_of_variation(jnp.array([1.0, -0.25]))
    with pytest.raises(ValueError, match=r"`load` must be finite; 1 of 3 are not, the first at \(1,\)"):
        metrics.max_violation(jnp.array([1.0, np.nan, 2.0]))
    with pytest.raises(ValueError, match=r"`load` must have axes \(experts\); got shape \(\)"):
        metrics.max_absolute_violation(jnp.ones(()))
    with pytest.raises(ValueError, match=r"`load` must have at least one of its layers; got shape \(0, 3\)"):
        metrics.max_absolute_violation(jnp.ones((0, 3)))
    with pytest.raises(ValueError, match="`load` must be floating; got dtype bool"):
        metrics.max_violation(jnp.ones(3, bool))
    with pytest.raises(ValueError, match="partition has 5 experts, `load` has 4"):
        metrics.group_cv(jnp.ones(4), UNEQUAL)
    with pytest.raises(ValueError, match="partition has 5 experts, `load` has 6"):
        metrics.group_cv_per_expert(jnp.ones(6), UNEQUAL)
    with pytest.raises(ValueError, match=r"`selected` must have at least one of its tokens; got shape \(0, 3\)"):
        metrics.hard_load(jnp.zeros((0, 3), bool))
    with pytest.raises(ValueError, match="`selected` must be boolean; got dtype float64"):
        metrics.hard_load(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="`probs` must be floating; got dtype bool"):
        metrics.soft_load(jnp.asarray(SELECTED))
    with pytest.raises(ValueError, match="2 of 3 kept routes are not active"):
        metrics.drop_rate(jnp.array([[True, False, False]]), jnp.array([[True, True, True]]))
    with pytest.raises(ValueError, match=r"`kept` must have the shape of `active`, \(1, 2\); got \(2, 1\)"):
        metrics.drop_rate(jnp.ones((1, 2), bool), jnp.ones((2, 1), bool))
    with pytest.raises(ValueError, match=r"`routes` must be at most 4 \(num_experts\); got 5"):
        metrics.max_cv(4, 5)
    with pytest.raises(ValueError, match="`routes` must be at least 1; got 0"):
        metrics.max_cv(4, 0)
