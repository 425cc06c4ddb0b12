"""Scores of direction and of distance, and the probabilities of a noisy first choice."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import LogitAverage, cosine_logits, distance_logits, uniform_noise_top1

from .strategies import LOGITS

TOKENS = np.array([[3.0, 4.0], [-1.0, 0.0], [0.0, 0.0]])
ROWS = np.array([[1.0, 0.0], [0.0, -2.0], [6.0, 8.0], [0.0, 0.0]])


def test_cosine_logits_by_hand():
    expected = [[0.6, -0.8, 1.0, 0.0], [-1.0, 0.0, -0.6, 0.0], [0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(cosine_logits(jnp.asarray(TOKENS), jnp.asarray(ROWS)), expected, atol=1e-15)
    halved = cosine_logits(jnp.asarray(TOKENS), jnp.asarray(ROWS), temperature=2.0)
    np.testing.assert_allclose(halved, np.asarray(expected) / 2, atol=1e-15)


def test_distance_logits_by_hand():
    expected = [[-math.sqrt(20), -math.sqrt(45), -5.0, -5.0], [-2.0, -math.sqrt(5), -math.sqrt(113), -1.0]]
    found = distance_logits(jnp.asarray(TOKENS[:2]), jnp.asarray(ROWS))
    np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize("score", [cosine_logits, distance_logits])
def test_gradients_are_finite_at_the_singular_point(score):
    def total(tokens, rows):
        return score(tokens, rows).sum()

    zero = jnp.zeros((2, 2))
    for gradient in jax.grad(total, argnums=(0, 1))(zero, zero):
        np.testing.assert_array_equal(gradient, zero)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("score", [cosine_logits, distance_logits])
def test_the_spaces_must_agree(score):
    with pytest.raises(ValueError, match="tokens have 2 dimensions, experts have 3"):
        score(jnp.ones((1, 2)), jnp.ones((1, 3)))


def test_cosine_temperature_must_be_positive():
    with pytest.raises(ValueError, match="`temperature`"):
        cosine_logits(jnp.ones((1, 2)), jnp.ones((1, 2)), temperature=0.0)


def test_uniform_noise_of_two_experts_is_a_triangle():
    gaps = np.linspace(-1.5, 1.5, 13)
    found = uniform_noise_top1(jnp.asarray(np.stack([gaps, np.zeros_like(gaps)], axis=1)))
    inside = np.clip(gaps, -1, 1)
    expected = np.where(inside < 0, (1 + inside) ** 2 / 2, 1 - (1 - inside) ** 2 / 2)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-15)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-15)


def test_uniform_noise_of_many_experts_against_a_fine_sum():
    logits = LOGITS / 4
    r = (np.arange(20_000) + 0.5) / 20_000
    below = np.clip(logits[:, :, None, None] - logits[:, None, :, None] + r, 0, 1)
    for e in range(logits.shape[1]):
        below[:, e, e] = 1
    found = uniform_noise_top1(jnp.asarray(logits))
    # The midpoint rule errs by at most a corner's share of a cell.
    np.testing.assert_allclose(found, below.prod(axis=2).mean(axis=-1), atol=1e-8)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-14)


def test_uniform_noise_of_one_expert_chooses_it():
    np.testing.assert_array_equal(uniform_noise_top1(jnp.asarray([[3.0]])), [[1.0]])


def test_the_logit_average_has_no_temperature_of_its_own():
    """What the paper prints, (s - tau average), is what one gets without naming a temperature."""
    assert LogitAverage(0.3, 0.9) == LogitAverage(0.3, 0.9, temperature=1.0)
    assert LogitAverage(0.3, 0.9) != LogitAverage(0.3, 0.9, temperature=1.5)
