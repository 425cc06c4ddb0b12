"""Attention by blocks against attention written down at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simulations.language import attention
from simulations.language.attention import causal, rotate

FLOAT64 = jnp.dtype("float64")


def plain(q, k, v):
    scores = jnp.einsum("bhqc,bhkc->bhqk", q, k) / q.shape[-1] ** 0.5
    weights = jax.nn.softmax(jnp.where(np.tri(q.shape[2], dtype=bool), scores, -jnp.inf))
    return jnp.einsum("bhqk,bhkc->bhqc", weights, v)


@pytest.mark.parametrize("time", [1, 4, 10])
def test_values_and_gradients(time, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 4)
    rng = np.random.default_rng(time)
    # Scores up to some hundreds: the exponential would overflow without the maximum.
    q, k, v, g = (jnp.asarray(s * rng.standard_normal((2, 2, time, 4))) for s in (20, 20, 1, 1))
    expected, pull = jax.vjp(plain, q, k, v)
    actual, pull_blocks = jax.vjp(lambda *x: causal(*x, FLOAT64), q, k, v)
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)
    for one, other in zip(pull_blocks(g), pull(g), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_blocks_cover_every_query_once():
    for time in (1, 127, 128, 129, 4096):
        blocks = attention._blocks(time)
        assert [t for start, stop in blocks for t in range(start, stop)] == list(range(time))
        assert len(blocks) <= 8


def test_later_tokens_do_not_matter():
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((1, 1, 6, 4))) for _ in range(3))
    before = causal(q, k, v, FLOAT64)
    after = causal(q, k.at[:, :, 4:].set(9.0), v.at[:, :, 4:].set(-9.0), FLOAT64)
    np.testing.assert_array_equal(before[:, :, :4], after[:, :, :4])
    assert not np.allclose(before[:, :, 4:], after[:, :, 4:])


def test_rotation_keeps_lengths_and_depends_on_distance():
    rng = np.random.default_rng(1)
    q, k = (jnp.broadcast_to(jnp.asarray(rng.standard_normal(6)), (1, 1, 5, 6)) for _ in range(2))
    turned, other = rotate(q, 100.0)[0, 0], rotate(k, 100.0)[0, 0]
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(q[0, 0], axis=-1), rtol=1e-12)
    products = turned @ other.T
    np.testing.assert_allclose(products[2, 0], products[4, 2], rtol=1e-12)
    np.testing.assert_allclose(rotate(q, 100.0)[0, 0, 0], q[0, 0, 0], rtol=1e-15)
