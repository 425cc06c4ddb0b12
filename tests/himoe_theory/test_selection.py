"""Which experts a token goes to, which of them stay, and who finds a place: against plain loops."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from himoe_theory import (
    Capacity,
    Everything,
    GroupedTopK,
    KeepAbove,
    KeepAll,
    KeepFirst,
    KeepRandomly,
    Partition,
    Softmax,
    TopK,
    assign_slots,
    routers,
    to_dense,
)

from . import strategies as draw
from .strategies import EXPERTS, LOGITS, PARTITIONS, TOKENS, few

# Selection rules


def routes_of(rule, values, partition):
    """The ranked view of what a rule chooses by these logits; its flags are those of the view."""
    choice = rule.choose(Softmax().keys(jnp.asarray(values)), partition, None)
    dense = to_dense(jnp.ones(choice.routes.shape, bool), choice.routes, partition.num_experts)
    np.testing.assert_array_equal(choice.selected, dense)
    return np.asarray(choice.routes).tolist()


def best(row, among, k):
    """The k largest of some experts; of equal ones, the expert of lower number."""
    return sorted(among, key=lambda e: (-row[e], e))[:k]


keys = st.one_of(draw.logits(), draw.hostile_logits())
TIES = np.array([[0.0, 1.0, 1.0, 0.0, 1.0, 0.0], [0.0] * 6, [-0.0, 0.0] * 3, [2.0, -1.0, 2.0, -1.0, -1.0, 2.0]])


@pytest.mark.parametrize("k", [1, 3, 6])
@few
@given(keys)
@example(TIES)
def test_top_k_against_sorting(k, values):
    chosen = routes_of(TopK(k), values, PARTITIONS["one-group"])
    assert chosen == [best(row, range(EXPERTS), k) for row in values]


GROUPED = [
    ("one-group", 2),
    ("unequal", (3, 1, 1)),
    ("unequal", (1, 2, 1)),
    ("interleaved", (1, 3, 1)),
    ("two-interleaved", (3, 1)),
    ("equal", 2),
    ("singletons", 1),
]


@pytest.mark.parametrize(("name", "per_group"), GROUPED)
@few
@given(keys)
@example(TIES)
def test_grouped_top_k_against_sorting(name, per_group, values):
    partition, rule = PARTITIONS[name], GroupedTopK(per_group)
    counts = per_group if isinstance(per_group, tuple) else (per_group,) * partition.num_groups
    members = [[e for e in range(EXPERTS) if partition.group_of[e] == g] for g in range(partition.num_groups)]
    expected = [[e for group, k in zip(members, counts, strict=True) for e in best(row, group, k)] for row in values]
    assert routes_of(rule, values, partition) == expected
    assert rule.routes(partition) == sum(counts)


@pytest.mark.parametrize("width", [16, 17])
def test_wide_groups_against_sorting(width):
    """Groups up to 16 wide are ranked by counting, wider ones by sorting: the same answer, ties included."""
    group_of = tuple(0 if e < width else 1 for e in range(width + 3))
    values = np.round(2 * np.sin(np.arange(TOKENS * (width + 3), dtype=float) ** 2)).reshape(TOKENS, -1)  # many ties
    signed = np.where(np.arange(width + 3) % 2 == 0, -0.0, 0.0)
    values = np.where(values == 0, signed, values)  # and both signs of zero in a row
    chosen = routes_of(GroupedTopK((12, 2)), values, Partition(group_of))
    expected = [best(row, range(width), 12) + best(row, range(width, width + 3), 2) for row in values]
    assert chosen == expected


def test_everything():
    rule, partition = Everything(), PARTITIONS["interleaved"]
    assert routes_of(rule, LOGITS, partition) == [list(range(EXPERTS))] * TOKENS
    assert rule.routes(partition) == EXPERTS


# Policies


GATES = jnp.array([[0.5, 0.2, 0.3], [0.19, 0.21, 0.6], [0.1, 0.7, 0.2]])


def test_policies_without_chance():
    np.testing.assert_array_equal(KeepAll().keep(GATES, None), True)
    np.testing.assert_array_equal(KeepFirst().keep(GATES, None), [[True, False, False]] * 3)
    # Strictly above: a gate of exactly 0.2 goes; the first stays whatever its gate.
    above = KeepAbove(0.2).keep(GATES, None)
    np.testing.assert_array_equal(above, [[True, False, True], [True, True, True], [True, True, False]])
    np.testing.assert_array_equal(KeepAbove(0.5).keep(GATES, None)[0], [True, False, False])
    assert KeepAbove().threshold == KeepRandomly().threshold == 0.2


def test_random_policy_keeps_in_proportion():
    """Frequency min(1, gate/threshold) of 20,000 draws; 5 standard errors: false alarm below 1e-6 for each gate."""
    draws, threshold = 20_000, 0.4
    gates = jnp.tile(jnp.array([[0.01, 0.05, 0.2, 0.39, 0.4, 0.9]]), (draws, 1))
    kept = np.asarray(KeepRandomly(threshold).keep(gates, jax.random.key(0)))
    assert kept[:, 0].all()  # the first always stays
    assert kept[:, 4:].all()
    for column in (1, 2, 3):
        p = float(gates[0, column]) / threshold
        assert abs(kept[:, column].mean() - p) <= 5 * math.sqrt(p * (1 - p) / draws)
    assert abs(np.corrcoef(kept[:, 1], kept[:, 2])[0, 1]) <= 5 / math.sqrt(draws)  # drawn independently


def test_random_policy_follows_its_key():
    first, again, other = (KeepRandomly(0.9).keep(GATES[:, :2], jax.random.key(seed)) for seed in (1, 1, 5))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()
    with pytest.raises(ValueError, match="`key` must be given to a router with the random policy; got None"):
        routers.st_moe(6, 3, KeepRandomly()).step(None, jnp.zeros(6), jnp.asarray(LOGITS))


# Capacity


@pytest.mark.parametrize(
    ("capacity", "routes", "tokens", "experts", "expected"),
    [
        (Capacity(1.25), 4, 10, 8, 6),  # floor 6.25
        (Capacity(1.5), 4, 10, 8, 8),  # floor 7.5 is odd: one more
        (Capacity(1.5, even=False), 4, 10, 8, 7),  # loss-free: stays odd
        (Capacity(1.0), 2, 10, 8, 4),  # floor 2.5, below the minimum
        (Capacity(1.0, minimum=1), 2, 10, 8, 2),
        (Capacity(1.0, minimum=1), 1, 10, 8, 2),  # floor 1.25 is odd
        (Capacity(1.0, minimum=5), 2, 10, 8, 5),  # the minimum comes last, so it may be odd
        (Capacity(0.0, minimum=3), 2, 10, 8, 3),
        (Capacity(2.0), 1, 4096, 64, 128),
        (Capacity(1.1, minimum=1, even=False), 1, 70, 7, 11),  # 1 * 1.1 * 70 is a little above 77
        (Capacity(0.7, minimum=1, even=False), 3, 10, 7, 2),  # 3 * 0.7 * 10 is a little below 21
    ],
)
def test_capacity_by_hand(capacity, routes, tokens, experts, expected):
    assert capacity.slots(routes, tokens, experts) == expected


def queue(experts, active, num_experts):
    """All first routes in token order, then all second routes, and so on: each takes the next place at its expert."""
    length, place = [0] * num_experts, np.zeros(experts.shape, int)
    for route in range(experts.shape[1]):
        for token in range(experts.shape[0]):
            expert = experts[token, route]
            place[token, route] = length[expert] if active[token, route] else -1
            length[expert] += bool(active[token, route])
    return place


choices = st.lists(draw.permutations(EXPERTS), min_size=TOKENS, max_size=TOKENS).map(lambda rows: np.stack(rows)[:, :3])
masks = st.lists(st.booleans(), min_size=12, max_size=12).map(lambda bits: np.array(bits).reshape(TOKENS, 3))


@given(choices, masks)
@example(np.array([[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0]]), np.ones((TOKENS, 3), bool))
def test_slots_against_a_queue(experts, active):
    routes = jnp.asarray(experts, jnp.int32)
    slots = assign_slots(to_dense(jnp.asarray(active), routes, EXPERTS), routes)
    by_route = np.take_along_axis(np.asarray(slots), experts, axis=1)
    np.testing.assert_array_equal(by_route, queue(experts, active, EXPERTS))


LIMITED = routers.moge(PARTITIONS["interleaved"], 1, capacity=Capacity(0.75, minimum=1))  # 1.5, odd, so 2 places


@few
@given(keys)
@example(np.tile(LOGITS[0], (TOKENS, 1)))
def test_no_expert_takes_more_than_its_capacity(values):
    routing, _ = LIMITED.step(None, jnp.zeros(EXPERTS), jnp.asarray(values))
    assert routing.capacity == 2
    place = queue(np.asarray(routing.experts), np.asarray(routing.active), EXPERTS)
    kept, slots = (
        np.take_along_axis(np.asarray(part), np.asarray(routing.experts), axis=1)
        for part in (routing.kept, routing.slots)
    )
    np.testing.assert_array_equal(kept, (place >= 0) & (place < 2))
    np.testing.assert_array_equal(slots, np.where(kept, place, -1))
    used = np.asarray(routing.kept).sum(axis=0)
    assert used.max() <= 2
    np.testing.assert_array_equal(used, np.minimum(np.asarray(routing.selected).sum(axis=0), 2))
    assert not np.asarray(routing.combine)[~np.asarray(routing.kept)].any()


def test_discarded_routes_take_no_place():
    """Three tokens, two places: the policy discards the second's route, so the third finds room."""
    router = routers.st_moe(2, 2, KeepAbove(0.45), capacity=Capacity(1.0, minimum=2, even=False))
    logits = jnp.array([[0.1, 0.0], [2.0, 0.0], [0.1, 0.0]])
    routing, _ = router.step(None, jnp.zeros(2), logits)
    np.testing.assert_array_equal(routing.active, [[True, True], [True, False], [True, True]])
    assert routing.capacity == 3
    np.testing.assert_array_equal(routing.slots, [[0, 0], [1, -1], [2, 1]])  # experts in their order


def test_partition_of_one_expert():
    """The smallest case: one expert, one group."""
    assert routes_of(GroupedTopK(1), np.zeros((TOKENS, 1)), Partition((0,))) == [[0]] * TOKENS


@pytest.mark.parametrize(
    ("policy", "least"), [(KeepAll(), 3), (KeepFirst(), 1), (KeepAbove(0.2), 1), (KeepRandomly(0.2), 1)]
)
def test_the_fewest_experts_of_a_token_follow_from_the_policy(policy, least):
    """All that are selected if the policy keeps all, else the first: information is measured against it."""
    router = dataclasses.replace(routers.st_moe(8, 3, KeepAll()), policy=policy, capacity=None)
    assert (router.routes, router.least_routes) == (3, least)
    logits = jax.random.normal(jax.random.key(0), (64, 8))
    routing, _ = router.step(jax.random.key(1), router.init(), logits)
    kept = routing.kept.sum(axis=1)
    assert kept.min() >= least
    assert (kept.min() == 3) == isinstance(policy, KeepAll)
