"""Routers step by step: weights, controllers, state, and what one token may learn of another."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given

from himoe_theory import (
    Capacity,
    KeepAbove,
    LogitAverage,
    Partition,
    Renormalised,
    Router,
    Sigmoid,
    SoftmaxThenMask,
    TopK,
    from_dense,
    routers,
    to_dense,
)

from . import naive
from . import strategies as draw
from .evaluate import close
from .strategies import EXPERTS, LOGITS, PARTITIONS, ROUTERS, STATE, TOKENS, few

ZERO = np.zeros(EXPERTS)
INTERLEAVED = PARTITIONS["interleaved"]


def step(router, state, values, **options):
    return router.step(None, jnp.asarray(state), jnp.asarray(values), **options)


# The record


def test_dense_and_route_forms():
    experts = jnp.array([[3, 0, 1], [2, 5, 4], [0, 1, 2], [5, 4, 3]], jnp.int32)
    values = jnp.arange(12.0).reshape(4, 3) + 1
    dense = np.zeros((TOKENS, EXPERTS))
    for t in range(TOKENS):
        for r in range(3):
            dense[t, experts[t, r]] = values[t, r]
    np.testing.assert_array_equal(to_dense(values, experts, EXPERTS), dense)
    np.testing.assert_array_equal(from_dense(jnp.asarray(dense), experts), values)
    np.testing.assert_array_equal(from_dense(to_dense(values, experts, EXPERTS), experts), values)
    mask = to_dense(values > 3, experts, EXPERTS)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, dense > 3)


@few
@given(draw.cases())
@example(("grouped, unequal K", LOGITS))
def test_the_record_against_loops(case):
    routing = draw.route(*case)
    batch = naive.Batch.of(routing)
    own = naive.sigmoid_shares if case[0] == "flat, biased" else naive.softmax
    probs = [own(row) for row in batch.logits]
    close(routing.probs, np.array(probs))
    close(routing.selection_probs, np.array([own(row) for row in batch.selection_logits]))
    close(routing.group_mass, np.array([naive.group_sums(batch, row) for row in probs]))
    chosen = [[e in each for e in range(EXPERTS)] for each in batch.chosen]
    np.testing.assert_array_equal(routing.selected, chosen)
    np.testing.assert_array_equal(routing.kept, chosen)  # no capacity here
    combine = np.zeros((TOKENS, EXPERTS))
    np.put_along_axis(combine, np.asarray(routing.experts), np.asarray(routing.weights), axis=1)
    np.testing.assert_array_equal(routing.combine, combine)


# Weights


@few
@given(draw.cases())
@example(("flat, biased", LOGITS))
@example(("flat, thinned", LOGITS))
def test_weights_against_loops(case):
    """Scores of the chosen over their sum (and epsilon), before a policy discards any; 0 for the discarded."""
    name, _ = case
    routing, router = draw.route(*case), ROUTERS[name]
    for t in range(TOKENS):
        logits = np.asarray(routing.selection_logits)[t].tolist()
        scores = [1 / (1 + math.exp(-s)) for s in logits] if name == "flat, biased" else naive.softmax(logits)
        chosen = [scores[e] for e in np.asarray(routing.experts)[t]]
        expected = [s / (sum(chosen) + router.weighting.epsilon) for s in chosen]
        close(routing.weights[t], np.where(routing.active[t], expected, 0.0), rtol=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 1e-10, 0.05])
def test_renormalised_with_epsilon(epsilon):
    log_scores = jnp.log(jnp.array([[0.3, 0.1, 0.6], [0.02, 0.6, 0.1], [1e-9, 1e-12, 0.9], [0.1, 0.2, 0.3]]))
    selected = jnp.array([[True, True, False]] * 3 + [[False] * 3])
    scores = np.exp(log_scores) * np.asarray(selected)
    expected = np.concatenate([scores[:3] / (scores[:3].sum(axis=1, keepdims=True) + epsilon), np.zeros((1, 3))])
    np.testing.assert_allclose(Renormalised(epsilon).weigh(log_scores, selected), expected, rtol=1e-13)


def test_the_two_conventions_differ_by_the_selected_mass():
    """Softmax-then-mask sums to the mass of the selection, renormalised weights to 1."""
    masked, _ = step(routers.himoe_paper(INTERLEAVED, 1, tau=0.0), ZERO, LOGITS)
    renormalised, _ = step(routers.himoe(INTERLEAVED, 1, tau=0.0, epsilon=0.0), ZERO, LOGITS)
    np.testing.assert_array_equal(masked.experts, renormalised.experts)
    close(masked.weights, from_dense(masked.probs, masked.experts), rtol=1e-14)
    total = np.asarray(masked.weights).sum(axis=1, keepdims=True)
    assert total.max() < 0.95
    close(renormalised.weights, masked.weights / total, rtol=1e-13)
    close(np.asarray(renormalised.weights).sum(axis=1), np.ones(TOKENS), rtol=1e-14)


def test_scale_multiplies_the_weight_of_its_expert():
    scale = jnp.array([1.0, 2.0, 0.5, -1.0, 3.0, 0.0])
    plain, _ = step(ROUTERS["grouped"], ZERO, LOGITS)
    scaled, _ = step(ROUTERS["grouped"], ZERO, LOGITS, scale=scale)
    np.testing.assert_allclose(scaled.combine, plain.combine * scale, rtol=1e-15)
    gradient = jax.grad(lambda scale: step(ROUTERS["grouped"], ZERO, LOGITS, scale=scale)[0].combine[:, 3].sum())(scale)
    np.testing.assert_allclose(gradient, np.where(np.arange(6) == 3, plain.combine[:, 3].sum(), 0), rtol=1e-14)


def test_what_is_dropped_is_not_redistributed():
    full, _ = step(routers.gshard(EXPERTS, 3), ZERO, LOGITS)
    tight, _ = step(routers.gshard(EXPERTS, 3, capacity=Capacity(0.5, minimum=1, even=False)), ZERO, LOGITS)
    assert tight.capacity == 1
    assert 0 < np.asarray(tight.kept).sum() < 12
    np.testing.assert_array_equal(tight.combine, np.where(tight.kept, full.combine, 0))
    np.testing.assert_array_equal(tight.selected, full.selected)  # losses see what was selected before drops


def test_dense_router():
    routing, _ = step(routers.dense(INTERLEAVED), ZERO, LOGITS)
    close(routing.weights, np.array([naive.softmax(row) for row in LOGITS.tolist()]))
    assert routing.selected.all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "router",
    [routers.loss_free(EXPERTS, 3), routers.loss_free(EXPERTS, 3, epsilon=0.0), *ROUTERS.values()],
    ids=lambda router: router.name,
)
def test_weights_at_extreme_logits(router, dtype):
    """Every score underflows in one token: weights and their gradient stay finite."""
    rising = np.linspace(-1e4, -9e3, EXPERTS)
    values = np.stack([np.full(EXPERTS, -1e4), 1e4 * np.sign(LOGITS[0]), rising, np.zeros(EXPERTS)])
    slope = jnp.arange(1, TOKENS * router.routes + 1, dtype=dtype).reshape(TOKENS, -1)

    def total(logits):
        routing, _ = router.step(None, jnp.asarray(STATE, dtype), logits)
        return (routing.weights * slope).sum(), routing.weights

    (_, weights), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(values, dtype))
    for result in (weights, gradient):
        assert result.dtype == dtype
        assert np.isfinite(result).all()
    assert np.asarray(weights).min() >= 0
    assert np.asarray(weights).max() <= 1 + 1e-6
    if router.weighting == Renormalised():  # without an epsilon the shares are those of the scores, however small
        np.testing.assert_allclose(np.asarray(weights).sum(axis=1), 1, rtol=1e-6)


# Controllers


def test_logit_average_by_hand():
    """Updated first, then used in the same call; from 0, without debiasing."""
    router = routers.himoe(INTERLEAVED, 1, tau=0.5, beta=0.75, temperature=2.0)
    average, state = np.zeros(EXPERTS), router.init(jnp.float64)
    for values in (LOGITS, LOGITS[:, ::-1].copy(), -LOGITS):
        average = [0.75 * a + 0.25 * sum(values[:, e]) / TOKENS for e, a in enumerate(average)]
        routing, state = step(router, state, values)
        np.testing.assert_allclose(state, average, rtol=1e-14)
        np.testing.assert_allclose(routing.selection_logits, (values - 0.5 * np.array(average)) / 2, rtol=1e-13)
        np.testing.assert_array_equal(routing.logits, values)
    frozen, unchanged = step(router, state, LOGITS, training=False)
    np.testing.assert_array_equal(unchanged, state)
    np.testing.assert_allclose(frozen.selection_logits, (LOGITS - 0.5 * np.asarray(state)) / 2, rtol=1e-13)


def test_no_gradient_through_the_average():
    """d(selection logits)/d(logits) is 1/Temp on the diagonal, and nothing through the batch mean."""
    router, weight = ROUTERS["grouped, bias-corrected"], jnp.asarray(np.sin(np.arange(24.0)).reshape(4, 6))
    gradient = jax.grad(lambda s: (step(router, STATE, s)[0].selection_logits * weight).sum())(jnp.asarray(LOGITS))
    np.testing.assert_allclose(gradient, weight / 1.3, rtol=1e-14)


def test_average_decides_selection_and_weights():
    """A strong average pushes the favoured expert of each group out."""
    router = routers.himoe(INTERLEAVED, 1, tau=1.0, beta=1.0, epsilon=0.0)
    state = 10.0 * np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    routing, after = step(router, state, np.tile([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], (TOKENS, 1)))
    np.testing.assert_array_equal(after, state)  # beta 1: nothing new
    np.testing.assert_array_equal(routing.experts, np.tile([4, 3, 2], (TOKENS, 1)))
    corrected = naive.softmax([0.0, 0.0, -9.0])
    np.testing.assert_allclose(routing.weights, np.tile(corrected, (TOKENS, 1)), rtol=1e-12)


def test_selection_bias_by_hand():
    """One step of the rate towards the mean count; an expert exactly at the mean stays."""
    router = routers.loss_free(4, 2, rate=0.25)
    logits = np.array([[3.0, 2.0, 1.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    routing, state = step(router, np.array([0.0, 0.0, 0.0, 0.125]), logits)
    np.testing.assert_array_equal(np.asarray(routing.selected).sum(axis=0), [2, 1, 1, 0])
    np.testing.assert_array_equal(state, [-0.25, 0.0, 0.0, 0.375])
    _, unchanged = step(router, STATE[:4], logits, training=False)
    np.testing.assert_array_equal(unchanged, STATE[:4])


def test_selection_bias_counts_before_drops():
    router = routers.loss_free(4, 2, rate=0.25, capacity=Capacity(0.5, minimum=1, even=False))
    routing, state = step(router, np.zeros(4), np.array([[3.0, 2.0, 1.0, 0.0]] * 2))
    np.testing.assert_array_equal(np.asarray(routing.kept).sum(axis=0), [1, 1, 0, 0])
    np.testing.assert_array_equal(state, [-0.25, -0.25, 0.25, 0.25])


def test_bias_selects_and_never_weighs():
    logits = np.array([[2.0, 1.0, 0.0, -1.0]])
    bias = np.array([-9.0, 0.0, 0.0, 9.0])
    routing, _ = step(routers.loss_free(4, 2, epsilon=0.0), bias, logits)
    np.testing.assert_array_equal(routing.experts, [[3, 1]])
    score = [1 / (1 + math.exp(1)), 1 / (1 + math.exp(-1))]
    np.testing.assert_allclose(routing.weights, [[s / sum(score) for s in score]], rtol=1e-13)
    # It is added to the score, not to the logit: 0.5 outranks a difference of scores of 0.38.
    routing, _ = step(routers.loss_free(4, 1), np.array([0.0, 0.0, 0.5, 0.0]), logits)
    np.testing.assert_array_equal(routing.experts, [[2]])


def test_uncontrolled_state_stays():
    _, state = step(ROUTERS["grouped"], STATE, LOGITS)
    np.testing.assert_array_equal(state, STATE)


@pytest.mark.parametrize("name", ["grouped, bias-corrected", "flat, biased"])
def test_state_keeps_its_type(name):
    """So that it can be carried through a scan, whatever the logits' type."""
    for state_dtype, dtype in ((jnp.float32, jnp.float64), (jnp.float32, jnp.bfloat16)):
        routing, state = ROUTERS[name].step(None, ROUTERS[name].init(state_dtype), jnp.asarray(LOGITS, dtype))
        assert state.dtype == state_dtype
        assert routing.weights.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)


