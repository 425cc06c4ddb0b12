"""Biases move by the sign of a difference of whole numbers, exact whatever the type of what is routed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import SelectionBias, routers


@pytest.mark.parametrize("mean", [1, 129, 40_961])
@pytest.mark.parametrize("experts", [3, 7, 64])
def test_an_expert_at_the_mean_keeps_its_bias(experts, mean):
    """In floating point, sums times 1/N leave 1e-17 of mean - mean, which has a sign."""
    counts = np.full(experts, mean, np.int32)
    counts[0] += 1
    counts[-1] -= 1
    expected = np.zeros(experts)
    expected[[0, -1]] = -0.25, 0.25
    moved = SelectionBias(0.25).update(jnp.zeros(experts), jnp.asarray(counts))
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize(
    ("counts", "signs"),
    [
        ((257, 255), (-1, 1)),
        ((1025, 1023, 1026, 1022), (-1, 1, -1, 1)),
        ((2, 1, 1), (-1, 1, 1)),  # the mean is no whole number
        ((5, 0), (-1, 1)),
        ((2**30, 2**30 - 2, 1), (-1, -1, 1)),  # N times a count would overflow
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_signs_by_hand(counts, signs):
    moved = SelectionBias(1.0).update(jnp.zeros(len(counts)), jnp.asarray(counts, jnp.int32))
    np.testing.assert_array_equal(moved, signs)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_whole_batches_count_exactly_in_every_type(dtype):
    """257 against 255 tokens: 16 bits hold neither the counts nor 0.001 beside 0.25."""
    router = routers.loss_free(2, 1)
    logits = jnp.asarray([[2.0, 0.0]] * 257 + [[0.0, 2.0]] * 255, dtype)
    step = jax.jit(lambda state: router.step(None, state, logits)[1])
    state = router.init(dtype)
    assert state.dtype == jnp.float32
    np.testing.assert_allclose(step(state), [-0.001, 0.001], rtol=1e-6)
    np.testing.assert_allclose(step(jnp.asarray([0.25, 0.25], dtype)), [0.249, 0.251], rtol=1e-6)
