"""Three ways to reach experts, one result: values and gradients, whatever the loads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from himoe_theory import Capacity, Partition, from_dense, from_routes, routers
from simulations.arms import Arm
from simulations.language import Model
from simulations.language.config import DISPATCHES
from simulations.language.dispatch import Experts, dispatch
from simulations.language.grouped import arrange, tile_rows

T, R, N, D, H, C = 20, 2, 4, 3, 5, 11
ROUTER = routers.gshard(N, R, capacity=Capacity(1.0, C))
MODEL = Model(1, 1, D, 8, 8, H, Arm("free", ROUTER, {}, "two of four"), bias=True)
PAIRS = [(a, b) for a in range(N) for b in range(N) if a != b]


def routing_of(experts, weights, active, capacity):
    return from_routes(
        jnp.zeros((T, N)), experts, Partition.equal(N, 1), active=active, weights=weights, capacity=capacity
    )


def draw(seed):
    rng = np.random.default_rng(seed)
    p = {
        "in": {"weight": rng.standard_normal((N, D, H)), "bias": rng.standard_normal((N, H))},
        "out": {"weight": rng.standard_normal((N, H, D)), "bias": rng.standard_normal((N, D))},
    }
    return jax.tree.map(jnp.asarray, (p, rng.standard_normal((T, D)), rng.random((T, R)), rng.standard_normal((T, D))))


P, X, W, DIRECTION = draw(0)


def run(form, capacity, p, x, w, experts, active):
    model = dataclasses.replace(MODEL, dispatch=form)
    routing = routing_of(experts, w, active, capacity)
    y, outputs = dispatch(Experts(model, p, jnp.float64), x, routing, with_outputs=True)
    return (y * DIRECTION).sum(), (y, outputs)


@jax.jit
def everything(experts, active):
    """(value, gradients) of every form, with places for all and with few."""
    return {
        (form, capacity): jax.value_and_grad(
            lambda p, x, w, f=form, c=capacity: run(f, c, p, x, w, experts, active), argnums=(0, 1, 2), has_aux=True
        )(P, X, W)
        for form in DISPATCHES
        for capacity in (T, C)
    }


def loads():
    free = st.lists(st.sampled_from(PAIRS), min_size=T, max_size=T)
    one_expert = st.lists(st.sampled_from([(2, 0), (2, 1), (2, 3)]), min_size=T, max_size=T)
    skewed = st.lists(st.sampled_from([(0, 1)] * 9 + [(3, 0)]), min_size=T, max_size=T)
    return st.one_of(free, one_expert, skewed)


ALL_ON_ONE = [(2, 0)] * T


@given(loads(), st.lists(st.booleans(), min_size=T, max_size=T))
@example(ALL_ON_ONE, [True] * T)
@example([(2, 0)] * T, [False] * T)
def test_forms_agree_with_the_dense_one(pairs, second):
    experts = jnp.asarray(pairs, jnp.int32)
    active = jnp.stack([jnp.ones(T, bool), jnp.asarray(second)], axis=1)
    found = everything(experts, active)
    for capacity in (T, C):
        reference = jax.tree.leaves(found["dense", capacity])
        for form in ("sorted", "capacity"):
            for actual, desired in zip(jax.tree.leaves(found[form, capacity]), reference, strict=True):
                np.testing.assert_allclose(actual, desired, rtol=1e-12, atol=1e-12)


def test_by_hand():
    """One token after another, one route after the other."""
    rng = np.random.default_rng(3)
    pairs = np.asarray([PAIRS[i] for i in rng.integers(0, len(PAIRS), T)])
    (_, (y, outputs)), _ = everything(jnp.asarray(pairs, jnp.int32), jnp.ones((T, R), bool))["sorted", T]
    expected = np.zeros((T, D))
    for t in range(T):
        for r in range(R):
            e = pairs[t, r]
            hidden = jax.nn.gelu(X[t] @ P["in"]["weight"][e] + P["in"]["bias"][e], approximate=False)
            one = np.asarray(hidden @ P["out"]["weight"][e] + P["out"]["bias"][e])
            np.testing.assert_allclose(outputs[t, r], one, rtol=1e-12)
            expected[t] += float(W[t, r]) * one
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)


def test_arrangement_is_exact_when_all_tokens_go_to_one_expert():
    experts = jnp.asarray(ALL_ON_ONE, jnp.int32)
    routing = routing_of(experts, W, jnp.ones((T, R), bool), T)
    slots, kept = (from_dense(dense, experts) for dense in (routing.slots, routing.kept))
    to = arrange(experts, slots, kept, 4, 8, T * R)
    np.testing.assert_array_equal(to.tiles, [3, 0, 3, 0])
    real = np.asarray(to.route) < T * R
    assert real.sum() == T * R
    np.testing.assert_array_equal(np.sort(np.asarray(to.route)[real]), np.arange(T * R))
    rows = np.asarray(to.place)
    assert rows[:, 0].min() >= 24
    assert rows[:, 1].max() < 24


@pytest.mark.parametrize(("rows", "experts", "size"), [(8192, 8, 256), (40, 4, 8), (0, 4, 8), (256, 4, 32)])
def test_tiles_are_small_where_rows_are_few(rows, experts, size):
    assert tile_rows(rows, experts) == size
