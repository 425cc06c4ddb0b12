"""Values by hand where numbers are so large, small or saturated that differences or squares of them have no digit."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition, bounds, cosine_logits
from himoe_theory import objectives as obj

PAIRS = Partition((0, 1, 0, 1))


@pytest.mark.parametrize("size", [1.0, 1e4, 1e9, 1e30])
def test_entropy_of_equal_groups_does_not_depend_on_the_size_of_logits(size):
    """Two groups of mass 1/2: -ln 2, and no gradient, at any size. Before: off by the rounding of the logits."""
    logits = jnp.full((3, 4), size, jnp.float32)
    np.testing.assert_allclose(obj.group_neg_entropy(logits, PAIRS), -math.log(2), rtol=3e-7)
    np.testing.assert_allclose(obj.group_neg_entropy_grad(logits, PAIRS), 0, atol=1e-7)


@pytest.mark.parametrize("size", [1e-30, 1e-17, 1.0, 1e19, 1e37])
def test_the_cosine_does_not_depend_on_lengths(size):
    tokens, rows = jnp.asarray([[3.0, 4.0]], jnp.float32), jnp.asarray([[1.0, 0.0], [4.0, -3.0]], jnp.float32)
    for scaled in (cosine_logits(size * tokens, rows), cosine_logits(tokens, size * rows)):
        np.testing.assert_allclose(scaled, [[0.6, 0.0]], atol=3e-7)


def test_the_bound_on_the_coupling_holds_near_one_hot_routing():
    """Probabilities (1 - p, p), equal gradients of length 1: both are 2p(1 - p); 1 minus the squares rounds to 0."""
    for p in (1e-3, 1e-9, 1e-30):
        probs, gradients = jnp.asarray([1 - p, p], jnp.float32), jnp.asarray([[0.6, 0.8]] * 2, jnp.float32)
        coupling, bound = bounds.coupling(probs, gradients), bounds.coupling_bound(probs, gradients)
        np.testing.assert_allclose(bound, 2 * p * (1 - p), rtol=1e-6)
        np.testing.assert_allclose(coupling, bound, rtol=1e-6)