# Compiled, batched


@pytest.mark.parametrize("name", ROUTERS)
def test_jit_equals_eager_and_compiles_once(name):
    router, traces = ROUTERS[name], 0

    @eqx.filter_jit
    def compiled(router, state, logits):
        nonlocal traces
        traces += 1
        return router.step(None, state, logits)

    for values in (LOGITS, LOGITS[::-1].copy()):
        actual = compiled(router, jnp.asarray(STATE), jnp.asarray(values))
        for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(step(router, STATE, values)), strict=True):
            if one.dtype == jnp.float64:
                close(one, other, rtol=1e-14)
            else:
                np.testing.assert_array_equal(one, other)
    assert traces == 1


def test_a_sweep_over_a_controllers_numbers_is_one_compilation():
    """tau, beta and Temp as arrays: vmap sweeps them, and each entry is the router with that number."""
    taus, betas, temperatures = jnp.array([0.0, 0.4, 2.0]), jnp.array([0.1, 0.5, 0.9]), jnp.array([0.5, 1.0, 2.0])
    traces = 0

    def build(controller):
        return Router("swept", INTERLEAVED, routers.GroupedTopK(1), "himoe", controller=controller)

    @jax.jit
    @jax.vmap
    def sweep(tau, beta, temperature):
        nonlocal traces
        traces += 1
        router = build(LogitAverage(tau, beta, temperature))
        return router.step(None, jnp.asarray(STATE), jnp.asarray(LOGITS))

    swept, states = sweep(taus, betas, temperatures)
    sweep(taus + 1, betas, temperatures)
    assert traces == 1
    for i in range(3):
        alone, state = step(build(LogitAverage(float(taus[i]), float(betas[i]), float(temperatures[i]))), STATE, LOGITS)
        close(states[i], state, rtol=1e-14)
        close(swept.weights[i], alone.weights, rtol=1e-13)
        np.testing.assert_array_equal(swept.experts[i], alone.experts)


