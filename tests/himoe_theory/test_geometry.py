"""Inner products, angles and joint descent of logit gradients: hand values, the metric itself, limits, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given

from himoe_theory import geometry
from himoe_theory.objectives import inter_group, intra_group, z

from . import strategies as draw
from .strategies import LOGITS, PARTITIONS, few

PARTITION = PARTITIONS["interleaved"]


def pair(logits):
    return intra_group.intra_group_global_grad(logits), inter_group.inter_group_dense_grad(logits, PARTITION)


def test_hand_values():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    a, b = jnp.array([[1.0, -1.0, 0.0]]), jnp.array([[2.0, 1.0, -3.0]])
    np.testing.assert_allclose(geometry.euclidean_inner(a, b), [1.0])
    np.testing.assert_allclose(geometry.fisher_inner(a, b, logits), [2 / 0.5 - 1 / 0.25], atol=1e-14)
    np.testing.assert_allclose(geometry.euclidean_cosine(a, b), [1 / np.sqrt(2 * 14)])
    np.testing.assert_allclose(geometry.fisher_cosine(a, b + a, logits), [6 / np.sqrt(6 * (18 + 36))])


@few
@given(draw.logits())
@example(LOGITS)
def test_fisher_is_the_inverse_of_the_metric(values):
    """By the pseudo-inverse of diag(pi) - pi pi', token by token."""
    logits = jnp.asarray(values)
    a, b = pair(logits)
    expected = []
    for row, x, y in zip(np.asarray(jax.nn.softmax(logits)), np.asarray(a), np.asarray(b), strict=True):
        metric = np.diag(row) - np.outer(row, row)
        # Fisher norms do not see the gauge, so any solution of metric u = y serves.
        expected.append(x @ np.linalg.lstsq(metric, y, rcond=1e-14)[0])
    scale = float(jnp.sqrt(geometry.fisher_inner(a, a, logits) * geometry.fisher_inner(b, b, logits)).max())
    np.testing.assert_allclose(geometry.fisher_inner(a, b, logits), expected, atol=1e-6 * max(scale, 1e-6))


@few
@given(draw.logits())
@example(LOGITS)
def test_masses_and_conditionals_are_orthogonal(values):
    logits = jnp.asarray(values)
    masses = inter_group.inter_group_dense_grad(logits, PARTITION)
    inside = intra_group.intra_group_conditional_grad(logits, PARTITION)
    bound = jnp.sqrt(geometry.fisher_inner(masses, masses, logits) * geometry.fisher_inner(inside, inside, logits))
    assert (jnp.abs(geometry.fisher_inner(masses, inside, logits)) <= 1e-10 * bound + 1e-15).all()


def test_orthogonal_in_fisher_alone():
    logits = jnp.asarray(LOGITS)
    masses = inter_group.inter_group_dense_grad(logits, PARTITION)
    inside = intra_group.intra_group_conditional_grad(logits, PARTITION)
    assert float(jnp.abs(geometry.euclidean_cosine(masses, inside)).max()) > 0.05


def test_the_interval_is_where_both_fall():
    a, b = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), jnp.array([[-1.0, 1.0], [2.0, 1.0], [-3.0, 0.0]])
    products = geometry.euclidean_inner(a, b), geometry.euclidean_inner(a, a), geometry.euclidean_inner(b, b)
    ratios = geometry.joint_descent_ratios(*products)
    np.testing.assert_allclose(ratios, [[0.5, 1.0], [0.0, np.inf], [1 / 3, 1 / 3]])
    assert geometry.joint_descent_exists(*products).tolist() == [True, True, False]
    for ratio, falls in ((0.49, False), (0.51, True), (0.99, True), (1.01, False)):
        step = -(a + ratio * b)[:1]
        both = geometry.euclidean_inner(a[:1], step)[0] < 0 and geometry.euclidean_inner(b[:1], step)[0] < 0
        assert bool(both) is falls


def test_zero_gradients_and_underflow():
    zero, some = jnp.zeros((1, 3)), jnp.array([[1.0, -1.0, 0.0]])
    assert geometry.euclidean_cosine(zero, some).tolist() == [0.0]
    logits = jnp.array([[0.0, -1e4, -1e4]])
    gradient = intra_group.intra_group_global_grad(logits)
    assert geometry.fisher_inner(gradient, gradient, logits).tolist() == [0.0]
    products = jnp.zeros(1), jnp.zeros(1), jnp.ones(1)
    assert geometry.joint_descent_ratios(*products).tolist() == [[0.0, 0.0]]
    assert not geometry.joint_descent_exists(*products)[0]


def test_errors_show_the_numbers(unchecked):
    logits = jnp.asarray(LOGITS)
    a, b = pair(logits)
    with pytest.raises(ValueError, match=r"rows of `b` must sum to zero; one sums to"):
        geometry.fisher_inner(a, z.z_loss_grad(logits), logits)
    with pytest.raises(ValueError, match=r"`b` must have the shape of `a`, \(4, 6\); got \(4, 5\)"):
        geometry.euclidean_inner(a, b[:, :5])
    with pytest.raises(ValueError, match="`square_a` must be finite and at least 0; got -1"):
        geometry.cosine(jnp.zeros(1), jnp.full(1, -1.0), jnp.ones(1))


def test_compiles():
    logits = jnp.asarray(LOGITS)
    a, b = pair(logits)
    plain = geometry.fisher_cosine(a, b, logits)
    np.testing.assert_allclose(jax.jit(geometry.fisher_cosine)(a, b, logits), plain, rtol=1e-12)


def test_angles_of_tiny_and_huge_gradients():
    """Squares vanish or overflow; an angle knows no length."""
    a, b = jnp.array([[1.0, -1.0, 0.0]], jnp.float32), jnp.array([[2.0, -1.0, -1.0]], jnp.float32)
    logits = jnp.asarray([[0.3, 0.0, -0.2]], jnp.float32)
    for scale in (np.float32(1e-30), np.float32(1e30)):
        for one, other in ((a * scale, b), (a, b * scale), (a * scale, b * scale)):
            found = geometry.euclidean_cosine(one, other), geometry.fisher_cosine(one, other, logits)
            expected = geometry.euclidean_cosine(a, b), geometry.fisher_cosine(a, b, logits)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
