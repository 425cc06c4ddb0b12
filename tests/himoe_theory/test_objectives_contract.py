"""One contract for every objective: its closed form is its derivative, in every mode, precision and at hostile logits.

An objective joins by being in the catalogue. Decisions (selection, drops) are held fixed while logits vary, as in the
definitions; `test_gradient_through_the_router` shows that a router's own decisions indeed have no derivative.
"""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from himoe_theory import Partition, Sigmoid
from himoe_theory.objectives import OBJECTIVES, View
from himoe_theory.objectives.record import variable

from . import strategies as draw
from .evaluate import OF_LOGITS, close, evaluate, of_logits, plain, value_and_closed, with_logits
from .strategies import EXPERTS, LOGITS, ROUTERS, ROUTES, TOKENS, few

every = pytest.mark.parametrize("objective", OF_LOGITS.values(), ids=OF_LOGITS)
FIXED = "grouped, unequal K"

# No gradient flows through h = P of the frozen form, so its gradient is half the slope of its value.
SLOPE_OVER_GRADIENT = {"load_frozen": 2.0}


# The gradient


@every
@few
@given(draw.cases(), draw.logits())
def test_gradient_in_reverse_and_forward_mode(objective, case, direction):
    routing = draw.route(*case)
    result = evaluate(objective, routing, direction)
    close(result.reverse, result.closed)
    close(result.along, (result.closed * direction).sum(), rtol=1e-10)


@cache
def _battery(name):
    """Pull-back, and values and closed forms of many batches under `vmap`."""
    objective = OBJECTIVES[name]

    def battery(routing, stack):
        function, at = of_logits(objective, routing)
        (pulled,) = jax.vjp(function, at)[1](jnp.asarray(-2.5))
        gradients = jax.vmap(lambda x: objective.gradient(View(with_logits(objective, routing, x))))(stack)
        return pulled, jax.vmap(function)(stack), gradients

    return jax.jit(battery)


@every
@few
@given(draw.logits())
@example(LOGITS)
def test_gradient_by_pull_back_finite_differences_and_vmap(objective, values):
    routing = draw.route(FIXED, values)
    _, at = of_logits(objective, routing)
    closed = evaluate(objective, routing).closed
    # Central differences along every coordinate; the step balances rounding (eps/h) against curvature (h^2).
    h = float(np.finfo(np.float64).eps) ** (1 / 3)
    steps = h * np.eye(at.size).reshape(-1, *at.shape)
    stack = np.concatenate([at + steps, at - steps])
    pulled, many, gradients = _battery(objective.name)(plain(objective, routing), stack)
    close(pulled, -2.5 * closed)
    slope = np.subtract(*np.split(np.asarray(many), 2)).reshape(at.shape) / (2 * h)
    np.testing.assert_allclose(slope, SLOPE_OVER_GRADIENT.get(objective.name, 1.0) * closed, rtol=1e-6, atol=1e-8)
    # Every entry of the stack is a batch of its own: vmap must not mix them.
    for i in (0, at.size + 1):
        alone = evaluate(objective, with_logits(objective, routing, stack[i]))
        close(many[i], alone.value, rtol=1e-13)
        close(gradients[i], alone.closed, rtol=1e-12)


def test_gradient_through_the_router():
    """Selection, counts and average are constants: what is left is the closed form, over Temp where corrected."""
    router, state = ROUTERS[FIXED], jnp.asarray(draw.STATE)

    @jax.jit
    @jax.jacrev
    def through(logits):
        routing, _ = router.step(None, state, logits)
        return jnp.stack([objective.value(View(routing)) for objective in OF_LOGITS.values()])

    routing = draw.route(FIXED, LOGITS)
    for gradient, objective in zip(through(jnp.asarray(LOGITS)), OF_LOGITS.values(), strict=True):
        factor = 1 / router.controller.temperature if objective.of == "selection_logits" else 1.0
        close(gradient, factor * evaluate(objective, routing).closed)


# Compilation and precision


@every
def test_jit_equals_eager(objective):
    routing = draw.route(FIXED, LOGITS)
    compiled = evaluate(objective, routing)
    close(objective.value(View(routing)), compiled.value, rtol=1e-13)
    close(objective.gradient(View(routing)), compiled.closed, rtol=1e-12)


@every
def test_one_compilation_per_shape(objective):
    traces = 0

    @jax.jit
    def both(routing):
        nonlocal traces
        traces += 1
        return objective.value(View(routing)), objective.gradient(View(routing))

    for values in (LOGITS, LOGITS[::-1].copy(), 3 * LOGITS):
        both.eval_shape(draw.route(FIXED, values))
    assert traces == 1
    both.eval_shape(draw.rows(draw.route(FIXED, LOGITS), np.arange(2)))
    assert traces == 2


