"""Concentration of routing, against SciPy's entropy, Renyi entropies as defined, and sums over pairs of tokens."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from himoe_theory import Partition, metrics

from .cases import PARTITIONS, PROBS, SELECTED, UNEQUAL, check_slope, loose_selections, probabilities, run, slope

TOKEN_DEPENDENCE = [metrics.collision_information, metrics.gini_gain, metrics.routing_variance]


@given(probabilities())
def test_effective_experts_is_the_perplexity(probs):
    value = run(metrics.effective_experts, probs)
    np.testing.assert_allclose(value, np.mean([math.exp(scipy.stats.entropy(row)) for row in probs]), rtol=1e-12)
    assert 1 - 1e-12 <= value <= probs.shape[1] * (1 + 1e-12)


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda p: str(p.group_of))
@given(data=st.data())
def test_effective_groups_is_the_perplexity_of_group_masses(partition, data):
    probs = data.draw(probabilities(partition.num_experts))
    expected = []
    for row in probs:
        mass = [sum(p for p, h in zip(row, partition.group_of, strict=True) if h == g) for g in set(partition.group_of)]
        expected.append(math.exp(scipy.stats.entropy(mass)))
    value = run(metrics.effective_groups, probs, static=(partition,))
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-12)
    assert 1 - 1e-12 <= value <= partition.num_groups * (1 + 1e-12)
    assert value <= run(metrics.effective_experts, probs) * (1 + 1e-12)


@given(probabilities())
def test_collision_information_as_a_difference_of_renyi_entropies(probs):
    marginal = -math.log(np.square(probs.mean(axis=0)).sum())
    conditional = -math.log(np.mean([row @ row for row in probs]))
    value = run(metrics.collision_information, probs)
    np.testing.assert_allclose(value, marginal - conditional, rtol=1e-9, atol=1e-14)
    assert 0 <= value <= math.log(min(probs.shape)) + 1e-12


@given(probabilities())
def test_gini_gain_as_the_mean_distance_of_pairs(probs):
    tokens = len(probs)
    pairs = sum(np.square(p - q).sum() for p in probs for q in probs) / (2 * tokens**2)
    gain = run(metrics.gini_gain, probs)
    np.testing.assert_allclose(gain, pairs, rtol=1e-9, atol=1e-28)
    assert 0 <= gain <= 1 - 1 / min(probs.shape) + 1e-12
    # Guo et al.'s variance is the same number per expert, Hi-MoE's information its logarithmic ratio.
    variance = run(metrics.routing_variance, probs)
    np.testing.assert_allclose(variance, np.mean([np.var(probs[:, e]) for e in range(probs.shape[1])]), rtol=1e-12)
    np.testing.assert_allclose(gain, probs.shape[1] * variance, rtol=1e-12)
    ratio = 1 + gain / np.square(probs.mean(axis=0)).sum()
    np.testing.assert_allclose(run(metrics.collision_information, probs), math.log(ratio), rtol=1e-6, atol=1e-15)


def test_collision_information_of_balanced_one_hot_routing():
    probs = jnp.tile(jnp.eye(4), (3, 1))
    np.testing.assert_allclose(run(metrics.collision_information, probs), math.log(4), rtol=1e-14)
    np.testing.assert_allclose(run(metrics.gini_gain, probs), 3 / 4, rtol=1e-14)


def test_small_dependence_is_not_lost_in_rounding():
    # Two tokens at (1/2 +- d): the gain is 2 d^2, far below the rounding of the norms themselves.
    d = 2.0**-30
    probs = jnp.array([[0.5 + d, 0.5 - d], [0.5 - d, 0.5 + d]])
    np.testing.assert_allclose(run(metrics.gini_gain, probs), 2 * d**2, rtol=1e-12)
    np.testing.assert_allclose(run(metrics.collision_information, probs), 4 * d**2, rtol=1e-12)


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda p: str(p.group_of))
@given(data=st.data())
def test_groups_touched_counts_groups(partition, data):
    selected = data.draw(loose_selections(partition.num_experts))
    touched = [len({g for g, chosen in zip(partition.group_of, row, strict=True) if chosen}) for row in selected]
    np.testing.assert_allclose(run(metrics.groups_touched, selected, static=(partition,)), np.mean(touched), rtol=1e-14)


def test_groups_touched_by_flat_top_4_of_8():
    # All 70 sets of 4 among 8 experts, equally often: 22/7, the paper's 3.14.
    sets = [[(s >> e) & 1 == 1 for e in range(8)] for s in range(256) if s.bit_count() == 4]
    touched = run(metrics.groups_touched, jnp.array(sets), static=(Partition.equal(8, 4),))
    np.testing.assert_allclose(touched, 22 / 7, rtol=1e-14)


def test_hand_values():
    probs = jnp.array([[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_allclose(run(metrics.effective_experts, probs), (2**1.5 + 1) / 2, rtol=1e-14)
    groups = Partition((0, 1, 1, 1))
    np.testing.assert_allclose(run(metrics.effective_groups, probs, static=(groups,)), (2 + 1) / 2, rtol=1e-14)
    # Mean of squares (3/8 + 1)/2, mean (1/4, 1/8, 1/8, 1/2) of square 11/32.
    np.testing.assert_allclose(run(metrics.gini_gain, probs), 11 / 16 - 11 / 32, rtol=1e-14)
    np.testing.assert_allclose(run(metrics.collision_information, probs), math.log(2), rtol=1e-14)
    np.testing.assert_allclose(run(metrics.routing_variance, probs), 11 / 128, rtol=1e-14)


@pytest.mark.parametrize("measure", TOKEN_DEPENDENCE)
def test_routing_that_ignores_the_token_has_none(measure):
    assert run(measure, PROBS[:1]) == 0.0  # one token
    assert run(measure, np.tile([0.1, 0.2, 0.3, 0.4], (7, 1))) == 0.0  # whose mean is not the row, by rounding
    assert run(measure, np.array([[0.0, 1.0, 0.0]] * 3)) == 0.0  # two dead experts
    np.testing.assert_array_equal(slope(measure, np.full((5, 4), 0.25)), 0.0)


def test_compiled_on_rows_of_zeros():
    """Inside `jit` nothing refuses them: no mass, no dependence on the token."""
    assert jax.jit(metrics.collision_information)(jnp.zeros((3, 4))) == 0.0


def test_one_expert_and_one_group():
    assert run(metrics.effective_experts, jnp.ones((3, 1))) == 1.0
    one = Partition((0,) * 5)
    np.testing.assert_allclose(run(metrics.effective_groups, PROBS, static=(one,)), 1.0, rtol=1e-14)
    assert run(metrics.groups_touched, jnp.zeros((3, 5), bool), static=(UNEQUAL,)) == 0.0


@pytest.mark.parametrize("measure", [metrics.effective_experts, *TOKEN_DEPENDENCE])
def test_gradients(measure):
    check_slope(lambda logits: measure(jax.nn.softmax(logits)), np.log(PROBS[:4]))
    # A probability of exactly 0 has a finite gradient.
    assert jnp.isfinite(slope(measure, PROBS)).all()


def test_gradient_of_effective_groups():
    check_slope(lambda logits: metrics.effective_groups(jax.nn.softmax(logits), UNEQUAL), np.log(PROBS[:4]))


@given(probabilities(), st.floats(-5, 5))
def test_variance_does_not_see_a_constant_added_to_every_token(probs, shift):
    moved = run(metrics.routing_variance, probs + shift)
    np.testing.assert_allclose(moved, run(metrics.routing_variance, probs), rtol=1e-6, atol=1e-14)


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match=r"`probs` must have rows that sum to 1; row 1 sums to 0\.5"):
        metrics.effective_experts(jnp.array([[0.5, 0.5], [0.5, 0.0]]))
    with pytest.raises(ValueError, match=r"`probs` must have rows that sum to 1; row 0 sums to 1\.5"):
        metrics.collision_information(jnp.array([[1.0, 0.5], [0.5, 0.5]]))
    with pytest.raises(ValueError, match=r"`probs` must not be negative; its smallest entry is -0\.5"):
        metrics.gini_gain(jnp.array([[1.5, -0.5]]))
    with pytest.raises(ValueError, match=r"1 of 4 are not, the first at \(1, 0\)"):
        metrics.effective_groups(jnp.array([[0.5, 0.5], [np.inf, 0.5]]), Partition((0, 1)))
    with pytest.raises(ValueError, match="partition has 5 experts, `probs` has 4"):
        metrics.effective_groups(jnp.full((2, 4), 0.25), UNEQUAL)
    with pytest.raises(ValueError, match="partition has 5 experts, `selected` has 2"):
        metrics.groups_touched(jnp.asarray(SELECTED[:, :2]), UNEQUAL)
    with pytest.raises(ValueError, match=r"`weights` must have at least one of its tokens; got shape \(0, 4\)"):
        metrics.routing_variance(jnp.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"`selected` must have axes \(tokens, experts\); got shape \(5,\)"):
        metrics.groups_touched(jnp.zeros(5, bool), UNEQUAL)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_probabilities_pass_for_probabilities(dtype):
    probs = jax.nn.softmax(jnp.linspace(-2, 2, 4 * 64).reshape(4, 64)).astype(dtype)
    assert metrics.effective_experts(probs).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"row 0 sums to 0\.(89|9)"):
        metrics.effective_experts(probs * 0.9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("dtype", "inside", "outside"), [("float64", 0.9e-3, 1.1e-3), ("bfloat16", 7 / 256, 9 / 256)])
def test_how_far_from_1_rows_may_sum(dtype, inside, outside):
    """1e-3, or four units of the type: 1/32 in bfloat16."""
    for sign in (-1, 1):
        metrics.effective_experts(jnp.array([[0.5, 0.5 + sign * inside]], dtype))
        bad = jnp.array([[0.5, 0.5 + sign * outside]], dtype)
        with pytest.raises(ValueError, match="rows that sum to 1"):
            metrics.effective_experts(bad)
