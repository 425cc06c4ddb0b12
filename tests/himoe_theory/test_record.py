"""The routing record: any selection, masked tokens, limits, saturation, capacity orders, soft dispatch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import example, given
from hypothesis import strategies as st

from himoe_theory import (
    Above,
    AtRandom,
    ByGate,
    ByPriority,
    Capacity,
    Entmax15,
    Everything,
    ExpertChoice,
    GlobalTop,
    GroupedTopK,
    GroupLimited,
    KeepAbove,
    KeepFirst,
    Mass,
    Partition,
    Router,
    SelectionBias,
    Sigmoid,
    Sinkhorn,
    Softmax,
    SoftmaxThenMask,
    TopK,
    blend,
    expert_choice,
    global_top,
    routers,
)

from . import naive
from . import strategies as draw
from .strategies import EXPERTS, LOGITS, PARTITIONS, TOKENS, few

EQUAL = PARTITIONS["equal"]
TIGHT = Capacity(0.75, minimum=1, even=False)


def built(selection, **parts):
    return Router("built", EQUAL, selection, "himoe-theory", **parts)


# One of every selection, and of every way in which tokens can meet.
EVERY = {
    "top-k": built(TopK(2)),
    "grouped": built(GroupedTopK(1), capacity=TIGHT),
    "group-limited": built(GroupLimited(2, 2, best=1)),
    "mass": built(Mass(0.7), policy=KeepAbove(0.3)),
    "above": built(Above(0.2), capacity=Capacity(0.5, minimum=1, even=False, order=ByGate())),
    "above or none": built(Above(0.4, at_least_one=False)),
    "expert choice": built(ExpertChoice(2.0)),
    "expert choice, capped": built(ExpertChoice(2.0, most=2)),
    "global top": built(GlobalTop(1.5), score=Sigmoid()),
    "biased": built(TopK(2), score=Sigmoid(), controller=SelectionBias(0.1)),
    "averaged": routers.himoe(EQUAL, 1, tau=0.5),
    "entmax": built(Everything(), score=Entmax15(), weighting=SoftmaxThenMask()),
    "transport": built(TopK(1), score=Sinkhorn()),
    "by priority": built(TopK(2), capacity=Capacity(0.5, minimum=1, even=False, order=ByPriority())),
    "re-routed": built(TopK(2), capacity=Capacity(1.0, minimum=1, even=False, reroute=2)),
    "nulls": built(TopK(2), nulls=2),
}
SUMMED = {"averaged", "transport"}
"""Whose tokens meet in sums of all, which have more terms, some of them 0."""


@functools.cache
def _stepped(name):
    router = EVERY[name]
    return jax.jit(lambda logits, mask, limits: router.step(None, router.init(), logits, mask=mask, limits=limits))


def step(name, logits, mask=None, limits=None):
    return _stepped(name)(jnp.asarray(logits), mask, limits)


# Masked tokens


@pytest.mark.parametrize("name", EVERY)
@few
@given(draw.logits(), draw.hostile_logits(), st.permutations(range(2 * TOKENS)))
@example(LOGITS, 9 * np.ones((TOKENS, EXPERTS)), [4, 5, 6, 7, 0, 1, 2, 3])
def test_masked_tokens_change_nothing(name, real, padding, order):
    """To the bit: the selection, slots, weights and the controller's state, whatever stands in the padding."""
    place = np.sort(np.asarray(order)[:TOKENS])
    whole = np.empty((2 * TOKENS, EXPERTS))
    whole[np.setdiff1d(np.arange(2 * TOKENS), place)], whole[place] = padding, real
    mask = np.isin(np.arange(2 * TOKENS), place)
    alone, state = step(name, real, jnp.ones(TOKENS, bool))
    among, moved = step(name, whole, jnp.asarray(mask))
    for field in ("selected", "kept", "slots", "log_probs"):
        np.testing.assert_array_equal(getattr(among, field)[mask], getattr(alone, field), err_msg=field)
    tolerance = 1e-12 if name in SUMMED else 0
    np.testing.assert_allclose(among.combine[mask], alone.combine, rtol=tolerance)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), moved, state)
    for field in ("selected", "kept", "combine"):
        assert not np.asarray(getattr(among, field))[~mask].any(), field
    assert (np.asarray(among.slots)[~mask] == -1).all()


