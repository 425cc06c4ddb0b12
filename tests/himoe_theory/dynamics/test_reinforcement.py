"""Reinforced scores and their controllers: transitions, dead experts, the loss-free bias."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import dynamics
from himoe_theory import objectives as obj

SCORES = jnp.array([0.3, -1.0, 0.7, 0.2])


def test_reinforcement_descends_the_potential():
    plant = (1.3, 0.4, 0.8)
    slope = jax.grad(dynamics.potential)(SCORES, *plant)
    np.testing.assert_allclose(dynamics.reinforcement(SCORES, *plant), -slope, rtol=1e-13)


def test_thresholds_by_hand_and_by_search():
    assert dynamics.spinodal(2) == dynamics.coexistence(2) == dynamics.uniform_limit(2) == 2.0
    assert dynamics.coexistence(3) == pytest.approx(4 * math.log(2), rel=1e-15)
    for experts in (3, 8, 64):
        shares = np.linspace(1 / experts + 1e-4, 1 - 1e-6, 200001)
        lowest = np.asarray(dynamics.collapsed_control(jnp.asarray(shares), experts)).min()
        np.testing.assert_allclose(dynamics.spinodal(experts), lowest, rtol=1e-8)
        assert dynamics.spinodal(experts) < dynamics.coexistence(experts) < dynamics.uniform_limit(experts)


@pytest.mark.parametrize(("pull", "load"), [(0.25, obj.load_frozen_grad), (0.5, obj.p_squared_grad)])
def test_uniform_rate_with_either_load(pull, load):
    gain, decay, beta, alpha = 1.3, 0.4, 0.8, 0.25

    def field(x):
        return dynamics.reinforcement(x, gain, decay, beta) - alpha * beta * load(beta * x[None])[0]

    mode = jnp.array([1.0, -3.0, 2.0, 0.0])
    _, moved = jax.jvp(field, (jnp.zeros(4),), (mode,))
    np.testing.assert_allclose(moved, dynamics.uniform_rate(gain, decay, beta, 4, pull) * mode, atol=1e-14)


def test_folds_of_two_experts():
    g, field = dynamics.pair_folds(jnp.array([0.0, 0.5, 1e-3]))
    np.testing.assert_allclose(g[:2], [1.0, math.cosh(0.5) ** 2], rtol=1e-15)
    np.testing.assert_allclose(field[1], 0.5 - math.sinh(0.5) * math.cosh(0.5), rtol=1e-14)
    np.testing.assert_allclose(field[2] ** 2 / (g[2] - 1) ** 3, 4 / 9, rtol=1e-4)


EXAMPLE = (8, 1.0, 0.05, 1.0)


def jacobian(probs, alpha, experts, gain, decay, beta):
    """Of the scores at a state with these probabilities, frozen load."""
    scores = jnp.log(jnp.asarray(probs)) / beta

    def field(x):
        push = alpha * beta * obj.load_frozen_grad(beta * x[None])[0]
        return dynamics.reinforcement(x, gain, decay, beta) - push

    return np.asarray(jax.jacfwd(field)(scores))


@pytest.mark.parametrize("live", [3, 5, 8])
def test_live_experts_are_stable_above_their_threshold_alone(live):
    threshold = dynamics.live_threshold_frozen(live, *EXAMPLE)
    assert dynamics.live_threshold_full(live, *EXAMPLE) == threshold / 2
    probs = np.full(8, 1e-30)
    probs[:live] = 1 / live
    for share, stable in ((0.99, False), (1.01, True)):
        values = np.linalg.eigvals(jacobian(probs, share * threshold, *EXAMPLE)[:live, :live])
        assert (np.sort(values.real)[-2 if live > 2 else -1] < 0) == stable


def test_staircase_hand_values():
    found = [dynamics.live_threshold_frozen(n, *EXAMPLE) for n in range(2, 9)]
    np.testing.assert_allclose(found, [0.225, 0.31875, 0.4, 0.46875, 0.525, 0.56875, 0.6], rtol=1e-14)


def test_upper_end_is_where_no_such_state_is_left():
    end = dynamics.live_upper_end_frozen(5, *EXAMPLE)
    dead = np.exp(np.linspace(-25, math.log(0.124), 20001))
    values = np.asarray(dynamics.live_coefficient_frozen(jnp.asarray((1 - 3 * dead) / 5), 5, *EXAMPLE))
    np.testing.assert_allclose(values.max(), end, rtol=1e-6)
    assert end == pytest.approx(1.5727, abs=1e-4)
    # Strong decay: the coefficient rises all the way to uniform routing, where its value is the limit.
    assert dynamics.live_upper_end_frozen(7, 8, 1.0, 0.12, 1.0) == pytest.approx(0.04, rel=1e-12)


def test_bias_matrix_and_period():
    rate, experts, gain, decay, beta = 0.2, 6, 1.3, 0.1, 0.8

    def field(z):
        probs = jax.nn.softmax(beta * (z[:6] + z[6:]))
        return jnp.concatenate([gain * probs - decay * z[:6], -rate * (probs - 1 / 6)])

    values = np.linalg.eigvals(np.asarray(jax.jacfwd(field)(jnp.zeros(12))))
    roots = np.roots([
        1, -dynamics.bias_trace(rate, experts, gain, decay, beta), dynamics.bias_determinant(rate, experts, decay, beta)
    ])  # fmt: skip
    for root in roots:
        assert np.abs(values - root).min() < 1e-9
    critical = dynamics.bias_threshold(experts, gain, decay, beta)
    assert dynamics.bias_trace(critical, experts, gain, decay, beta) == pytest.approx(0.0, abs=1e-16)
    assert critical == pytest.approx(0.55, rel=1e-14)
    assert dynamics.hopf_period(0.588, 8, 0.05, 1.0) == pytest.approx(103.645, abs=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match="`num_experts` must be at least 2; got 1"):
        dynamics.spinodal(1)
    with pytest.raises(ValueError, match="`beta` must be above 0; got 0"):
        dynamics.uniform_rate(1.0, 1.0, 0.0, 4)
    with pytest.raises(ValueError, match=r"`scores` must have axes \(experts\); got shape \(1, 4\)"):
        dynamics.reinforcement(SCORES[None], 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="`p` must be above 0; got 0"):
        dynamics.collapsed_control(0.0, 4)
    with pytest.raises(ValueError, match=r"`live` must be at most 8 \(num_experts\); got 9"):
        dynamics.live_threshold_frozen(9, *EXAMPLE)
    with pytest.raises(ValueError, match="`live` must be at least 2; got 1"):
        dynamics.live_upper_end_frozen(1, *EXAMPLE)
    with pytest.raises(ValueError, match=r"`1/live - p` must be above 0; got -0\.3"):
        dynamics.live_coefficient_frozen(0.5, 5, *EXAMPLE)
    with pytest.raises(ValueError, match="`rate` must be above 0; got 0"):
        dynamics.hopf_period(0.0, 8, 0.05, 1.0)
    with pytest.raises(ValueError, match="`rate` must be finite and at least 0; got -1"):
        dynamics.bias_trace(-1.0, *EXAMPLE)