def test_steps_in_a_scan():
    router = routers.loss_free(EXPERTS, 3, rate=0.05)
    batches = jnp.asarray(np.stack([LOGITS, LOGITS[::-1], 0.5 * LOGITS]))
    carried, loads = jax.lax.scan(
        lambda state, logits: router.step(None, state, logits)[::-1], router.init(jnp.float64), batches
    )
    state = router.init(jnp.float64)
    for logits in batches:
        routing, state = router.step(None, state, logits)
    close(carried, state, rtol=1e-14)
    np.testing.assert_array_equal(loads.experts[-1], routing.experts)


# What one token may learn of another


def _changed(router, training):
    """Whether another first token changes the decisions for, or the weights of, the others."""
    other = np.concatenate([[[9.0, -9.0, 9.0, -9.0, 9.0, -9.0]], LOGITS[1:]])
    one, two = (step(router, ZERO, values, training=training)[0] for values in (LOGITS, other))
    return not all(
        np.array_equal(getattr(one, field)[1:], getattr(two, field)[1:]) for field in ("experts", "kept", "weights")
    )


@pytest.mark.parametrize(
    "router",
    [
        routers.gshard(EXPERTS, 3),
        routers.moge(INTERLEAVED, 1),
        routers.st_moe(EXPERTS, 3, KeepAbove(0.3)),
        routers.loss_free(EXPERTS, 3),
        routers.himoe(INTERLEAVED, 1, tau=1.0),
    ],
    ids=lambda router: router.name,
)
def test_without_capacity_tokens_are_routed_independently(router):
    assert not _changed(router, training=False)