def test_a_batch_of_padding_alone():
    for name in EVERY:
        routing, state = step(name, LOGITS, jnp.zeros(TOKENS, bool))
        assert not np.asarray(routing.selected).any(), name
        assert np.isfinite(np.asarray(routing.combine)).all(), name
        jax.tree.map(lambda x: np.testing.assert_array_equal(x, 0), state)


def test_padding_by_hand():
    """Four real tokens behind four pads, capacity 4: nothing real is dropped, and the bias stays."""
    logits = np.array([(3.0, 0.0)] * 4 + [(2.0, 0.0), (0.0, 2.0)] * 2)
    router = routers.loss_free(2, 1, capacity=Capacity(1.0, minimum=4, even=False))
    routing, bias = router.step(None, router.init(), jnp.asarray(logits), mask=jnp.arange(8) >= 4)
    np.testing.assert_array_equal(bias, [0.0, 0.0])
    np.testing.assert_array_equal(routing.counts, [2, 2])
    assert int(routing.dropped) == 0
    np.testing.assert_array_equal(routing.kept[4:], [[True, False], [False, True]] * 2)


# Keys of -inf


@pytest.mark.parametrize("name", EVERY)
def test_what_is_not_allowed_is_never_chosen(name):
    """Experts 0 and 3 closed to all, expert 1 to the second token; the rest is as with those experts last."""
    limits = np.ones((TOKENS, EXPERTS), bool)
    limits[:, [0, 3]] = limits[1, 1] = False
    routing, _ = step(name, LOGITS, None, jnp.asarray(limits))
    assert not (np.asarray(routing.selected) & ~limits).any()
    assert np.isfinite(np.asarray(routing.combine)).all()
    if name in ("top-k", "biased"):
        low = np.where(limits, LOGITS, LOGITS - 1e3)
        np.testing.assert_array_equal(routing.selected, step(name, low)[0].selected)


def test_a_token_without_any_expert():
    routing, _ = step("top-k", LOGITS, None, jnp.asarray(np.arange(TOKENS) > 0)[:, None] & jnp.ones(EXPERTS, bool))
    np.testing.assert_array_equal(np.asarray(routing.selected).sum(axis=1), [0, 2, 2, 2])
    np.testing.assert_array_equal(routing.combine[0], 0)
    np.testing.assert_array_equal(routing.active[0], False)


# Saturation


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("row", "k", "best"),
    [
        ((18.0, 30.0), 1, {1}),
        ((17.0, 18.0), 1, {1}),
        ((-100.0, -120.0), 1, {0}),
        ((18.0, 19.0, 30.0), 2, {1, 2}),
        ((38.0, 50.0, 800.0), 2, {1, 2}),
        ((900.0, 950.0), 1, {1}),  # even the logarithm is 0
        ((-800.0, -900.0, -750.0), 2, {0, 2}),
    ],
)
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_a_sigmoid_saturates_the_order_does_not(row, k, best, bias, dtype):
    router = routers.loss_free(len(row), k)
    routing, _ = router.step(None, jnp.full(len(row), bias), jnp.asarray([row], dtype))
    assert set(np.flatnonzero(routing.selected[0])) == best


def test_equal_keys_of_unequal_biases_are_ranked_by_score():
    """Beside a bias that differs elsewhere, 18 and 30 still differ."""
    router = routers.loss_free(3, 1)
    routing, _ = router.step(None, jnp.array([0.5, 0.5, 0.0]), jnp.asarray([[18.0, 30.0, 0.0]], jnp.float32))
    np.testing.assert_array_equal(routing.selected, [[False, True, False]])


