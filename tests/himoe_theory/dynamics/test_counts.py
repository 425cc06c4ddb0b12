"""Loads that stop the common mode of spread logits: against other quadratures, other formulas, and limits."""

import itertools
import math
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from himoe_theory import dynamics
from himoe_theory import objectives as obj


def by_grid(spread, experts):
    """E of ||pi||^2, sum pi^3, ||pi||^4 by Gauss-Hermite in every logit."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120 if experts == 2 else 40)
    grid = np.array(list(itertools.product(nodes, repeat=experts)))
    weight = np.array([math.prod(w) for w in itertools.product(weights / weights.sum(), repeat=experts)])
    probs = np.asarray(jax.nn.softmax(jnp.asarray(spread * grid)))
    square = (probs**2).sum(axis=1)
    return weight @ square, weight @ (probs**3).sum(axis=1), weight @ square**2


@pytest.mark.parametrize(("spread", "experts"), [(0.3, 2), (1.5, 2), (0.8, 3)])
def test_push_and_slope_against_a_grid(spread, experts):
    second, third, fourth = by_grid(spread, experts)
    push = (2 * second - 8 * third + 6 * fourth) / (experts - 1)
    np.testing.assert_allclose(dynamics.spread_push(spread, experts), push, rtol=1e-8)
    np.testing.assert_allclose(dynamics.spread_slope(spread, experts), (1 - second) / (experts - 1), rtol=1e-8)


def test_push_and_slope_are_derivatives_of_the_objectives():
    """In an offset, by finite differences of the objectives over the same quadrature."""
    spread, experts, step = 0.7, 3, 1e-4
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    grid = spread * np.array(list(itertools.product(nodes, repeat=experts)))
    weight = np.array([math.prod(w) for w in itertools.product(weights / weights.sum(), repeat=experts)])
    offset = np.array([1.0, 0.5, -1.5])

    def at(sign):
        logits = jnp.asarray(grid + sign * step * offset)
        force = -len(grid) * np.asarray(obj.intra_group_global_grad(logits))
        return weight @ force, weight @ np.asarray(jax.nn.softmax(logits))

    (up, more), (down, less) = at(1), at(-1)
    np.testing.assert_allclose((up - down) / (2 * step), dynamics.spread_push(spread, experts) * offset, rtol=1e-5)
    np.testing.assert_allclose((more - less) / (2 * step), dynamics.spread_slope(spread, experts) * offset, rtol=1e-5)


@pytest.mark.parametrize(("candidates", "routes"), [(2, 1), (4, 1), (4, 3), (7, 3)])
def test_slope_of_counts_against_the_chance_of_selection(candidates, routes):
    """The chance that at most k - 1 of the others lie above, with the offsets of a mode on them."""
    spread, step, others = 0.6, 1e-3, candidates - 1

    def chance(offset):
        # One expert moves by `offset`, each other by -offset / (n - 1).
        def density(x):
            above = scipy.stats.norm.sf(x + offset / others, scale=spread)
            few = scipy.stats.binom.cdf(routes - 1, others, above)
            return scipy.stats.norm.pdf(x - offset, scale=spread) * few

        return scipy.integrate.quad(density, -8, 8, epsabs=0, epsrel=1e-11, limit=400)[0]

    slope = (chance(step) - chance(-step)) / (2 * step)
    np.testing.assert_allclose(dynamics.count_slope(spread, candidates, routes), slope, rtol=1e-5)


@pytest.mark.parametrize("spread", [0.05, 0.4, 2.0, 9.0])
def test_two_experts_are_the_window_of_collapse(spread):
    # `collapse_ratio` takes the spread of the difference of two logits.
    ratio = dynamics.collapse_ratio(jnp.asarray(math.sqrt(2) * spread))
    np.testing.assert_allclose(dynamics.critical_load_hard(spread, 1.0, 2, 1), ratio, rtol=1e-6)


def test_limits():
    push, slope = dynamics.spread_push(1e-3, 8), dynamics.spread_slope(1e-3, 8)
    np.testing.assert_allclose([push, slope], [2 / 64, 1 / 8], rtol=1e-5)
    # Soft loads at equal logits: the thresholds of D1.
    np.testing.assert_allclose(push / (2 * 8 * slope**2), dynamics.critical_load_full(1.0, 8), rtol=1e-5)
    np.testing.assert_allclose(push / (8 * slope**2), dynamics.critical_load_frozen(1.0, 8), rtol=1e-5)
    # Nearly equal logits need a load in proportion to the spread; one of two: (1/2) / (sigma sqrt(pi)) * 2.
    ratio = dynamics.critical_load_hard(1e-3, 1.0, 8, 2) / dynamics.critical_load_hard(2e-3, 1.0, 8, 2)
    assert ratio == pytest.approx(0.5, rel=1e-4)
    assert dynamics.count_slope(1.0, 2, 1) == pytest.approx(1 / math.sqrt(math.pi), rel=1e-12)


@pytest.mark.parametrize("experts", [2, 9])
def test_nodes_change_and_the_function_does_not(experts):
    spreads = np.array([1.97, 1.98, 1.99, 2.0, 2.01, 2.02])
    for function in (dynamics.spread_push, dynamics.spread_slope):
        values = np.array([function(float(s), experts) for s in spreads])
        # Fifth differences of a smooth function vanish.
        assert abs(np.diff(values, 5)[0]) < 1e-8 * values[0]


@pytest.mark.parametrize("experts", [2, 5])
def test_logits_far_apart_choose_and_little_memory_does(experts):
    """A choice between two experts of N remains: push and slope fall as the cube and the first power of the spread."""
    norm = scipy.stats.norm
    ties = scipy.integrate.quad(lambda x: norm.cdf(x) ** (experts - 2) * norm.pdf(x) ** 2, -9, 9, epsabs=0)[0]
    tracemalloc.start()
    for spread, tolerance in ((300.0, 1e-4), (1e6, 1e-9)):
        assert dynamics.spread_push(spread, experts) * spread**3 == pytest.approx(experts * ties, rel=tolerance)
        assert dynamics.spread_slope(spread, experts) * spread == pytest.approx(experts * ties, rel=30 / spread)
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()


def test_groups_share_the_routes():
    """Four groups of two that select one each: an expert's share of all routes is a quarter of its group's."""
    push, slope, chance = dynamics.spread_push(0.8, 8), dynamics.spread_slope(0.8, 8), dynamics.count_slope(0.8, 2, 1)
    assert dynamics.critical_load_hard(0.8, 0.5, 8, 1, 2) == pytest.approx(0.5 * push / (8 * slope * chance / 4))


@given(spread=st.floats(0.05, 8.0), experts=st.integers(2, 12), data=st.data())
def test_properties(spread, experts, data):
    routes = data.draw(st.integers(1, experts - 1))
    # The k best and the n - k worst: the same boundary.
    one, other = (dynamics.count_slope(spread, experts, k) for k in (routes, experts - routes))
    assert one == pytest.approx(other, rel=1e-9)
    assert 0 < dynamics.spread_slope(spread, experts) <= (1 + 1e-9) / experts
    load = dynamics.critical_load_hard(spread, 0.3, experts, routes)
    assert load == pytest.approx(0.3 * dynamics.critical_load_hard(spread, 1.0, experts, routes), rel=1e-12)
    # One group of all experts is free selection.
    assert load == dynamics.critical_load_hard(spread, 0.3, experts, routes, experts)


def test_errors_name_rule_and_values():
    with pytest.raises(ValueError, match="`spread` must be above 0; got 0"):
        dynamics.spread_push(0.0, 4)
    with pytest.raises(ValueError, match=r"`routes` must be at most 3 .*; got 4"):
        dynamics.count_slope(1.0, 4, 4)
    with pytest.raises(ValueError, match="`group_size` must divide `num_experts`; got 3 and 8"):
        dynamics.critical_load_hard(1.0, 1.0, 8, 1, 3)
    with pytest.raises(ValueError, match="`num_experts` must be at least 2; got 1"):
        dynamics.spread_slope(1.0, 1)
