"""What the objectives are: naive loops, hand values with unequal inputs."""

import dataclasses
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from himoe_theory import (
    Partition,
    TopK,
    ranked,
    routers,
    to_dense,
)
from himoe_theory import objectives as obj
from himoe_theory.objectives import OBJECTIVES, View

from . import naive
from . import strategies as draw
from .evaluate import OF_LOGITS, close, evaluate
from .strategies import EXPERTS, LOGITS, PARTITIONS, ROUTERS, ROUTES, TOKENS, few

every = pytest.mark.parametrize("objective", OF_LOGITS.values(), ids=OF_LOGITS)


def value(name, routing):
    return evaluate(OBJECTIVES[name], routing).value


def gradient(name, routing):
    return evaluate(OBJECTIVES[name], routing).closed


# Against loops


def test_every_objective_has_a_loop():
    assert set(naive.NAIVE) == set(OF_LOGITS)


@every
@few
@given(draw.cases())
@example(("grouped", LOGITS))
@example(("grouped, unequal K", LOGITS))
@example(("grouped, bias-corrected", LOGITS))
@example(("flat, thinned", LOGITS))
@example(("flat, biased", LOGITS))
def test_value_against_loops(objective, case):
    routing = draw.route(*case)
    close(value(objective.name, routing), naive.NAIVE[objective.name](naive.Batch.of(routing)), rtol=1e-12)


@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
def test_groups_against_loops_for_every_partition(partition):
    """With the constants of the released code, too, large enough here to show."""
    epsilon = 0.05
    routing = dataclasses.replace(draw.route("flat, thinned", LOGITS), partition=partition)
    batch, s = naive.Batch.of(routing), routing.logits
    close(obj.inter_group_dense(s, partition), naive.inter_group_dense(batch))
    close(obj.inter_group_sparse(s, routing.selected, partition), naive.inter_group_sparse(batch))
    close(obj.intra_group_conditional(s, partition), naive.intra_group_conditional(batch, batch.logits))
    damped = obj.intra_group_conditional(s, partition, epsilon=epsilon)
    close(damped, naive.intra_group_conditional(batch, batch.logits, epsilon))
    close(obj.group_neg_entropy(s, partition), naive.group_neg_entropy(batch))
    close(obj.group_neg_entropy(s, partition, epsilon=epsilon), naive.group_neg_entropy(batch, epsilon))
    close(obj.token_entropy(s, epsilon=epsilon), naive.token_entropy(batch, epsilon))


_WITH_EPSILON = {
    "intra_group_conditional": (obj.intra_group_conditional, obj.intra_group_conditional_grad, True),
    "group_neg_entropy": (obj.group_neg_entropy, obj.group_neg_entropy_grad, True),
    "token_entropy": (obj.token_entropy, obj.token_entropy_grad, False),
}


@pytest.mark.parametrize("name", _WITH_EPSILON)
@pytest.mark.parametrize("epsilon", [1e-10, 0.05])
def test_gradient_with_the_constants_of_released_code(name, epsilon):
    function, closed, grouped = _WITH_EPSILON[name]
    arguments = (PARTITIONS["interleaved"],) if grouped else ()
    for values in (LOGITS, 200.0 * LOGITS):  # 200: a group's mass underflows, so that epsilon alone is left
        s = jnp.asarray(values)
        reverse = jax.grad(lambda s: function(s, *arguments, epsilon=epsilon))(s)
        close(reverse, closed(s, *arguments, epsilon=epsilon), rtol=1e-10)