def test_softmax_values_that_underflow_keep_their_order():
    logits = jnp.asarray([[-100.0, -99.0, 90.0]], jnp.float32)
    for selection in (TopK(2), GroupLimited(2, 3, best=1), Mass(1.0, most=2)):
        partition = Partition((0, 1, 2))
        routing, _ = Router("r", partition, selection, "guo").step(None, (), logits)
        np.testing.assert_array_equal(routing.selected, [[False, True, True]])


# Selections against plain loops


@few
@given(draw.logits())
@example(LOGITS)
def test_group_limited_against_loops(values):
    for best in (1, 2):
        rule = GroupLimited(2, 2, best=best)
        routing, _ = built(rule, score=Sigmoid()).step(None, (), jnp.asarray(values))
        for t, row in enumerate(values):
            score = 1 / (1 + np.exp(-row))
            worth = [sum(sorted(score[EQUAL.members(g)])[-best:]) for g in range(3)]
            kept = sorted(range(3), key=lambda g: (-worth[g], g))[:2]
            among = [e for e in range(EXPERTS) if EQUAL.group_of[e] in kept]
            assert set(np.flatnonzero(routing.selected[t])) == set(sorted(among, key=lambda e: -row[e])[:2])


def test_group_limited_with_negative_keys():
    """Groups {0, 1} and {2, 3}: those left out are -inf, and do not come back when all keys are negative."""
    scores = np.array([0.6, 0.5, 0.9, 0.1])
    logits = jnp.asarray([np.log(scores / (1 - scores))])
    router = Router("r", Partition.equal(4, 2), GroupLimited(2, 1), "guo", Sigmoid(), controller=SelectionBias(0.1))
    for bias in (0.0, -1.0):
        routing, _ = router.step(None, jnp.full(4, bias), logits)
        np.testing.assert_array_equal(routing.selected, [[True, True, False, False]])
    with pytest.raises(ValueError, match=r"`k` must be at most 2 \(experts in the 1 smallest groups, .*\); got 3"):
        Router("r", Partition.equal(4, 2), GroupLimited(3, 1), "guo")


@few
@given(draw.logits(), st.floats(0, 1))
@example(LOGITS, 0.0)
@example(LOGITS, 1.0)
def test_mass_against_a_loop(values, p):
    routing, _ = built(Mass(p)).step(None, (), jnp.asarray(values))
    for t, row in enumerate(values):
        probs, chosen, total = naive.softmax(row.tolist()), set(), 0.0
        for e in sorted(range(EXPERTS), key=lambda e: -row[e]):
            chosen.add(e)
            total += probs[e]
            if total > p + 1e-12:
                break
            if total > p - 1e-12:
                return  # at the crossing itself rounding decides
        assert set(np.flatnonzero(routing.selected[t])) == chosen


def test_pools_are_their_functions():
    probs = jax.nn.softmax(jnp.asarray(LOGITS))
    np.testing.assert_array_equal(step("expert choice", LOGITS)[0].selected, expert_choice(probs, 1))
    sigma = jax.nn.sigmoid(jnp.asarray(LOGITS))
    np.testing.assert_array_equal(step("global top", LOGITS)[0].selected, global_top(sigma, 6))
    capped = np.asarray(step("expert choice, capped", LOGITS)[0].selected)
    assert capped.sum(axis=1).max() <= 2


def test_null_experts_take_load_and_compute_nothing():
    plain, with_nulls = step("top-k", LOGITS)[0], step("nulls", LOGITS)[0]
    np.testing.assert_array_equal(with_nulls.selected, plain.selected)
    np.testing.assert_array_equal(with_nulls.kept[:, :4], plain.kept[:, :4])
    assert not np.asarray(with_nulls.kept)[:, 4:].any()
    np.testing.assert_array_equal(with_nulls.combine[:, :4], plain.combine[:, :4])


