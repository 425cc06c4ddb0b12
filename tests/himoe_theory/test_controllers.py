"""Biases move by the sign of a difference, so that the difference must not depend on rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import SelectionBias


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mean", [1, 7, 129, 40_961])
@pytest.mark.parametrize("experts", [3, 5, 6, 7, 49, 64])
def test_an_expert_at_the_mean_keeps_its_bias(experts, mean, dtype):
    """Sums times 1/N and fused multiply-adds leave 1e-17 of mean - mean, which has a sign."""
    counts = np.full(experts, mean)
    counts[0] += 1
    counts[-1] -= 1
    expected = np.zeros(experts)
    expected[[0, -1]] = -0.25, 0.25
    moved = jax.jit(SelectionBias(0.25).update)(jnp.zeros(experts, dtype), jnp.asarray(counts, dtype))
    np.testing.assert_array_equal(moved, expected)