@few
@given(draw.logits(), draw.logits(largest=1.0), st.integers(1, EXPERTS - 1), st.floats(0.3, 3.0))
@example(LOGITS, np.sin(np.arange(24.0)).reshape(4, 6), 2, 0.7)
def test_smooth_load_against_loops(values, noise, k, noise_std):
    expected = naive.cv_squared(naive.smooth_load(values.tolist(), noise.tolist(), k, noise_std))
    actual = obj.load_cv_squared(jnp.asarray(values), jnp.asarray(noise), k=k, noise_std=noise_std)
    close(actual, expected, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_smooth_load_gradient_with_noise(k):
    s, noise = jnp.asarray(LOGITS), jnp.asarray(np.sin(np.arange(24.0)).reshape(4, 6))
    reverse = jax.grad(lambda s: obj.load_cv_squared(s, noise, k=k, noise_std=0.7))(s)
    close(reverse, obj.load_cv_squared_grad(s, noise, k=k, noise_std=0.7))
    nothing = jax.grad(lambda x: obj.load_cv_squared(s, x, k=k, noise_std=0.7))(noise)
    np.testing.assert_array_equal(nothing, 0.0)  # the noise is a constant


def test_smooth_load_is_the_probability_of_selection():
    """The term of an expert: how often it is in the top k when only its own noise is drawn again.

    False alarm below 1e-6 for each of 24 comparisons: 5 standard errors of a share of 20,000 draws.
    """
    draws, k, noise_std = 20_000, 2, 0.7
    rng = np.random.default_rng(0)
    noise = noise_std * rng.normal(size=LOGITS.shape)
    for t in range(TOKENS):
        for e in range(EXPERTS):
            noisy = np.broadcast_to(LOGITS[t] + noise[t], (draws, EXPERTS)).copy()
            noisy[:, e] = LOGITS[t, e] + noise_std * rng.normal(size=draws)
            share = (np.sum(noisy > noisy[:, [e]], axis=1) < k).mean()
            p = naive.smooth_load([LOGITS[t].tolist()], [noise[t].tolist()], k, noise_std)[e]
            assert abs(share - p) <= 5 * math.sqrt(p * (1 - p) / draws) + 1e-4


# Hand values, with unequal interleaved groups and unequal loads

# Probabilities (1/2, 1/4, 1/8, 1/8) and (1/8, 1/8, 1/4, 1/2); groups {0, 2} and {1, 3} would hide a transposition.
HAND = jnp.log(jnp.array([[4.0, 2.0, 1.0, 1.0], [1.0, 1.0, 2.0, 4.0]]))
HAND_GROUPS = Partition((0, 1, 0, 0))
HAND_SELECTED = jnp.array([[True, True, False, False], [True, False, False, True]])


def test_hand_values_of_loads():
    # n = (2, 1, 0, 1), P = (5, 3, 3, 5)/16
    np.testing.assert_allclose(obj.dispatch_share(HAND_SELECTED, HAND), [0.5, 0.25, 0, 0.25], rtol=1e-15)
    np.testing.assert_allclose(obj.load(HAND, HAND_SELECTED), 4 * (10 + 3 + 5) / 64, rtol=1e-14)
    np.testing.assert_allclose(obj.load_per_token(HAND, HAND_SELECTED), 4 * (10 + 3 + 5) / 32, rtol=1e-14)
    # w = (2/3, 1/3, 0, 0) and (1/5, 0, 0, 4/5), mean (13, 5, 0, 12)/30
    expected = 4 * (0.5 * 13 + 0.25 * 5 + 0.25 * 12) / 30
    np.testing.assert_allclose(obj.load_selected_weights(HAND, HAND_SELECTED), expected, rtol=1e-14)
    # First choices 1 and 0: the order of a token's routes matters, the later routes do not.
    first = obj.load_first_choice(HAND, jnp.array([[1, 0], [0, 3]]))
    np.testing.assert_allclose(first, 4 * (0.5 * 3 + 0.5 * 5) / 16, rtol=1e-14)
    np.testing.assert_allclose(obj.p_squared(HAND), 4 * (25 + 9 + 9 + 25) / 256, rtol=1e-14)
    entropy = 2 * (5 / 16 * math.log(5 / 16) + 3 / 16 * math.log(3 / 16))
    np.testing.assert_allclose(obj.load_entropy(HAND), entropy, rtol=1e-14)
    share = jnp.array([0.1, 0.2, 0.3, 0.7])  # any share: it need not sum to 1
    np.testing.assert_allclose(obj.load_for_share(HAND, share), 4 * (0.5 + 0.6 + 0.9 + 3.5) / 16, rtol=1e-14)


def test_hand_values_of_regularisers():
    # m = (3/4, 1/4) and (7/8, 1/8)
    np.testing.assert_allclose(obj.inter_group_dense(HAND, HAND_GROUPS), (40 + 50) / 128, rtol=1e-14)
    # selected m = (1/2, 1/4) and (5/8, 0)
    sparse = obj.inter_group_sparse(HAND, HAND_SELECTED, HAND_GROUPS)
    np.testing.assert_allclose(sparse, (20 + 25) / 128, rtol=1e-14)
    selected = obj.inter_group_selected(HAND, HAND_SELECTED)
    np.testing.assert_allclose(selected, (20 + 17) / 128, rtol=1e-14)
    np.testing.assert_allclose(obj.intra_group_global(HAND), -22 / 64, rtol=1e-14)
    # q of group 0: (4, 1, 1)/6 and (1, 2, 4)/7; of group 1: 1
    conditional = -((18 / 36 + 1) / 2 + (21 / 49 + 1) / 2) / 2
    np.testing.assert_allclose(obj.intra_group_conditional(HAND, HAND_GROUPS), conditional, rtol=1e-14)
    np.testing.assert_allclose(obj.token_entropy(HAND), 1.75 * math.log(2), rtol=1e-14)
    entropy = [0.75 * math.log(0.75) + 0.25 * math.log(0.25), 0.875 * math.log(0.875) + 0.125 * math.log(0.125)]
    np.testing.assert_allclose(obj.group_neg_entropy(HAND, HAND_GROUPS), sum(entropy) / 2, rtol=1e-14)
    np.testing.assert_allclose(obj.z_loss(HAND + jnp.log(0.5)), math.log(4) ** 2, rtol=1e-14)


def test_hand_values_of_variances():
    # w - mean w = ±(7, 5, 0, -12)/30 in both tokens
    expected = -2 * (49 + 25 + 144) / 900 / 4
    np.testing.assert_allclose(obj.variance_across_tokens(HAND, HAND_SELECTED), expected, rtol=1e-14)
    np.testing.assert_allclose(obj.variance_across_experts(HAND), -(22 / 64 - 1 / 4) / 3, rtol=1e-14)
    # I = (13, 5, 0, 12)/15 of mean 1/2
    importance = (169 + 25 + 144) / 225 / 4 / 0.25 - 1
    np.testing.assert_allclose(obj.importance_cv_squared(HAND, HAND_SELECTED), importance, rtol=1e-14)
    np.testing.assert_allclose(obj.cv_squared(jnp.array([1.0, 2.0, 6.0])), (4 + 1 + 9) / 3 / 9, rtol=1e-14)


def test_nothing_selected():
    """No load, no weight, no variation: 0, and a gradient of 0."""
    none = jnp.zeros((2, 4), bool)
    for function in (obj.load, obj.load_per_token, obj.load_selected_weights, obj.inter_group_selected):
        assert function(HAND, none) == 0
    for function in (obj.variance_across_tokens, obj.importance_cv_squared):
        assert function(HAND, none) == 0
    np.testing.assert_array_equal(obj.importance_cv_squared_grad(HAND, none), 0.0)
    np.testing.assert_array_equal(obj.variance_across_tokens_grad(HAND, none), 0.0)
    np.testing.assert_array_equal(jax.grad(obj.importance_cv_squared)(HAND, none), 0.0)
    assert obj.cv_squared(jnp.zeros(3)) == 0


# The router's own score


def _loads(router, rows):
    logits = jnp.array(rows)
    routing, _ = router.step(None, router.init(), logits)
    load = OBJECTIVES["load"]
    return float(load.value(View(routing))), np.asarray(load.gradient(View(routing)))


def test_load_of_a_sigmoid_router_is_of_its_normalised_scores():
    """One token (2, 0): 2 * .8808/1.3808; the gradient's row does not sum to 0. And four tokens by four experts."""
    found, gradient = _loads(routers.loss_free(2, 1), [[2.0, 0.0]])
    one, half = 1 / (1 + math.exp(-2)), 0.5
    np.testing.assert_allclose(found, 2 * one / (one + half), rtol=1e-12)
    share = one / (one + half)
    np.testing.assert_allclose(gradient, [[2 * share * (1 - share) * (1 - one), -share * (1 - share)]], rtol=1e-12)
    np.testing.assert_allclose([found, *gradient[0]], [1.2758, 0.0551, -0.2310], atol=5e-5)
    rows = [[2.0, 1, -1, -3], [1.0, 2, -2, -2], [3.0, -1, 0, -1], [2.0, 0, 1, -3]]
    np.testing.assert_allclose(_loads(routers.loss_free(4, 2), rows)[0], 1.3731, atol=5e-5)


@every
@pytest.mark.parametrize("name", ["flat, biased", "grouped, unequal K"])
def test_a_masked_routing_is_that_of_its_real_tokens(objective, name):
    """Through the record, whatever the score; pads in front, and their gradient is exactly 0."""
    router, pads = ROUTERS[name], np.array([[3.0, 0, -1, 2, 0.5, 1], [0.0, 0, 0, 9, 0, 0]])
    mask = jnp.arange(6) >= 2
    whole, _ = router.step(None, router.init(), jnp.concatenate([pads, LOGITS]), mask=mask, training=False)
    real, _ = router.step(None, router.init(), jnp.asarray(LOGITS), training=False)
    both = [(objective.value(View(r)), np.asarray(objective.gradient(View(r)))) for r in (whole, real)]
    np.testing.assert_allclose(both[0][0], both[1][0], rtol=1e-12)
    np.testing.assert_allclose(both[0][1][2:], both[1][1], rtol=1e-11, atol=1e-15)
    np.testing.assert_array_equal(both[0][1][:2], 0.0)


# Probabilities handed over as logits


def test_probabilities_as_logits_are_noticed():
    """Eight tokens of logits (5, 0, 0, 0): 4 e^5/(e^5 + 3). Of their softmax it is nearly uniform, and said once."""
    logits = jnp.tile(jnp.array([5.0, 0, 0, 0]), (8, 1))
    probs, selected = jax.nn.softmax(logits), logits > 0
    np.testing.assert_allclose(obj.load(logits, selected), 4 * math.e**5 / (math.e**5 + 3), rtol=1e-12)
    for dtype in ("float64", "bfloat16"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            found = obj.load(probs.astype(dtype), selected)
        (one,) = caught
        assert str(one.message).startswith("`logits` look like probabilities: all 8 rows are non-negative and sum to 1")
        assert "himoe_theory/_checks" not in one.filename
        np.testing.assert_allclose(found, 1.8751, atol=1e-3)
    with pytest.warns(UserWarning, match="all 2 rows"):
        obj.z_loss(jnp.concatenate([probs[:2], logits[:1]]), mask=jnp.array([True, True, False]))


def test_what_is_not_taken_for_probabilities():
    """One expert, rows of which one does not sum to 1, logarithms; and nothing inside a compiled program."""
    probs = jax.nn.softmax(LOGITS)
    obj.z_loss(jnp.ones((3, 1)))
    obj.z_loss(probs.at[2, 0].add(0.1))
    obj.z_loss(jnp.log(probs))
    jax.jit(obj.z_loss)(probs)


# Uniform routing


def _uniform(experts: int, routes: int) -> tuple[jax.Array, jax.Array]:
    """Equal logits, and cyclic choices: every expert is chosen by `routes` of the N tokens, and first by one."""
    chosen = (np.arange(experts)[:, None] + np.arange(routes)) % experts
    return jnp.zeros((experts, experts)), jnp.asarray(chosen, jnp.int32)


_LOADS = {name: objective for name, objective in OBJECTIVES.items() if objective.convention}


@pytest.mark.parametrize("objective", _LOADS.values(), ids=_LOADS)
@pytest.mark.parametrize(("experts", "routes"), [(6, 1), (6, 3), (6, 6), (5, 2)])
def test_load_conventions_at_uniform_routing(objective, experts, routes):
    logits, chosen = _uniform(experts, routes)
    selected = to_dense(jnp.ones(chosen.shape, bool), chosen, experts)
    given = {
        "routing.log_probs": logits,
        "routing.selected": selected,
        "routing.experts": chosen,
        "routing.num_routes": routes,
    }
    stated = {"load_per_token": routes, "load_top_k_per_token": routes, "load_entropy": -math.log(experts)}
    stated = stated.get(objective.name, 1.0)
    assert objective.convention.at_uniform(experts, routes) == stated
    arguments = [given[part] for part in objective.value.parts]
    np.testing.assert_allclose(objective.functions[0](*arguments), stated, rtol=1e-14)


def test_every_load_says_how_it_is_normalised():
    assert {name for name in OBJECTIVES if "load" in name or name == "p_squared"} - {"load_cv_squared"} == set(_LOADS)
    for name, objective in _LOADS.items():
        assert objective.functions == (getattr(obj, name), getattr(obj, f"{name}_grad"))


def test_per_token_load_is_k_times_the_canonical_one():
    routing = draw.route("grouped", LOGITS)
    close(value("load_per_token", routing), ROUTES * value("load", routing), rtol=1e-14)


# Where hard counts mislead (D10)


def test_uniform_routing_does_not_minimise_the_hard_load():
    """Nine tokens at (.51, .49) and one at (0, 1): .9344, below the 1 of uniform routing."""
    logits = jnp.concatenate([jnp.tile(jnp.log(jnp.array([[0.51, 0.49]])), (9, 1)), jnp.array([[-1e4, 0.0]])])
    selected = to_dense(jnp.ones((10, 1), bool), ranked(TopK(1), logits, Partition((0, 0))), 2)
    np.testing.assert_allclose(obj.load(logits, selected), 2 * (0.9 * 0.459 + 0.1 * 0.541), rtol=1e-12)
    assert abs(float(obj.load(logits, selected)) - 0.934) < 5e-4


def test_infimum_for_two_experts():
    """7/8, approached at counts 3/4, 1/4 by three tokens near the boundary and one far from it."""
    logits = jnp.array([[1e-9, 0.0], [1e-9, 0.0], [1e-9, 0.0], [-1e4, 0.0]])
    selected = to_dense(jnp.ones((4, 1), bool), ranked(TopK(1), logits, Partition((0, 0))), 2)
    np.testing.assert_allclose(obj.load(logits, selected), 7 / 8, atol=1e-8)


@few
@given(draw.logits(), st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3))
@example(LOGITS, [0.0, 3.0, -7.0])
def test_counts_under_grouped_selection_do_not_see_group_mass(values, shifts):
    partition = PARTITIONS["interleaved"]
    shifted = values + np.array(shifts)[partition.ids()]
    before, after = (draw.route("grouped", each) for each in (values, shifted))
    np.testing.assert_array_equal(before.experts, after.experts)
    shares = [obj.dispatch_share(each.selected, each.logits) for each in (before, after)]
    np.testing.assert_array_equal(*shares)


def test_load_gradient_along_a_group_shift():
    """It vanishes only when the sums of h q over each group are equal: here they are not, then they are."""
    partition = PARTITIONS["equal"]
    share = jnp.array([0.4, 0.1, 0.2, 0.1, 0.15, 0.05])
    along = np.asarray(partition.sum(obj.load_for_share_grad(jnp.asarray(LOGITS), share)))
    assert np.abs(along).max() > 1e-2
    even = np.asarray(partition.sum(obj.load_for_share_grad(jnp.asarray(LOGITS), jnp.full(6, 1 / 6))))
    np.testing.assert_allclose(even, 0.0, atol=1e-15)