@cache
def _in_bfloat16():
    """Values and closed forms of the whole catalogue, compiled together, and the logits they were given."""
    routing = draw.route(FIXED, LOGITS)
    low = {each: getattr(routing, each).astype("bfloat16") for each in ("logits", "selection_logits")}
    low["log_probs"] = routing.score.log_probs(low["logits"].astype("float32"))
    all_of = jax.jit(lambda view: {name: (each.value(view), each.gradient(view)) for name, each in OF_LOGITS.items()})
    return all_of(View(dataclasses.replace(routing, **low)))


@every
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_precision(objective, dtype):
    """Computed in float32 and as exact as that allows: 32 eps of the same numbers in float64.

    A sum or an exponential in bfloat16 would be off by 1e-3.
    """
    routing = draw.route(FIXED, LOGITS)
    low = of_logits(objective, routing)[1].astype(dtype)
    exact = evaluate(objective, with_logits(objective, routing, low.astype("float64")))
    if dtype == "bfloat16":
        value, closed = _in_bfloat16()[objective.name]
    else:
        value, closed, *_ = evaluate(objective, with_logits(objective, routing, low))
    for result, reference in ((value, exact.value), (closed, exact.closed)):
        assert result.dtype == np.float32
        bound = 32 * np.finfo(np.float32).eps * max(1.0, np.abs(reference).max())
        np.testing.assert_allclose(result, reference, rtol=0, atol=bound)


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spread", [104.0, 1e4])
def test_underflow_in_both_precisions(objective, dtype, spread):
    """Whole groups underflow, one token is tied throughout, in one an expert is far ahead of all others."""
    values = spread * np.array(
        [[1.0, -1, -1, -1, -1, -1], [0, 0, 0, 0, 0, 0], [-1, 1, -1, 1, 0, 1], [-1, -1, -1, -1, -1, -1]]
    )
    result = evaluate(objective, draw.route(FIXED, values, dtype=dtype))
    for each in result:
        assert each.dtype == dtype
        assert np.isfinite(each).all()
    bound = 64 * np.finfo(dtype).eps * max(1.0, np.abs(result.value))
    np.testing.assert_allclose(result.reverse, result.closed, rtol=0, atol=bound)


# Range


@every
@few
@given(draw.cases(draw.hostile_logits(), draw.logits(largest=30.0)))
@example(("grouped", np.zeros((TOKENS, EXPERTS))))
@example(("grouped, bias-corrected", 1e4 * np.sign(LOGITS)))
def test_range_and_finite_gradient(objective, case):
    routing = draw.route(*case)
    low, high = objective.bounds(routing.partition, TOKENS, ROUTES)
    result = evaluate(objective, routing)
    assert low - 1e-12 <= result.value <= high + 1e-12
    assert all(np.isfinite(each).all() for each in result)
    close(result.reverse, result.closed, rtol=1e-10)


@every
@few
@given(draw.hostile_logits(tokens=1))
@example(LOGITS[:1])
def test_one_token(objective, values):
    """In range, and equal to a batch of copies of the token; the objectives that grow with the batch are 0 here."""
    one, copies = (draw.route("grouped", np.repeat(values, count, axis=0)) for count in (1, TOKENS))
    value, closed = value_and_closed(objective, one)
    low, high = objective.bounds(one.partition, 1, ROUTES)
    assert low - 1e-12 <= value <= high + 1e-12
    batch = evaluate(objective, copies)
    close(value, batch.value, rtol=1e-13)
    close(np.repeat(closed, TOKENS, axis=0), TOKENS * batch.closed, rtol=1e-12)


@every
def test_a_divergence_stays_visible(objective):
    """Inside a compiled program nothing is refused; NaN in one token is then NaN in the result."""
    routing = draw.route(FIXED, LOGITS)
    values = np.array(of_logits(objective, routing)[1])
    values[1] = np.nan
    result = evaluate(objective, with_logits(objective, routing, values))
    assert np.isnan(result.value)
    assert np.isnan(result.closed[1]).any()


# Symmetries

_GAUGE_INVARIANT = [objective for objective in OF_LOGITS.values() if objective.gauge_invariant]


@pytest.mark.parametrize("objective", _GAUGE_INVARIANT, ids=lambda objective: objective.name)
@few
@given(draw.cases(), st.lists(st.floats(-50, 50, width=32), min_size=TOKENS, max_size=TOKENS))
@example(("grouped", LOGITS), [1.0, -2.0, 0.5, 3.0])
def test_gauge(objective, case, shifts):
    """A constant added to a token's logits changes nothing, and the gradient has no component along it; the same for
    the logarithms of a sigmoid, whose gradient is that in the logits over 1 - sigma."""
    routing = draw.route(*case)
    before = evaluate(objective, routing)
    if isinstance(routing.score, Sigmoid):
        in_logarithms = before.closed * (1 + np.exp(np.asarray(variable(View(routing), objective.of))))
        largest = max(1.0, np.abs(in_logarithms).max())
        np.testing.assert_allclose(in_logarithms.sum(axis=1), 0.0, atol=1e-13 * largest)
        return
    shifted = of_logits(objective, routing)[1] + np.array(shifts)[:, None]
    close(evaluate(objective, with_logits(objective, routing, shifted)).value, before.value, rtol=1e-12)
    largest = max(1.0, np.abs(before.closed).max())
    np.testing.assert_allclose(before.closed.sum(axis=1), 0.0, atol=1e-14 * largest)


