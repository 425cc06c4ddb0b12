"""The three forms of L_o on expert outputs: contract, loops, hand values, and where they agree and differ."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given

from himoe_theory import objectives as obj

from . import naive
from . import strategies as draw
from .evaluate import OF_OUTPUTS, close, of_experts
from .strategies import DIM, OUTPUTS, ROUTES, TOKENS, few

every = pytest.mark.parametrize("objective", OF_OUTPUTS.values(), ids=OF_OUTPUTS)

# No expert serves every token, and no two tokens choose alike: sorting by expert moves most rows.
EXPERTS = np.array([[4, 0, 2], [1, 4, 3], [0, 3, 5], [2, 1, 0]], np.int32)
NAIVE = {
    "orthogonality_paper": lambda x, experts: naive.orthogonality_paper(x, 1e-8),
    "orthogonality_span": lambda x, experts: naive.orthogonality_span(x),
    "orthogonality_released": naive.orthogonality_released,
}


class Evaluation(NamedTuple):
    """What one compiled call gives."""

    value: np.ndarray
    closed: np.ndarray
    reverse: np.ndarray
    along: np.ndarray
    pulled: np.ndarray


@cache
def _compiled(name):
    objective = OF_OUTPUTS[name]

    def everything(outputs, experts, direction):
        def function(x):
            return objective.value(of_experts(x, experts))

        value, reverse = jax.value_and_grad(function)(outputs)
        _, along = jax.jvp(function, (outputs,), (direction,))
        (pulled,) = jax.vjp(function, outputs)[1](jnp.asarray(-2.5, value.dtype))
        return Evaluation(value, objective.gradient(of_experts(outputs, experts)), reverse, along, pulled)

    return jax.jit(everything)


@cache
def _compiled_values(name):
    return jax.jit(jax.vmap(lambda x, experts: OF_OUTPUTS[name].value(of_experts(x, experts)), in_axes=(0, None)))


def evaluate(objective, outputs, experts=EXPERTS, direction=OUTPUTS):
    outputs = jnp.asarray(outputs)
    result = _compiled(objective.name)(outputs, jnp.asarray(experts), jnp.asarray(direction, outputs.dtype))
    return Evaluation(*(np.asarray(each) for each in result))


# Contract


@every
@few
@given(draw.outputs(), draw.outputs())
@example(OUTPUTS, OUTPUTS[::-1].copy())
@example(OUTPUTS * np.array([1.0, 1e-9, 3.0])[None, :, None], OUTPUTS)  # a small output is not a dead one
def test_gradient(objective, outputs, direction):
    result = evaluate(objective, outputs, direction=direction)
    close(result.reverse, result.closed, rtol=1e-8)
    # The sum may cancel (a small output's gradient is large), and each entry is as accurate as the largest one.
    rounding = 1e-13 * np.abs(result.closed).max() * np.abs(direction).sum()
    np.testing.assert_allclose(result.along, (result.closed * direction).sum(), rtol=1e-8, atol=rounding)
    close(result.pulled, -2.5 * result.closed, rtol=1e-8)


@every
def test_finite_differences_and_vmap(objective):
    h = float(np.finfo(np.float64).eps) ** (1 / 3)
    steps = h * np.eye(OUTPUTS.size).reshape(-1, *OUTPUTS.shape)
    stack = np.concatenate([OUTPUTS + steps, OUTPUTS - steps])
    values = np.asarray(_compiled_values(objective.name)(jnp.asarray(stack), jnp.asarray(EXPERTS)))
    slope = np.subtract(*np.split(values, 2)).reshape(OUTPUTS.shape) / (2 * h)
    close(slope, evaluate(objective, OUTPUTS).closed, rtol=1e-6)
    for i in (0, OUTPUTS.size + 3):
        close(values[i], evaluate(objective, stack[i]).value, rtol=1e-12)


@every
def test_jit_equals_eager_and_compiles_once(objective):
    compiled, outputs, experts = evaluate(objective, OUTPUTS), jnp.asarray(OUTPUTS), jnp.asarray(EXPERTS)
    close(objective.value(of_experts(outputs, experts)), compiled.value, rtol=1e-12)
    close(objective.gradient(of_experts(outputs, experts)), compiled.closed, rtol=1e-11)
    traces = 0

    @jax.jit
    def both(outputs, experts):
        nonlocal traces
        traces += 1
        return objective.value(of_experts(outputs, experts)), objective.gradient(of_experts(outputs, experts))

    for each in (outputs, 2 * outputs, outputs[::-1]):
        both.eval_shape(each, experts)
    assert traces == 1


@every
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_precision(objective, dtype):
    """Computed in float32: 200 eps of the same numbers in float64 (three projections, each with a division)."""
    low = jnp.asarray(OUTPUTS, dtype)
    exact = evaluate(objective, low.astype("float64"))
    value = objective.value(of_experts(low, EXPERTS))
    closed = objective.gradient(of_experts(low, EXPERTS))
    for result, reference in ((value, exact.value), (closed, exact.closed)):
        assert result.dtype == np.float32
        bound = 200 * np.finfo(np.float32).eps * max(1.0, np.abs(reference).max())
        np.testing.assert_allclose(result, reference, rtol=0, atol=bound)


_HOSTILE = {
    "all zero": np.zeros_like(OUTPUTS),
    "one zero": OUTPUTS * np.array([1.0, 0.0, 1.0])[None, :, None],
    "large": 1e4 * OUTPUTS,
    "small": 1e-12 * OUTPUTS,
    "very unequal": OUTPUTS * np.array([1e4, 1e-8, 1.0])[None, :, None],
    "dependent": np.repeat(OUTPUTS[:, :1], ROUTES, axis=1) * np.array([1.0, -2.0, 0.5])[None, :, None],
}


@every
@pytest.mark.parametrize("kind", _HOSTILE)
def test_hostile_outputs(objective, kind):
    """Finite, in range, and closed equals autodiff wherever the number of independent outputs is locally constant."""
    outputs = _HOSTILE[kind]
    result = evaluate(objective, outputs)
    assert all(np.isfinite(each).all() for each in result)
    squares = np.square(outputs).sum()
    most = squares / (TOKENS * ROUTES) if objective.name != "orthogonality_paper" else squares * ROUTES
    assert -1e-12 <= result.value <= most * (1 + 1e-9)
    if kind != "dependent" or objective.name == "orthogonality_paper":
        for token in range(TOKENS):
            close(result.reverse[token], result.closed[token], rtol=1e-6)


@every
@few
@given(draw.outputs(), draw.permutations(DIM))
def test_rotations_and_order_of_routes(objective, outputs, order):
    """Axes of the output space may be turned, and a token's routes named in any order (with their experts)."""
    turn = np.linalg.qr(np.eye(DIM)[order] + 0.3 * np.outer(np.arange(DIM), order))[0]
    before, after = evaluate(objective, outputs), evaluate(objective, outputs @ turn)
    close(after.value, before.value, rtol=1e-9)
    close(after.closed, before.closed @ turn, rtol=1e-8)
    routes = np.argsort(order[:ROUTES])
    shuffled = evaluate(objective, outputs[:, routes], EXPERTS[:, routes])
    close(shuffled.value, before.value, rtol=1e-9)
    close(shuffled.closed, before.closed[:, routes], rtol=1e-8)