def test_entmax_against_its_definition():
    """1.5-entmax maximises <p, s> + (1 - sum p^1.5) / 0.75; the threshold by a root finder, the gradient by hand."""
    score = Entmax15()
    found = np.asarray(score.value(jnp.asarray(LOGITS)))
    for row, p in zip(LOGITS, found, strict=True):
        theta = scipy.optimize.brentq(lambda t, row=row: (np.maximum(row / 2 - t, 0) ** 2).sum() - 1, -9, 9, xtol=1e-14)
        np.testing.assert_allclose(p, np.maximum(row / 2 - theta, 0) ** 2, atol=1e-12)
    assert (found == 0).any()
    weight = np.cos(np.arange(TOKENS * EXPERTS)).reshape(TOKENS, EXPERTS)
    gradient = jax.grad(lambda s: (score.value(s) * weight).sum())(jnp.asarray(LOGITS))
    root = np.sqrt(found)
    expected = root * (weight - (weight * root).sum(axis=1, keepdims=True) / root.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_transport_gives_every_expert_its_share():
    plan = np.exp(Sinkhorn(rounds=200).log_plan(jnp.asarray(LOGITS)))
    np.testing.assert_allclose(plan.sum(axis=0), 1 / EXPERTS, rtol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / TOKENS, rtol=1e-9)
    assert np.isfinite(Sinkhorn().log_plan(jnp.full((3, 2), 1e4).at[0, 1].set(-1e4))).all()


# Capacity orders


def test_orders_by_hand():
    """One expert of two, two places, four tokens of gates .6 .9 .7 .8: who stays."""
    logits = jnp.log(jnp.array([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.8, 0.2]]))

    def kept(order, key=None):
        capacity = Capacity(1.0, minimum=1, even=False, order=order)
        router = Router("r", Partition((0, 0)), TopK(1), "guo", weighting=SoftmaxThenMask(), capacity=capacity)
        assert router.is_random == (key is not None)
        return set(np.flatnonzero(router.step(key, (), logits)[0].kept[:, 0]))

    assert kept(Capacity(1.0).order) == {0, 1}
    assert kept(ByPriority()) == kept(ByGate()) == {1, 3}
    drawn = {tuple(sorted(kept(AtRandom(), jax.random.key(seed)))) for seed in range(12)}
    assert len(drawn) > 3
    with pytest.raises(ValueError, match="`key` must be given to a router with a random capacity order; got None"):
        Router("r", Partition((0, 0)), TopK(1), "guo", capacity=Capacity(1.0, order=AtRandom())).step(None, (), logits)


def test_rerouting_by_hand():
    """Three tokens want expert 0, which has one place, as have the others: the second goes to its next best, the third
    past that to its third; weights are those of where they went."""
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1]]))
    capacity = Capacity(1.0, minimum=1, even=False, reroute=2)
    router = Router("r", Partition((0, 0, 0)), TopK(1), "guo", weighting=SoftmaxThenMask(), capacity=capacity)
    routing, _ = router.step(None, (), logits)
    np.testing.assert_allclose(routing.combine, np.diag([0.7, 0.3, 0.1]), rtol=1e-6)
    np.testing.assert_array_equal(routing.selected, [[True, False, False]] * 3)  # losses see the wish


def test_a_schedule_of_k_is_one_compilation():
    traces = 0

    @jax.jit
    def kept(count):
        nonlocal traces
        traces += 1
        return built(TopK(3), policy=KeepFirst(count)).step(None, (), jnp.asarray(LOGITS))[0].selected.sum(axis=1)

    for count in (1, 2, 3):
        np.testing.assert_array_equal(kept(jnp.float64(count)), [count] * TOKENS)
    assert traces == 1


