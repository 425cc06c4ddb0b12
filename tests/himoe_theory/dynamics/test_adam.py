"""Adam near a state of rest, against optax and by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from himoe_theory import dynamics


def trained(optimizer, rates, start, steps):
    """Amplitudes after every step of modes whose descent is `rates` times themselves."""
    rates = jnp.asarray(rates)

    def step(carry, _):
        z, state = carry
        change, state = optimizer.update(-rates * z, state)
        return (z + change, state), z + change

    with jax.numpy_dtype_promotion("standard"):
        state = jnp.full(rates.shape, start), optimizer.init(rates)
        return np.asarray(jax.lax.scan(step, state, length=steps)[1])


@pytest.mark.parametrize("beta1", [0.0, 0.9, 0.97])
def test_rate_far_below_epsilon(beta1):
    rates = np.array([1.5, 0.2])
    optimizer = optax.adam(2e-3, b1=beta1, eps=1e-2)
    size = np.log(np.abs(trained(optimizer, rates, 1e-60, 400)))
    measured = (size[-1] - size[-101]) / 100
    np.testing.assert_allclose(dynamics.adam_rate(rates, 2e-3, 1e-2, beta1), measured, rtol=1e-3)


def test_rate_by_hand():
    # beta 0: plain steps. A small rate: eta rho / epsilon. rho 0: nothing grows.
    assert dynamics.adam_rate(np.array(3.0), 0.1, 1.0, 0.0) == pytest.approx(math.log(1.3), rel=1e-14)
    assert dynamics.adam_rate(np.array(1e-6), 1e-3, 1e-2) == pytest.approx(1e-7, rel=1e-5)
    assert abs(dynamics.adam_rate(np.array(0.0), 1e-3, 1e-2)) < 1e-14
    # Complex roots, of modulus sqrt(beta): a mode that decays fast rings with the momentum.
    assert dynamics.adam_rate(np.array(-40.0), 0.1, 1.0) == pytest.approx(math.log(0.9) / 2, rel=1e-14)


@pytest.mark.parametrize("start", [0.0, 3.0])
def test_growth_is_that_of_optax_for_any_rate(start):
    rates = np.array([1e-4, 1.0, 50.0])
    found = trained(optax.adam(0.01, eps=1e-40), rates, 0.01 * start or 1e-14, 200) / 0.01
    curve = dynamics.adam_growth(200, start=start)
    np.testing.assert_allclose(found, np.tile(curve[1:, None], 3), rtol=1e-9)


def test_growth_by_hand():
    # Steps 1 and 2: the first has length 1; then m = .1 and v = .001, each over 1 less the square of its beta.
    curve = dynamics.adam_growth(2)
    second = 0.1 / (1 - 0.9**2) / math.sqrt(0.001 / (1 - 0.999**2))
    np.testing.assert_allclose(curve, [0, 1, 1 + second], rtol=1e-14)
    speed = np.diff(dynamics.adam_growth(30_000))
    assert speed[100] == pytest.approx(math.sqrt(3), rel=0.1)
    assert speed[-1] == pytest.approx(1, rel=0.05)


@given(beta1=st.floats(0, 0.98), beta2=st.floats(0, 0.9999), start=st.floats(0, 100))
def test_growth_rises(beta1, beta2, start):
    curve = dynamics.adam_growth(20, beta1, beta2, start)
    assert curve[0] == start
    assert (np.diff(curve) > 0).all()


def test_no_memory_is_the_sign_of_the_gradient():
    np.testing.assert_allclose(dynamics.adam_growth(5, 0.0, 0.0, 2.0), 2 + np.arange(6.0), rtol=1e-14)


def test_errors_name_rule_and_values():
    with pytest.raises(ValueError, match="`beta1` must be below 1; got 1"):
        dynamics.adam_growth(3, beta1=1.0)
    with pytest.raises(ValueError, match="`epsilon` must be above 0; got 0"):
        dynamics.adam_rate(np.array(1.0), 1e-3, 0.0)
    with pytest.raises(ValueError, match="`steps` must be at least 0; got -1"):
        dynamics.adam_growth(-1)