@pytest.mark.parametrize("name", ["orthogonality_paper", "orthogonality_span"])
@few
@given(draw.outputs(), draw.permutations(TOKENS))
def test_order_of_tokens_and_names_of_experts(name, outputs, order):
    objective = OF_OUTPUTS[name]
    before, after = evaluate(objective, outputs), evaluate(objective, outputs[order], EXPERTS)
    close(after.value, before.value, rtol=1e-12)
    close(after.closed, before.closed[order], rtol=1e-11)


def test_released_form_depends_on_both():
    """The defect: it mixes rows of different tokens, so their order and the names of experts change its value."""
    released = OF_OUTPUTS["orthogonality_released"]
    before = evaluate(released, OUTPUTS).value
    tokens = np.array([3, 0, 1, 2])
    assert abs(evaluate(released, OUTPUTS[tokens], EXPERTS[tokens]).value - before) > 1e-3
    assert abs(evaluate(released, OUTPUTS, np.array([3, 0, 5, 1, 4, 2], np.int32)[EXPERTS]).value - before) > 1e-3


def test_splitting_a_batch():
    """The span form is a mean over tokens, the paper's form a sum; the released form is neither."""
    rows = [(jnp.asarray(OUTPUTS[t : t + 1]), jnp.asarray(EXPERTS[t : t + 1])) for t in range(TOKENS)]
    parts = {name: [each.value(of_experts(*row)) for row in rows] for name, each in OF_OUTPUTS.items()}
    whole = {name: evaluate(each, OUTPUTS).value for name, each in OF_OUTPUTS.items()}
    close(whole["orthogonality_paper"], np.sum(parts["orthogonality_paper"]), rtol=1e-12)
    close(whole["orthogonality_span"], np.mean(parts["orthogonality_span"]), rtol=1e-12)
    for combined in (np.sum, np.mean):
        assert abs(whole["orthogonality_released"] - combined(parts["orthogonality_released"])) > 1e-3