def test_capacity_and_the_average_of_the_batch_couple_tokens():
    """Counter-examples: the first token takes the last place, or shifts the mean that corrects the others."""
    assert _changed(routers.gshard(EXPERTS, 3, capacity=Capacity(0.5, minimum=1, even=False)), training=False)
    assert _changed(routers.himoe(INTERLEAVED, 1, tau=1.0, beta=0.1), training=True)


# Names


def test_named_routers_are_what_they_say():
    partition = Partition.equal(8, 4)
    built = {
        "gshard": routers.gshard(8, 2),
        "st-moe": routers.st_moe(8, 2, KeepAbove()),
        "loss-free": routers.loss_free(8, 2),
        "moge": routers.moge(partition, 1),
        "hi-moe": routers.himoe(partition, 1),
        "hi-moe-paper": routers.himoe_paper(partition, 1),
        "dense": routers.dense(partition),
    }
    assert all(router.name == name for name, router in built.items())
    assert [built[name].routes for name in built] == [2, 2, 2, 4, 4, 4, 8]
    # The constants of the released code.
    assert [built[name].weighting.epsilon for name in ("gshard", "st-moe", "loss-free", "moge", "hi-moe")] == [
        0.0,
        1e-9,
        1e-20,
        1e-10,
        1e-10,
    ]
    assert isinstance(built["hi-moe-paper"].weighting, SoftmaxThenMask)
    assert isinstance(built["loss-free"].score, Sigmoid)
    assert built["loss-free"].controller.rate == 0.001
    average = built["hi-moe"].controller
    assert (average.tau, average.beta, average.temperature) == (0.01, 0.9, 1.0)
    assert built["gshard"].selection == TopK(2)
    assert built["gshard"].partition == Partition.equal(8, 1)
    assert routers.gshard(8, 2, partition=partition).partition == partition
