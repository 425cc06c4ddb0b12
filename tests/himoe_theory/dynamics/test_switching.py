"""Fields that jump: sliding by hand, leaving, crossing, and smoothed counts that tend to the hard ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition, Router, TopK, dynamics
from himoe_theory import objectives as obj

GAIN, DECAY, BETA, ALPHA, AHEAD = 0.3, 1.0, 1.2, 0.2, 0.1
"""Two reinforced scores with a constant advantage of the first."""


def scored(share):
    """Velocity of the scores if the load counts this share of the tokens, all alike, for the first expert."""

    def field(scores):
        load = obj.load_for_share_grad(BETA * scores[None], jnp.array([share, 1 - share]))[0]
        ahead = jnp.array([AHEAD, 0.0])
        return dynamics.reinforcement(scores, GAIN, DECAY, BETA) + ahead - ALPHA * BETA * load

    return field


PAIR = dynamics.Sliding(scored(1.0), scored(0.0), lambda x: x[0] - x[1])


def test_a_path_slides_and_leaves_where_it_should():
    # x' = y - 1 above, 1 below; y' = 1: it slides from (0, 0) until y = 1, then rises as (t - 1)^2/2.
    field = dynamics.Sliding(lambda z: jnp.stack([z[1] - 1, 1.0 + 0 * z[0]]), lambda z: 1.0 + 0 * z, lambda z: z[0])
    times = np.array([0.0, 0.5, 1.0, 1.5, 3.0])
    path = dynamics.switched_flow(field, jnp.zeros(2), times)
    np.testing.assert_allclose(path.states[:, 1], times, atol=1e-9)
    np.testing.assert_allclose(path.states[:, 0], np.maximum(times - 1, 0) ** 2 / 2, atol=1e-9)
    assert float(field.share(jnp.array([0.0, 0.5]))) == pytest.approx(1 / 1.5)
    # From above it falls on the surface; from below at y = 2 it crosses.
    down = dynamics.switched_flow(field, jnp.array([0.5, -1.0]), [0.0, 1.0, 2.0])
    np.testing.assert_allclose(down.states[-1], [0.0, 1.0], atol=1e-9)
    through = dynamics.switched_flow(field, jnp.array([-0.5, 2.0]), [0.0, 0.5, 1.5])
    np.testing.assert_allclose(through.states[-1], [2.0, 3.5], atol=1e-9)


def test_hard_counts_of_two_experts_slide_with_the_share_that_cancels_the_advantage():
    path = dynamics.switched_flow(PAIR, jnp.array([0.5, 0.0]), [0.0, 1.0, 8.0])
    assert path.states[1, 0] - path.states[1, 1] > 0.05
    assert abs(path.states[-1, 0] - path.states[-1, 1]) < 1e-9
    # At a tie the load pushes the difference by -+ alpha beta: theta = 1/2 + advantage/(2 alpha beta).
    share = float(jax.jit(PAIR.share)(jnp.asarray(path.states[-1])))
    assert share == pytest.approx(0.5 + AHEAD / (2 * ALPHA * BETA), abs=1e-9)


def test_smoothed_counts_tend_to_the_sliding_share_at_first_order():
    errors, exact = [], 0.5 + AHEAD / (2 * ALPHA * BETA)
    for width in (0.004, 0.002):

        def field(scores, width=width):
            load = dynamics.SmoothedLoad(ALPHA, 1, width)(BETA * scores[None])[0]
            ahead = jnp.array([AHEAD, 0.0])
            return dynamics.reinforcement(scores, GAIN, DECAY, BETA) + ahead - BETA * load

        rest = dynamics.settle(field, jnp.array([0.22, 0.2]), span=17.0, rest=1e-7)
        share = jax.jit(dynamics.SmoothedLoad(ALPHA, 1, width).share)(BETA * rest[None])[0]
        errors.append(float(share) - exact)
    # Such a share needs a difference of 2 width ln(theta/(1 - theta))/beta, on which the other forces act.
    difference = 2 * 0.002 * np.log(exact / (1 - exact)) / BETA
    expected = (GAIN * BETA / 2 - DECAY) * difference / (2 * ALPHA * BETA)
    assert errors[1] == pytest.approx(expected, rel=0.05)
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.05)


def test_narrow_smoothed_counts_are_the_hard_ones():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(7, 5)))
    router = Router("flat", Partition.equal(5, 1), TopK(2), "himoe-theory")
    hard = dynamics.velocity(dynamics.LogitGradient(router, {"load": 0.3}), logits)
    smooth = dynamics.velocity(dynamics.SmoothedLoad(0.3, 2, 1e-4), logits)
    np.testing.assert_allclose(smooth, hard, atol=1e-12)
    wide = dynamics.velocity(dynamics.SmoothedLoad(0.3, 2, 1.0), logits)
    assert np.abs(wide - hard).max() > 1e-3


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match="`width` must be above 0; got 0"):
        dynamics.SmoothedLoad(0.1, 1, 0.0)
    with pytest.raises(ValueError, match=r"`routes` must be at most 1 .* got 2"):
        dynamics.SmoothedLoad(0.1, 2, 0.1).share(jnp.zeros((1, 2)))
    with pytest.raises(RuntimeError, match="at most 0 times; it does so again at time"):
        dynamics.switched_flow(PAIR, jnp.array([0.5, 0.0]), [0.0, 8.0], switches=0)


@pytest.mark.usefixtures("unchecked")
def test_fields_and_surfaces_that_are_not_finite():
    one, times = jnp.ones(1), [0.0, 1.0, 3.0]

    def path(above, below, surface):
        return dynamics.switched_flow(dynamics.Sliding(above, below, surface), one, times)

    grows, offset = (lambda s: s), (lambda s: s[0] - 0.5)
    with pytest.raises(RuntimeError, match=r"must be finite on the path; at time 0 they are \[0.5 nan"):
        path(lambda s: s * jnp.nan, grows, offset)
    with pytest.raises(RuntimeError, match=r"must be finite on the path; at time 0 they are \[nan"):
        path(grows, grows, lambda s: s[0] * jnp.nan)
    with pytest.raises(RuntimeError, match=r"must be finite on the path; at time [01]\.\d+ they are \[nan"):
        path(grows, grows, lambda s: jnp.where(s[0] > 2, jnp.nan, s[0]))
    with pytest.raises(RuntimeError, match=r"must reach time 3; it stops near time 0\.693147\."):
        path(lambda s: jnp.where(s > 2, jnp.nan, s), grows, offset)
    with pytest.raises(RuntimeError, match=r"must reach time 3; it stops near time 1\."):
        path(jnp.square, grows, offset)
