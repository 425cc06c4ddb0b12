"""The staged experiment of Kawata et al.: its steps against autodiff, its stages, its outcome."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simulations.data import SingleIndex
from simulations.kawata import Carry, Kawata, activation, expert_step, router_step, second_layer_inputs

EPS = np.finfo(np.float32).eps
TINY = Kawata(
    data=SingleIndex(clusters=2, dim=8), seeds=(0, 3), experts=3, neurons=2, batch=64, explore=6, route=4, exploit=5,
    tokens=256,
)  # fmt: skip


@pytest.fixture(scope="module")
def state():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(3, 2, 8))
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    draws = [rng.normal(size=shape) for shape in ((3, 8), (20, 8), (20,))]
    router, x, y = (jnp.asarray(draw, jnp.float32) for draw in draws)
    return Carry(jnp.asarray(first, jnp.float32), 0.3 * router, jnp.asarray(first, jnp.float32)), x, y


def test_the_activation_is_the_orthonormal_third_hermite_polynomial():
    z = jnp.linspace(-2, 2, 9)
    np.testing.assert_allclose(activation(TINY, z), (z**3 - 3 * z) / 6**0.5, atol=1e-12)


def test_an_expert_step_climbs_the_correlation_on_the_sphere(state):
    carry, x, _ = state
    pull = jnp.asarray(np.random.default_rng(1).normal(size=(20, 3)), jnp.float32)

    def correlation(first):
        return (activation(TINY, jnp.einsum("td,ejd->tej", x, first)) * pull[:, :, None]).sum()

    slope = np.asarray(jax.jit(jax.grad(correlation))(carry.first), float)
    w = np.asarray(carry.first, float)
    tangent = slope - (slope * w).sum(axis=-1, keepdims=True) * w
    expected = w + 0.05 * tangent
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    found = jax.jit(expert_step, static_argnums=0)(TINY, carry.first, x, pull)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(tangent).max() > 1


def test_a_router_step_climbs_the_correlation(state):
    carry, x, y = state

    def correlation(router):
        outputs = activation(TINY, jnp.einsum("td,ejd->tej", x, carry.first)).mean(axis=2)
        return (y * (jax.nn.softmax(x @ router.T, axis=1) * outputs).sum(axis=1)).mean()

    expected = carry.router + jnp.float32(TINY.router_rate) * jax.jit(jax.grad(correlation))(carry.router)
    found = jax.jit(router_step, static_argnums=0)(TINY, carry, x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_second_layer_inputs_hold_the_chosen_experts_neurons_and_a_constant(state):
    carry, x, _ = state
    hidden = np.asarray(activation(TINY, jnp.einsum("td,ejd->tej", x, carry.first)))
    own = np.asarray(second_layer_inputs(TINY, carry.first, carry.router, x)).reshape(20, 3, 3)
    for t, expert in enumerate(np.asarray(x @ carry.router.T).argmax(axis=1)):
        np.testing.assert_array_equal(own[t, expert], [*hidden[t, expert], 1])
        assert np.count_nonzero(own[t]) <= 3
    pooled = second_layer_inputs(TINY, carry.first, None, x)
    np.testing.assert_array_equal(pooled, np.column_stack([hidden.reshape(20, 6), np.ones(20)]))


@pytest.fixture(scope="module")
def result():
    return TINY.simulate()


def test_stages_move_one_block_each(result):
    overlap = result["shared_overlap"]
    mixture, pooled = overlap.sel(network="mixture"), overlap.sel(network="pooled")
    # Until the router moves, the two networks are the same.
    np.testing.assert_array_equal(mixture.isel(step=slice(7)), pooled.isel(step=slice(7)))
    assert (mixture.isel(step=slice(6)).std("step") > 0).all()
    held = mixture.isel(step=slice(6, 10))
    np.testing.assert_array_equal(held, held.isel(step=[0] * 4))
    assert (pooled.isel(step=slice(6, 10)).std("step") > 0).all()
    assert (np.abs(mixture.isel(step=10) - mixture.isel(step=9)) > 1e-3).all()  # drawn anew


def test_results_are_complete_and_repeat(result):
    assert dict(result.sizes) == {"seed": 2, "step": 15, "network": 2, "label": 2, "expert": 3}
    np.testing.assert_allclose(result["hard_load"].sum("expert"), 1, rtol=10 * EPS)
    np.testing.assert_allclose(result["exact_moment"], [[1, -1]] * 2, atol=1e-12)
    assert all(np.isfinite(result[name]).all() for name in result.data_vars)
    assert ((result["information"] >= 0) & (result["information"] <= 1)).all()
    again = TINY.simulate()
    for name in result.data_vars:
        np.testing.assert_array_equal(again[name], result[name])
    assert (result["test_error"].sel(seed=0) != result["test_error"].sel(seed=3)).all()


@pytest.mark.deep
@pytest.mark.usefixtures("optimised")
def test_the_mixture_finds_what_the_pooled_network_does_not():
    result = Kawata().simulate()
    overlap = result["shared_overlap"].isel(step=-1)
    assert (overlap.sel(network="mixture") > 0.9).mean() > 0.5
    assert (overlap.sel(network="pooled") < 0.5).mean() > 0.5
    error = result["test_error"]
    assert (error.sel(network="mixture") < error.sel(network="pooled")).mean() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": 0}, "`experts` must be at least 1; got 0"),
        ({"seeds": ()}, "`number of seeds` must be at least 1; got 0"),
        ({"seeds": (0, 2**31)}, "`seeds` must be at most 2147483647; got 2147483648"),
        ({"router_rate": -1.0}, "`router_rate` must be above 0; got -1"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        Kawata(**change)
    assert "\n" not in str(caught.value)
