"""Churn, co-activation and redundancy, against Python sets, counters and enumeration."""

import itertools
import math
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from himoe_theory import metrics

from .cases import CHOICE_SIZES, CHOICES, SELECTED, loose_selections, run, selections


@given(loose_selections(4), st.integers(0, 2**31 - 1))
def test_churn_against_sets(before, seed):
    after = before ^ (np.random.default_rng(seed).random(before.shape) < 0.3)
    changed = []
    for old, new in zip(before, after, strict=True):
        a, b = set(np.flatnonzero(old)), set(np.flatnonzero(new))
        changed.append(1 - len(a & b) / max(len(a), len(b)) if a | b else 0.0)
    value = run(metrics.churn, before, after)
    np.testing.assert_allclose(value, np.mean(changed), rtol=1e-14, atol=1e-16)
    assert value == run(metrics.churn, after, before)
    assert 0 <= value <= 1


def test_churn_hand_values():
    before = jnp.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]], bool)
    after = jnp.array([[0, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]], bool)
    # Half, two of three, nothing to change, everything lost.
    np.testing.assert_allclose(run(metrics.churn, before, after), (1 / 2 + 2 / 3 + 0 + 1) / 4, rtol=1e-14)
    assert run(metrics.churn, before, before) == 0.0


@given(loose_selections())
def test_co_activation_against_loops(selected):
    experts = range(selected.shape[1])
    expected = [[np.mean([row[i] and row[j] for row in selected]) for j in experts] for i in experts]
    joint = run(metrics.co_activation, selected)
    np.testing.assert_allclose(joint, expected, rtol=1e-14)
    np.testing.assert_allclose(np.diagonal(joint), run(metrics.hard_load, selected), rtol=1e-14)


@given(selections())
def test_excess_with_a_fixed_number_of_picks(case):
    selected, routes = case
    excess = np.asarray(run(metrics.co_activation_excess, selected))
    joint, load = selected.T.astype(float) @ selected / len(selected), selected.mean(axis=0)
    expected = np.zeros_like(joint)
    spread = routes**2 - load @ load  # 0 for K = 1 when all tokens agree
    for i, j in itertools.permutations(range(len(load)), 2):
        expected[i, j] = joint[i, j] - load[i] * load[j] * (routes * (routes - 1) / spread if routes > 1 else 0.0)
    np.testing.assert_allclose(excess, expected, rtol=1e-12, atol=1e-14)
    assert np.abs(excess).max() <= 1 + 1e-12


@given(loose_selections())
def test_excess_sums_to_nothing(selected):
    excess = run(metrics.co_activation_excess, selected)
    np.testing.assert_allclose(excess.sum(), 0.0, atol=1e-13)
    np.testing.assert_allclose(excess, excess.T, rtol=1e-14)
    np.testing.assert_array_equal(np.diagonal(excess), 0.0)


@pytest.mark.parametrize(("experts", "routes"), [(5, 2), (5, 3), (4, 4), (3, 1)])
def test_uniformly_drawn_sets_have_no_excess(experts, routes):
    sets = [[e in chosen for e in range(experts)] for chosen in itertools.combinations(range(experts), routes)]
    excess = run(metrics.co_activation_excess, jnp.array(sets))
    np.testing.assert_allclose(excess, 0.0, atol=1e-15)


def test_excess_finds_the_pair_that_goes_together():
    # Experts 0 and 1 always together, 2 and 3 likewise: h = 1/2, null 2/(4 - 1)/4 = 1/6 for each pair.
    selected = jnp.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool)
    together, apart = 1 / 2 - 1 / 6, -1 / 6
    expected = [
        [0, together, apart, apart],
        [together, 0, apart, apart],
        [apart, apart, 0, together],
        [apart, apart, together, 0],
    ]
    np.testing.assert_allclose(run(metrics.co_activation_excess, selected), expected, rtol=1e-14)


@pytest.mark.parametrize(
    "selected",
    [np.eye(3), np.zeros((2, 3)), np.array([[1, 1, 0]]), np.array([[1], [0]])],
    ids=["one-route", "nothing-selected", "one-token", "one-expert"],
)
def test_excess_where_there_is_nothing_to_compare(selected):
    assert not run(metrics.co_activation_excess, np.asarray(selected, bool)).any()


def entropy(values):
    return scipy.stats.entropy(list(Counter(values).values()))


def redundancy(choices, sizes):
    return run(metrics.choice_redundancy, choices, static=(sizes,))


@pytest.mark.parametrize("sizes", [(3,), (2, 3), (2, 1, 3), (2, 2, 2, 2)])
@given(data=st.data())
def test_redundancy_against_counters(sizes, data):
    tokens = data.draw(st.sampled_from([1, 2, 7]))
    choices = np.stack(
        [data.draw(hnp.arrays(np.int64, tokens, elements=st.integers(0, size - 1))) for size in sizes], axis=1
    )
    single = [entropy(column.tolist()) for column in choices.T]
    room = sum(single) - max(single)
    value = redundancy(choices, sizes)
    if room > 1e-9:
        np.testing.assert_allclose(value, (sum(single) - entropy(map(tuple, choices))) / room, rtol=1e-9, atol=1e-12)
        assert -1e-12 <= value <= 1 + 1e-12
    else:
        assert value == 0.0