def test_what_is_not_gauge_invariant():
    (z,) = (each for each in OF_LOGITS.values() if not each.gauge_invariant)
    assert z.name == "z"
    total = np.log(np.exp(LOGITS).sum(axis=1))
    before, after = (evaluate(z, draw.route("grouped", values)) for values in (LOGITS, LOGITS + 1))
    close(after.value - before.value, (2 * total + 1).mean())  # (lse + 1)^2 - lse^2
    close(before.closed.sum(axis=1), 2 * total / TOKENS)


def _inside_groups(partition: Partition, order: np.ndarray) -> np.ndarray:
    """The experts of each group as `order` has them, at the places of the group: the partition stays."""
    ids, result = partition.ids(), np.empty_like(order)
    for group in range(partition.num_groups):
        result[ids == group] = order[ids[order] == group]
    return result


@every
@few
@given(draw.cases(), draw.permutations(EXPERTS))
def test_renaming_experts(objective, case, order):
    """Logits, selection and partition together. Where groups matter, inside groups only: see the next test."""
    routing = draw.route(*case)
    if objective.uses_groups:
        order = _inside_groups(routing.partition, order)
    renamed = draw.reordered(routing, order)
    before, after = (evaluate(objective, each) for each in (routing, renamed))
    close(after.value, before.value, rtol=1e-12)
    close(after.closed, before.closed[:, order])


@every
@few
@given(draw.logits())
@example(LOGITS)
def test_renaming_experts_and_relabelling_groups(objective, values):
    """From an interleaved partition to contiguous groups under other labels."""
    routing = draw.route("grouped", values)
    order = np.array([1, 3, 5, 0, 4, 2])
    renamed = draw.reordered(draw.relabelled(routing, (1, 0, 2)), order)
    assert renamed.partition == draw.PARTITIONS["unequal"]
    before, after = (evaluate(objective, each) for each in (routing, renamed))
    close(after.value, before.value, rtol=1e-12)
    close(after.closed, before.closed[:, order])


@every
@few
@given(draw.cases(), draw.permutations(TOKENS))
def test_reordering_tokens(objective, case, order):
    routing = draw.route(*case)
    before, after = (evaluate(objective, each) for each in (routing, draw.rows(routing, order)))
    close(after.value, before.value, rtol=1e-12)
    close(after.closed, before.closed[order])


@every
def test_whether_groups_matter(objective):
    """Another partition under the same selection changes exactly the objectives that say they use it."""
    routing = draw.route("grouped", LOGITS)
    other = dataclasses.replace(routing, partition=draw.PARTITIONS["two-interleaved"])
    changes = abs(float(objective.value(View(other)) - objective.value(View(routing)))) > 1e-3
    assert changes == objective.uses_groups


# Batches


@every
def test_splitting_a_batch(objective):
    """Means over tokens average over equal parts; for every other objective this batch is a counter-example."""
    routing = draw.route("grouped", LOGITS)
    whole = evaluate(objective, routing)
    parts = [value_and_closed(objective, draw.rows(routing, np.array([t]))) for t in range(TOKENS)]
    average = np.mean([value for value, _ in parts])
    gradient = np.concatenate([closed for _, closed in parts]) / TOKENS
    if objective.token_mean:
        close(whole.value, average, rtol=1e-13)
        close(whole.closed, gradient, rtol=1e-12)
    else:
        assert abs(whole.value - average) > 1e-3
        assert np.abs(whole.closed - gradient).max() > 1e-3


# Full, frozen and hard loads


@few
@given(draw.cases())
def test_frozen_is_full_in_value_and_half_of_it_in_gradient(case):
    routing = draw.route(*case)
    frozen, full = (evaluate(OBJECTIVES[name], routing) for name in ("load_frozen", "p_squared"))
    close(frozen.value, full.value, rtol=1e-15)
    close(2 * frozen.closed, full.closed, rtol=1e-15)
    close(2 * frozen.reverse, full.reverse, rtol=1e-13)
    close(2 * frozen.along, full.along, rtol=1e-12)


@pytest.mark.parametrize("name", ["load", "load_per_token", "load_first_choice"])
def test_hard_loads_see_the_selection_only_as_a_number(name):
    """The gradient is that of a load with the counts of this batch given from outside."""
    routing = draw.route("grouped", LOGITS)
    share = {
        "load": np.asarray(routing.selected).sum(axis=0) / (TOKENS * ROUTES),
        "load_per_token": np.asarray(routing.selected).sum(axis=0) / TOKENS,
        "load_first_choice": np.bincount(np.asarray(routing.experts)[:, 0], minlength=EXPERTS) / TOKENS,
    }[name]
    probs = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    expected = [[EXPERTS / TOKENS * p[e] * (share[e] - share @ p) for e in range(EXPERTS)] for p in probs]
    close(evaluate(OBJECTIVES[name], routing).reverse, np.array(expected))
