"""The floor of MaxVio and the window of collapse under hard counts, against simulation and direct quadrature."""

import math
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from himoe_theory import dynamics, metrics


def test_expected_maximum_closed_forms():
    root = math.sqrt(math.pi)
    exact = [0.0, 1 / root, 1.5 / root, 3 / root * (0.5 + math.asin(1 / 3) / math.pi)]
    np.testing.assert_allclose([dynamics.expected_maximum(n) for n in range(1, 5)], exact, rtol=1e-13, atol=1e-15)
    for count in (10, 1000, 10**6):
        assert 0 < dynamics.expected_maximum(count) < math.sqrt(2 * math.log(count))


@pytest.mark.parametrize(("experts", "routes"), [(2, 1), (6, 2), (16, 1)])
def test_floor_against_draws(experts, routes):
    tokens, batches = 400, 500
    keys = np.random.default_rng(experts).random((batches, tokens, experts))
    counts = (np.argsort(np.argsort(keys, axis=-1), axis=-1) < routes).sum(axis=1).astype(float)
    found = np.asarray(jax.vmap(metrics.max_violation)(jnp.asarray(counts)))
    error = found.std() / math.sqrt(batches)
    # Four standard errors, and the correction to the normal limit.
    assert abs(found.mean() - dynamics.max_violation_floor(experts, routes, tokens)) < 4 * error + 0.01 * found.mean()


def test_floor_at_full_selection_and_by_hand():
    assert dynamics.max_violation_floor(8, 8, 100) == 0.0
    # Two experts: E|2 n - T|/T tends to sqrt(2/(pi T)).
    assert dynamics.max_violation_floor(2, 1, 100) == pytest.approx(math.sqrt(2 / math.pi) / 10, rel=1e-13)


@pytest.mark.parametrize("spread", [0.01, 0.7, 4.0, 60.0])
def test_collapse_ratio_against_direct_quadrature(spread):
    def weight(d):
        return 0.25 / math.cosh(d / 2) ** 2

    def mean(f):
        reach = min(12 * spread, 80.0)
        density = scipy.stats.norm(scale=spread).pdf
        return 2 * scipy.integrate.quad(lambda d: f(d) * density(d), 0, reach, epsabs=0, epsrel=1e-11, limit=200)[0]

    curve = mean(lambda d: weight(d) * (6 * weight(d) - 1))  # -w'', before integration by parts
    expected = spread * math.sqrt(2 * math.pi) * curve / (2 * mean(weight))
    # The direct form loses digits at a large spread, where -w'' integrates to nearly 0.
    np.testing.assert_allclose(dynamics.collapse_ratio(spread), expected, rtol=1e-6)


def test_collapse_ratio_limits_and_window():
    ratio = dynamics.collapse_ratio(jnp.array([1e-3, 1e3]))
    np.testing.assert_allclose(ratio, [math.sqrt(math.pi / 8) * 1e-3, math.sqrt(math.pi / 2) * 1e-3], rtol=1e-5)
    assert dynamics.collapse_window(0.05, 0.1) is None
    window = dynamics.collapse_window(0.01, 0.1)
    np.testing.assert_allclose([float(dynamics.collapse_ratio(end)) for end in window], 0.1, rtol=1e-12)
    np.testing.assert_allclose(window, [0.162726, 12.268324], rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match="`count` must be at least 1; got 0"):
        dynamics.expected_maximum(0)
    with pytest.raises(ValueError, match=r"`routes` must be at most 4 \(num_experts\); got 5"):
        dynamics.max_violation_floor(4, 5, 10)
    with pytest.raises(ValueError, match="`tokens` must be at least 1; got 0"):
        dynamics.max_violation_floor(4, 1, 0)
    with pytest.raises(ValueError, match="`spread` must be above 0; got 0"):
        dynamics.collapse_ratio(0.0)
    with pytest.raises(ValueError, match="`alpha` must be above 0; got 0"):
        dynamics.collapse_window(0.0, 0.1)


def test_the_floor_has_both_limits():
    # Slow biases leave sampling alone.
    assert dynamics.bias_walk_floor(1e-6, 8, 2, 256) == pytest.approx(dynamics.max_violation_floor(8, 2, 256), rel=1e-2)
    # Without sampling a bias jumps across balance: it is uniform in (-u, u), and its load N/(N-1) times that.
    largest = 0.01 * 8 / 7 * (1 - 2 / 9) / 0.25
    assert dynamics.bias_walk_floor(0.01, 8, 2, 10**9) == pytest.approx(largest, rel=0.05)


@pytest.mark.parametrize(("experts", "routes", "tokens"), [(8, 2, 256), (2, 1, 30)])
def test_slow_and_fast_biases_are_one_curve_and_need_little_memory(experts, routes, tokens):
    share = routes / experts
    noise = math.sqrt(share * (1 - share) / tokens)
    tracemalloc.start()
    lattice, normal = (
        dynamics.bias_walk_floor(factor * noise, experts, routes, tokens) for factor in (1.0001e-3, 0.9999e-3)
    )
    sampling = dynamics.max_violation_floor(experts, routes, tokens)
    # The squares of spreads add: the walk's part is proportional to the rate.
    walk = (lattice / sampling) ** 2 - 1
    assert walk == pytest.approx((normal / sampling) ** 2 - 1, rel=1e-3)
    assert lattice == pytest.approx(normal, rel=1e-6)
    slow = dynamics.bias_walk_floor(1e-9, experts, routes, tokens)
    assert (slow / sampling) ** 2 - 1 == pytest.approx(walk * 1e-9 / (1e-3 * noise), rel=1e-3)
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


def test_the_walk_names_rule_and_values():
    with pytest.raises(ValueError, match=r"`rate` must be below 0\.25, the mean share of an expert; got 0\.3"):
        dynamics.bias_walk_floor(0.3, 8, 2, 256)
    with pytest.raises(ValueError, match=r"`routes` must be at most 7 .*; got 8"):
        dynamics.bias_walk_floor(0.1, 8, 8, 256)