def test_redundancy_hand_values():
    every = np.array(list(itertools.product(range(2), range(3), range(2))))
    np.testing.assert_allclose(redundancy(every, (2, 3, 2)), 0.0, atol=1e-14)  # independent
    first = np.array([0, 1, 2, 2])
    copies = np.stack([first % 2, first, 2 - first], axis=1)
    np.testing.assert_allclose(redundancy(copies, (2, 3, 3)), 1.0, rtol=1e-14)  # functions of one
    # Two bits that agree three times in four: H = ln 2 each, joint entropy of (3/8, 3/8, 1/8, 1/8).
    bits = np.array([[0, 0]] * 3 + [[1, 1]] * 3 + [[0, 1], [1, 0]])
    joint = scipy.stats.entropy([3, 3, 1, 1])
    np.testing.assert_allclose(redundancy(bits, (2, 2)), 2 - joint / math.log(2), rtol=1e-13)


def test_redundancy_does_not_depend_on_names_or_order_of_groups():
    value = redundancy(CHOICES, CHOICE_SIZES)
    renamed = np.stack([1 - CHOICES[:, 0], np.array([2, 0, 1])[CHOICES[:, 1]]], axis=1)
    np.testing.assert_allclose(redundancy(renamed, CHOICE_SIZES), value, rtol=1e-13)
    swapped = redundancy(jnp.asarray(CHOICES[:, ::-1].copy()), CHOICE_SIZES[::-1])
    np.testing.assert_allclose(swapped, value, rtol=1e-13)


@pytest.mark.parametrize(
    ("choices", "sizes"),
    [([[0], [2], [1]], (3,)), ([[1, 2, 0]], (2, 3, 1)), ([[0, 1], [1, 1], [1, 1]], (2, 2)), ([[0, 0]] * 3, (1, 1))],
    ids=["one-group", "one-token", "one-group-varies", "nothing-varies"],
)
def test_redundancy_without_room_is_zero(choices, sizes):
    assert redundancy(np.array(choices), sizes) == 0.0


def test_compiled_redundancy_ignores_foreign_choices():
    foreign = np.concatenate([CHOICES, [[0, 3], [-1, 0], [2, 1]]])
    expected = redundancy(CHOICES, CHOICE_SIZES)
    np.testing.assert_allclose(redundancy(foreign, CHOICE_SIZES), expected, rtol=1e-14)
    assert redundancy(np.full((3, 2), 7), CHOICE_SIZES) == 0.0


def test_redundancy_at_the_largest_size():
    # 16 copies of one bit: 65536 joint choices, the most allowed.
    choices = jnp.asarray(np.repeat([[0], [1], [1]], 16, axis=1))
    assert metrics.MAX_CODES == 65536
    np.testing.assert_allclose(redundancy(choices, (2,) * 16), 1.0, rtol=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    selected = jnp.asarray(SELECTED)
    with pytest.raises(ValueError, match=r"`after` must have the shape of `before`, \(6, 5\); got \(5, 5\)"):
        metrics.churn(selected, selected[:5])
    with pytest.raises(ValueError, match="`after` must be boolean; got dtype int64"):
        metrics.churn(selected, selected.astype(int))
    with pytest.raises(ValueError, match=r"`selected` must have at least one of its tokens; got shape \(0, 5\)"):
        metrics.co_activation(selected[:0])
    with pytest.raises(ValueError, match=r"`selected` must have axes \(tokens, experts\); got shape \(5,\)"):
        metrics.co_activation_excess(selected[0])
    choices = jnp.asarray(CHOICES)
    with pytest.raises(ValueError, match="`sizes` has 3 groups, `choices` has 2"):
        metrics.choice_redundancy(choices, (2, 3, 4))
    with pytest.raises(ValueError, match=r"`choices` must be below 2; got 2 at \(0, 1\)"):
        metrics.choice_redundancy(choices, (3, 2))
    with pytest.raises(ValueError, match="`choices` must not be negative; its smallest entry is -1"):
        metrics.choice_redundancy(choices - 1, CHOICE_SIZES)
    with pytest.raises(ValueError, match=r"at most 65536 joint choices; \(256, 257\) makes 65792"):
        metrics.choice_redundancy(choices, (256, 257))
    with pytest.raises(ValueError, match="`sizes` must be at least 1; got 0"):
        metrics.choice_redundancy(choices, (2, 0))
    with pytest.raises(ValueError, match="`choices` must be whole numbers; got dtype float64"):
        metrics.choice_redundancy(choices.astype(float), CHOICE_SIZES)
    with pytest.raises(ValueError, match=r"`choices` must have axes \(tokens, groups\); got shape \(6,\)"):
        metrics.choice_redundancy(choices[:, 0], (2,))
