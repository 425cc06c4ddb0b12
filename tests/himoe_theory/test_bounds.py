"""Bounds on group balance and coupling: against loops, hand values, and where they hold, fail and are reached."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from himoe_theory import (
    GroupedTopK,
    Partition,
    bounds,
    metrics,
    ranked,
    to_dense,
)
from himoe_theory.objectives import inter_group_dense, inter_group_selected, inter_group_sparse

from . import strategies as draw
from .metrics.cases import check_slope, run, slope
from .naive import softmax
from .strategies import EXPERTS, LOGITS, PARTITIONS, few

RULES = {"one-group": 2, "unequal": (2, 1, 1), "interleaved": (1, 2, 1), "equal": 1, "singletons": 1}
named = st.sampled_from(list(RULES))


def select(name, values):
    """Softmax masked to the grouped selection, not renormalised: [himoe] eq. (5)."""
    chosen = ranked(GroupedTopK(RULES[name]), jnp.asarray(values), PARTITIONS[name])
    mask = np.asarray(to_dense(jnp.ones(chosen.shape, bool), chosen, EXPERTS))
    return np.where(mask, np.array([softmax(row) for row in values.tolist()]), 0.0), mask


def by_loops(weights, partition):
    """The four sides of the chain and the two bounds of the load, from their definitions."""
    tokens, groups = len(weights), partition.num_groups
    members = [[e for e, h in enumerate(partition.group_of) if h == g] for g in range(groups)]
    masses = [[sum(row[e] for e in group) for group in members] for row in weights]
    totals = [sum(row) for row in weights]
    shares = [[m / total for m in row] for row, total in zip(masses, totals, strict=True)]
    mean = [sum(row[g] for row in shares) / tokens for g in range(groups)]
    norms = [sum(w * w for w in row) for row in weights]
    most = max(sum(row[e] > 0 for e in group) for row in weights for group in members)
    scale = (sum(totals) / tokens) ** 2
    return {
        "exact": groups * sum(m * m for m in mean),
        "mean_square": groups * sum(r * r for row in shares for r in row) / tokens,
        "corrected": groups * most * sum(n / t**2 for n, t in zip(norms, totals, strict=True)) / tokens,
        "published": groups * max(map(len, members)) * sum(norms) / tokens,
        "selected": groups * most * sum(norms) / tokens / scale,
        "mass": groups * sum(m * m for row in masses for m in row) / tokens / scale,
    }


@few
@given(named, draw.logits())
@example("unequal", LOGITS)
def test_against_loops_and_in_order(name, values):
    partition = PARTITIONS[name]
    weights, _ = select(name, values)
    expected = by_loops(weights.tolist(), partition)
    found = run(bounds.group_balance, weights, static=(partition,))
    for field in ("exact", "mean_square", "corrected", "published"):
        np.testing.assert_allclose(getattr(found, field), expected[field], rtol=1e-12)
    np.testing.assert_allclose(run(bounds.load_bound_selected, weights, static=(partition,)), expected["selected"])
    np.testing.assert_allclose(run(bounds.load_bound_mass, weights, static=(partition,)), expected["mass"])
    slack = 1 + 1e-12
    assert 1 / slack <= found.exact <= found.mean_square * slack <= found.corrected * slack**2
    # The load bounds are on the CV of the mean weights, another load than the mean shares.
    load = metrics.group_cv(metrics.soft_load(jnp.asarray(weights)), partition) ** 2 + 1
    assert load <= expected["mass"] * slack <= expected["selected"] * slack**2


@few
@given(named, draw.logits())
@example("equal", np.zeros((3, EXPERTS)))
def test_published_form_holds_once_normalised(name, values):
    weights, mask = select(name, values)
    normalised = weights / weights.sum(axis=1, keepdims=True)
    partition = PARTITIONS[name]
    found = run(bounds.group_balance, normalised, static=(partition,))
    assert found.mean_square <= found.corrected * (1 + 1e-12) <= found.published * (1 + 1e-11)
    per_group = tuple(int(mask[0, partition.members(g)].sum()) for g in range(partition.num_groups))
    for value, (low, high) in (
        (found.published, bounds.published_range(partition, per_group)),
        (found.corrected, bounds.corrected_range(partition, per_group)),
    ):
        assert low * (1 - 1e-12) <= value <= high * (1 + 1e-12)


@pytest.mark.parametrize(("experts", "ratio"), [(8, 2.0), (64, 16.0)])
def test_published_form_fails_for_softmax_then_mask(experts, ratio):
    """At uniform probabilities the left side is S/K times the published bound."""
    partition = Partition.equal(experts, 4)
    weights = np.zeros((1, experts))
    weights[0, :: experts // 4] = 1 / experts
    found = run(bounds.group_balance, weights, static=(partition,))
    np.testing.assert_allclose(found.mean_square / found.published, ratio, rtol=1e-12)
    np.testing.assert_allclose(found.mean_square, found.corrected, rtol=1e-12)


@few
@given(named, draw.logits())
def test_exact_side_is_the_group_cv(name, values):
    weights, _ = select(name, values)
    partition = PARTITIONS[name]
    shares = run(bounds.group_shares, weights, static=(partition,))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
    cv = run(metrics.coefficient_of_variation, shares.mean(axis=0))
    np.testing.assert_allclose(run(bounds.group_balance, weights, static=(partition,)).exact, cv**2 + 1, rtol=1e-11)


def test_load_bounds_are_the_inter_group_terms():
    partition = PARTITIONS["unequal"]
    weights, mask = select("unequal", LOGITS)
    squared = np.mean(weights.sum(axis=1)) ** 2
    selected = inter_group_selected(jnp.asarray(LOGITS), jnp.asarray(mask))
    found = run(bounds.load_bound_selected, weights, static=(partition,))
    np.testing.assert_allclose(found, 3 * 2 * selected / squared, rtol=1e-12)
    sparse = inter_group_sparse(jnp.asarray(LOGITS), jnp.asarray(mask), partition)
    found = run(bounds.load_bound_mass, weights, static=(partition,))
    np.testing.assert_allclose(found, 3 * sparse / squared, rtol=1e-12)
    everything = np.array([softmax(row) for row in LOGITS.tolist()])
    found = run(bounds.load_bound_mass, everything, static=(partition,))
    np.testing.assert_allclose(found, 3 * inter_group_dense(jnp.asarray(LOGITS), partition), rtol=1e-12)


def test_hand_values():
    partition = Partition((0, 0, 1))
    found = run(bounds.group_balance, np.array([[0.25, 0.25, 0.0], [0.0, 0.5, 0.5]]), static=(partition,))
    # Shares (1, 0) and (1/2, 1/2), mean (3/4, 1/4); norms of the weights 1/8 and 1/2; two weights in one group.
    np.testing.assert_allclose(found.exact, 2 * 10 / 16, rtol=1e-15)
    np.testing.assert_allclose(found.mean_square, 2 * 3 / 4, rtol=1e-15)
    np.testing.assert_allclose(found.corrected, 2 * 2 * 1 / 2, rtol=1e-15)
    np.testing.assert_allclose(found.published, 2 * 2 * 5 / 16, rtol=1e-15)
    assert bounds.published_range(Partition.equal(64, 4), (1,) * 4) == (16.0, 64.0)
    assert bounds.published_range(Partition.equal(8, 4), (1,) * 4) == (2.0, 8.0)
    assert bounds.published_range(Partition.equal(64, 4), (2,) * 4) == (8.0, 64.0)
    assert bounds.corrected_range(Partition.equal(64, 4), (2,) * 4) == (1.0, 8.0)
    assert bounds.corrected_range(partition, (2, 1)) == (2 * 2 / 3, 4.0)


def test_small_weights_do_not_underflow():
    weights = np.array([[1e-200, 0.0, 3e-200]])
    found = run(bounds.group_balance, weights, static=(Partition((0, 0, 1)),))
    np.testing.assert_allclose([found.mean_square, found.corrected], 2 * 10 / 16, rtol=1e-12)


def test_compiled_on_rows_of_zeros():
    """Inside `jit` nothing refuses them: no weight, no share, finite gradient."""
    partition, rows = Partition((0, 1)), jnp.array([[0.0, 0.0], [0.5, 0.5]])
    found = jax.jit(bounds.group_balance, static_argnums=1)(rows, partition)
    np.testing.assert_allclose([found.exact, found.mean_square], [2 * 1 / 8, 2 * 1 / 4], rtol=1e-14)
    assert jnp.isfinite(slope(bounds.corrected_bound, rows, static=(partition,))).all()
    assert jax.jit(bounds.load_bound_mass, static_argnums=1)(jnp.zeros((1, 2)), partition) == 0.0


@pytest.mark.parametrize(
    "bound",
    [
        bounds.squared_mean_share,
        bounds.mean_squared_share,
        bounds.published_bound,
        bounds.corrected_bound,
        bounds.load_bound_selected,
        bounds.load_bound_mass,
    ],
)
def test_gradients(bound):
    check_slope(lambda s: bound(jax.nn.softmax(s), PARTITIONS["unequal"]), LOGITS)


# Coupling

vectors = hnp.arrays(float, (4, 3), elements=st.floats(-10, 10))


@given(vectors, hnp.arrays(float, 4, elements=st.floats(-5, 5)))
def test_coupling_against_pairs(gradients, values):
    probs = softmax(values.tolist())
    pairs = sum(probs[i] * probs[j] * (gradients[i] @ gradients[j]) for i in range(4) for j in range(4) if i != j)
    value = run(bounds.coupling, probs, gradients)
    largest = max(g @ g for g in gradients)
    np.testing.assert_allclose(value, pairs, rtol=1e-12, atol=1e-14 * largest)
    bound = run(bounds.coupling_bound, probs, gradients)
    np.testing.assert_allclose(bound, largest * (1 - sum(p * p for p in probs)), rtol=1e-9)
    assert abs(value) <= bound * (1 + 1e-12) + 1e-14 * largest


def test_coupling_by_hand():
    gradients = np.array([[1.0], [1.0], [-1.0]])
    np.testing.assert_allclose(run(bounds.coupling, [1 / 3, 1 / 3, 1 / 3], gradients), -2 / 9, rtol=1e-14)
    np.testing.assert_allclose(run(bounds.coupling, [0.5, 0.5, 0.0], gradients), 0.5, rtol=1e-14)
    equal = np.full((3, 2), 2.0)  # equal gradients reach the bound
    probs = [0.5, 0.3, 0.2]
    np.testing.assert_allclose(run(bounds.coupling, probs, equal), 8 * 0.62, rtol=1e-14)
    np.testing.assert_allclose(run(bounds.coupling_bound, probs, equal), 8 * 0.62, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_weights_are_widened(dtype):
    assert bounds.corrected_bound(jnp.full((2, 3), 0.25, dtype), Partition((0, 0, 1))).dtype == jnp.float32


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    partition = Partition((0, 0, 1))
    for bound in (bounds.group_balance, bounds.group_shares, bounds.published_bound, bounds.load_bound_mass):
        with pytest.raises(ValueError, match=r"`weights` must have axes \(tokens, experts\); got shape \(3,\)"):
            bound(jnp.ones(3), partition)
        with pytest.raises(ValueError, match=r"`weights` must be finite and at least 0; got -0.5 at \(0, 1\)"):
            bound(jnp.array([[1.0, -0.5, 0.0]]), partition)
        with pytest.raises(ValueError, match="`weights` must have a positive entry in each row; row 1 has none"):
            bound(jnp.array([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]), partition)
        with pytest.raises(ValueError, match="partition has 3 experts, `weights` has 2"):
            bound(jnp.ones((1, 2)), partition)
    with pytest.raises(ValueError, match="`per_group` must have one entry a group; got 1 for 2"):
        bounds.published_range(partition, (1,))
    with pytest.raises(ValueError, match=r"`per_group\[1\]` must be at most 1 \(the group's size\); got 2"):
        bounds.corrected_range(partition, (2, 2))
    with pytest.raises(ValueError, match="`gradients` has 2 experts, `probs` has 3"):
        bounds.coupling(jnp.ones(3), jnp.ones((2, 2)))
    with pytest.raises(ValueError, match=r"1 of 3 are not, the first at \(1,\)"):
        bounds.coupling_bound(jnp.array([0.5, math.nan, 0.5]), jnp.ones((3, 2)))


def test_shares_of_tiny_and_huge_weights():
    partition = Partition((0, 0, 1, 1))
    weights = np.array([[0.4, 0.1, 0.3, 0.2], [0.0, 0.9, 0.1, 0.0]], np.float32)
    for scale in (np.float32(1e-30), np.float32(3e38)):
        scaled = jnp.asarray(weights * scale)
        for function in (
            bounds.squared_mean_share,
            bounds.corrected_bound,
            bounds.load_bound_mass,
            bounds.load_bound_selected,
        ):
            np.testing.assert_allclose(
                function(scaled, partition), function(jnp.asarray(weights), partition), rtol=1e-5
            )