def test_memory_does_not_grow_with_the_routes_of_a_token(optimised):
    """N 64, K 8, T 8,192, with a capacity: a step needs a few tables of tokens x experts, none of them K times as
    large. (With lists of routes it needed 24.)"""
    tokens, experts = 8192, 64
    router = routers.gshard(experts, 8, capacity=Capacity(1.25))
    shape = jax.ShapeDtypeStruct((tokens, experts), jnp.float32)

    def decisions(logits):
        routing, _ = router.step(None, (), logits)
        return routing.combine, routing.selected, routing.kept, routing.slots

    def loss(logits):
        routing, _ = router.step(None, (), logits)
        return jnp.square(routing.combine).sum() + (routing.counts.astype(jnp.float32) * routing.probs).sum()

    for function, tables in ((decisions, 6), (jax.grad(loss), 10)):
        analysis = jax.jit(function).lower(shape).compile().memory_analysis()
        assert analysis.temp_size_in_bytes < tables * 4 * tokens * experts


# There and back


@pytest.mark.parametrize("name", EVERY)
def test_spread_and_collect_are_the_weighted_sum(name):
    routing, _ = step(name, LOGITS)
    x = np.cos(np.arange(TOKENS * 3.0)).reshape(TOKENS, 3)
    buffers = np.asarray(routing.spread(jnp.asarray(x)))
    for t, e in zip(*np.nonzero(routing.kept), strict=True):
        np.testing.assert_array_equal(buffers[e, routing.slots[t, e]], x[t])
    factor = np.arange(1.0, EXPERTS + 1)
    y = routing.collect(jnp.asarray(buffers * factor[:, None, None]))
    np.testing.assert_allclose(y, (np.asarray(routing.combine) @ factor)[:, None] * x, atol=1e-12)


@few
@given(draw.logits(), st.integers(1, 2 * TOKENS))
def test_soft_dispatch(values, pads):
    """Columns and rows of weights sum to 1, masked tokens change nothing, a permutation of tokens permutes."""
    slots = np.stack([values, 0.5 * values[:, ::-1]], axis=-1)
    soft = blend(jnp.asarray(slots), EQUAL)
    np.testing.assert_allclose(soft.send.sum(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(soft.combine.sum(axis=1), 1, rtol=1e-12)
    expected = np.exp(slots) / np.exp(slots).sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(soft.back, expected, rtol=1e-9)
    x = values[:, :2]
    y = np.asarray(soft.collect(soft.spread(jnp.asarray(x))))
    np.testing.assert_allclose(y, np.einsum("tep,uep,ud->td", soft.back, soft.send, x), atol=1e-10)
    whole = np.concatenate([np.full((pads, EXPERTS, 2), 7.0), slots])
    masked = blend(jnp.asarray(whole), EQUAL, jnp.arange(pads + TOKENS) >= pads)
    np.testing.assert_allclose(masked.send[pads:], soft.send, rtol=1e-12)
    np.testing.assert_allclose(masked.back[pads:], soft.back, rtol=1e-12)
    assert not np.asarray(masked.send)[:pads].any()


# Questions that parts answer


def test_routers_say_what_they_are():
    assert not built(TopK(1)).task_reaches_gate  # pi / pi = 1
    assert built(TopK(2)).task_reaches_gate
    assert built(TopK(1), weighting=SoftmaxThenMask()).task_reaches_gate
    assert routers.dense(EQUAL).is_dense
    assert not built(Everything(), policy=KeepAbove(0.3)).is_dense
    assert built(GroupedTopK(1)).least_routes == 3
    assert built(TopK(3), policy=KeepAbove()).least_routes == built(ExpertChoice(2.0)).least_routes == 1
    assert Softmax() == Softmax() != Sigmoid()


def test_only_numbers_of_controller_and_policy_are_leaves():
    """Capacity, selection and names are static: another capacity is another program."""
    router = built(TopK(3), policy=KeepAbove(0.3), controller=SelectionBias(0.1), capacity=TIGHT)
    assert jax.tree.leaves(router) == [0.3, 0.1]
    wider = built(TopK(3), policy=KeepAbove(0.3), controller=SelectionBias(0.1), capacity=Capacity(1.0))
    assert jax.tree.structure(router) != jax.tree.structure(wider)