@every
def test_a_divergence_stays_visible(objective):
    """NaN in one output is NaN in the value, not a smaller overlap."""
    outputs = OUTPUTS.copy()
    outputs[1, 2, 0] = np.nan
    assert np.isnan(evaluate(objective, outputs).value)


# Values


@every
@few
@given(draw.outputs())
@example(OUTPUTS)
@example(_HOSTILE["one zero"])
def test_value_against_loops(objective, outputs):
    close(evaluate(objective, outputs).value, NAIVE[objective.name](outputs, EXPERTS), rtol=1e-9)


def test_hand_values():
    """Unequal lengths at 60 degrees and at right angles: paper 1/4 (4 + 1), and per token and expert that over 2."""
    outputs = jnp.array([[[2.0, 0.0], [0.5, 3**0.5 / 2]], [[3.0, 0.0], [0.0, 0.7]]])
    np.testing.assert_allclose(obj.orthogonality_paper(outputs, epsilon=0.0), (4 + 1) / 4, rtol=1e-14)
    np.testing.assert_allclose(obj.orthogonality_span(outputs), (4 + 1) / 4 / 4, rtol=1e-14)
    # epsilon 1: <x, y> = 1, so (1/(1+1))^2 * 1 + (1/(4+1))^2 * 4
    np.testing.assert_allclose(obj.orthogonality_paper(outputs, epsilon=1.0), 1 / 4 + 4 / 25, rtol=1e-14)


@pytest.mark.parametrize("epsilon", [0.0, 1e-8, 0.3])
def test_paper_gradient_for_every_epsilon(epsilon):
    for outputs in (OUTPUTS, _HOSTILE["one zero"]):
        x = jnp.asarray(outputs)
        reverse = jax.grad(lambda x: obj.orthogonality_paper(x, epsilon=epsilon))(x)
        close(reverse, obj.orthogonality_paper_grad(x, epsilon=epsilon), rtol=1e-10)


def test_paper_gradient_of_small_outputs_in_float32():
    """Squared norms near 1e-14: their cube underflows in float32, the gradient of a scale-free sum does not."""
    x = jnp.asarray(1e-7 * OUTPUTS, jnp.float32)
    exact = obj.orthogonality_paper_grad(x.astype("float64"), epsilon=0.0)
    actual = obj.orthogonality_paper_grad(x, epsilon=0.0)
    np.testing.assert_allclose(actual, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@few
@given(draw.outputs())
@example(OUTPUTS)
def test_two_experts_paper_and_code_agree(outputs):
    """Up to epsilon (0 here) and the average over tokens and experts."""
    x = jnp.asarray(outputs[:, :2])
    close(obj.orthogonality_span(x) * TOKENS * 2, obj.orthogonality_paper(x, epsilon=0.0), rtol=1e-11)
    close(obj.orthogonality_span_grad(x) * TOKENS * 2, obj.orthogonality_paper_grad(x, epsilon=0.0), rtol=1e-9)


def test_three_experts_paper_and_code_differ():
    """One-by-one projections count a shared direction twice, and miss what only two directions together span."""
    twice = jnp.array([[[1.0, 0.0, 0.0], [1.0, 1e-3, 0.0], [1.0, 0.0, 1e-3]]])
    missed = jnp.array([[[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])
    per_expert = [3 * float(obj.orthogonality_span(each)) for each in (twice, missed)]
    paper = [float(obj.orthogonality_paper(each, epsilon=0.0)) for each in (twice, missed)]
    assert paper[0] > 1.9 * per_expert[0]
    assert paper[1] < per_expert[1]


def test_one_expert_and_orthogonal_outputs():
    single = jnp.asarray(OUTPUTS[:, :1])
    orthogonal = jnp.asarray(np.broadcast_to(np.eye(ROUTES, DIM), OUTPUTS.shape))
    for outputs in (single, orthogonal):
        for form in (obj.orthogonality_paper, obj.orthogonality_span):
            assert form(outputs) == 0
        for gradient in (obj.orthogonality_paper_grad, obj.orthogonality_span_grad):
            np.testing.assert_array_equal(gradient(outputs), 0.0)


def test_released_form_makes_tokens_unlike():
    """Orthogonal outputs inside every token, equal across tokens: the span form is 0, the released form is not."""
    outputs = jnp.asarray(np.broadcast_to(np.eye(ROUTES, DIM), OUTPUTS.shape))
    experts = jnp.asarray(np.broadcast_to(np.arange(ROUTES, dtype=np.int32), (TOKENS, ROUTES)))
    assert obj.orthogonality_span(outputs) == 0
    assert obj.orthogonality_released(outputs, experts) > 0.5
