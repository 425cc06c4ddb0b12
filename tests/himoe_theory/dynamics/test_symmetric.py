"""Specialisation from the symmetric state, the purity at which groups flip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition, dynamics
from himoe_theory import objectives as obj

RNG = np.random.default_rng(4)
X = RNG.normal(size=(20, 3))


def fit(targets):
    shared = np.linalg.lstsq(X, targets, rcond=None)[0]
    return shared, targets - X @ shared


def loss(experts, targets):
    def value(flat):
        rows, slopes = jnp.split(flat.reshape(2 * experts, -1), 2)
        mixed = (jax.nn.softmax(X @ rows.T) * (X @ slopes.T)).sum(axis=1)
        return jnp.square(jnp.asarray(targets) - mixed).mean() / 2

    return value


def test_moment_hand_value_and_linear_target():
    found = dynamics.residual_moment(jnp.array([[1.0, 2.0], [0.0, 1.0]]), jnp.array([3.0, -1.0]))
    np.testing.assert_allclose(found, [[1.5, 3.0], [3.0, 5.5]], rtol=1e-15)
    _, residual = fit(X @ np.array([1.0, 2.0, -3.0]))
    np.testing.assert_allclose(dynamics.residual_moment(jnp.asarray(X), jnp.asarray(residual)), 0.0, atol=1e-13)


@pytest.mark.parametrize("experts", [2, 3, 5])
def test_smallest_curvature_is_that_of_the_whole_loss(experts):
    targets = np.abs(X[:, 0]) - 0.3 * X[:, 1] ** 2
    shared, residual = fit(targets)
    start = np.concatenate([np.zeros((experts, 3)), np.tile(shared, (experts, 1))]).ravel()
    hessian = jax.hessian(loss(experts, targets))(jnp.asarray(start))
    moment = dynamics.residual_moment(jnp.asarray(X), jnp.asarray(residual))
    found = dynamics.smallest_curvature(moment, experts)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(hessian)[0], rtol=1e-10)
    assert found < -0.01


def test_simulated_growth_has_the_predicted_rate():
    targets = np.abs(X[:, 0])
    shared, residual = fit(targets)
    moment = dynamics.residual_moment(jnp.asarray(X), jnp.asarray(residual))
    experts, router_rate, expert_rate = 3, 0.5, 0.2
    predicted = float(dynamics.specialisation_rates(moment, experts, router_rate, expert_rate)[0])
    values, vectors = np.linalg.eigh(moment)
    top = int(np.abs(values).argmax())
    rows = np.outer([1.0, 1.0, -2.0], vectors[:, top]) * 1e-4
    signed = np.sign(values[top]) * rows
    start = jnp.asarray(np.concatenate([np.sqrt(router_rate) * rows, shared + np.sqrt(expert_rate) * signed]).ravel())
    rates = jnp.repeat(jnp.array([router_rate, expert_rate]), 9)
    pushed = -rates * jax.grad(loss(experts, targets))(start)
    growth = np.asarray(pushed)[:9] / np.asarray(start)[:9]
    np.testing.assert_allclose(growth, predicted, rtol=1e-3)


def test_rates_are_sorted_and_scale():
    moment = jnp.diag(jnp.array([0.5, -2.0, 1.0]))
    np.testing.assert_allclose(dynamics.specialisation_rates(moment, 4, 4.0, 1.0), [1.0, 0.5, 0.25], rtol=1e-14)
    np.testing.assert_allclose(dynamics.smallest_curvature(moment, 4), -0.5, rtol=1e-14)


def test_flip_purity_is_where_a_group_stops_to_balance():
    intra, inter = 0.1, 0.05
    assert dynamics.flip_purity(intra, inter) == 0.5
    assert dynamics.group_coefficient(0.5, intra, inter) == 0.0
    assert dynamics.group_coefficient(1.0, 0.0, inter) == inter

    def value(shift, inside):
        logits = jnp.concatenate([inside + shift, inside])[None]
        mass = obj.inter_group_dense(logits, Partition((0, 0, 0, 1, 1, 1)))
        return inter * mass + intra * obj.intra_group_global(logits)

    bend = jax.jit(jax.hessian(value))
    # Equal groups of three: uniform inside has the purity 1/3 and balances, a sharp choice collapses.
    assert bend(0.0, jnp.zeros(3)) > 0 > bend(0.0, jnp.array([4.0, 0.0, 0.0]))


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match="`residuals` has 2 tokens, `inputs` has 3"):
        dynamics.residual_moment(jnp.ones((3, 2)), jnp.ones(2))
    with pytest.raises(ValueError, match=r"`inputs` must have axes \(tokens, dim\); got shape \(3,\)"):
        dynamics.residual_moment(jnp.ones(3), jnp.ones(3))
    with pytest.raises(ValueError, match=r"`moment` must be square; got shape \(2, 3\)"):
        dynamics.smallest_curvature(jnp.ones((2, 3)), 4)
    with pytest.raises(ValueError, match="`router_rate` must be finite and at least 0; got -1"):
        dynamics.specialisation_rates(jnp.eye(2), 4, -1.0, 1.0)
    with pytest.raises(ValueError, match=r"`purity` must be finite and in \[0, 1\]; got 2"):
        dynamics.group_coefficient(2.0, 0.1, 0.1)
    with pytest.raises(ValueError, match="`lambda_intra` must be above 0; got 0"):
        dynamics.flip_purity(0.0, 0.1)
