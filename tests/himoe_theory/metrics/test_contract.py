"""What every metric of arrays keeps: compiled, batched, reordered, relabelled, in other types, over part of the tokens.

`TOKEN_METRICS` names each once. `mean` says whether the docstring claims a mean over tokens; where it does not, the
batch below is the counter-example. `follows` says how the value moves when experts are renamed.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition, metrics

from .cases import CHOICE_SIZES, CHOICES, LABELS, LATER, OUTPUTS, PROBS, SELECTED, UNEQUAL, run


@dataclasses.dataclass(frozen=True)
class Case:
    """A metric with one batch; every array has tokens on axis 0."""

    function: Callable
    arrays: tuple[np.ndarray, ...]
    static: tuple = ()
    mean: bool = False
    follows: str = "nothing"
    """`nothing`, `experts` (last axis), `pairs` (both axes), or `unnamed` where the arrays have no axis of experts."""


def of_load(measure):
    return lambda selected, *static, mask=None: measure(metrics.hard_load(selected, mask=mask), *static)


def of_table(measure):
    def measured(labels, selected, *static, mask=None):
        return measure(metrics.contingency(labels, selected, 3, mask=mask), *static)

    return measured


ACTIVE = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [0, 1], [1, 1]], bool)
KEPT = np.array([[1, 0], [1, 0], [1, 1], [1, 0], [0, 0], [1, 1]], bool)

TOKEN_METRICS = {
    "hard_load": Case(metrics.hard_load, (SELECTED,), mean=True, follows="experts"),
    "soft_load": Case(metrics.soft_load, (PROBS,), mean=True, follows="experts"),
    "drop_rate": Case(metrics.drop_rate, (ACTIVE, KEPT), follows="unnamed"),
    "coefficient_of_variation": Case(of_load(metrics.coefficient_of_variation), (SELECTED,)),
    "max_violation": Case(of_load(metrics.max_violation), (SELECTED,)),
    "max_absolute_violation": Case(of_load(metrics.max_absolute_violation), (SELECTED,)),
    "group_cv": Case(of_load(metrics.group_cv), (SELECTED,), (UNEQUAL,)),
    "group_cv_per_expert": Case(of_load(metrics.group_cv_per_expert), (SELECTED,), (UNEQUAL,)),
    "effective_experts": Case(metrics.effective_experts, (PROBS,), mean=True),
    "effective_groups": Case(metrics.effective_groups, (PROBS,), (UNEQUAL,), mean=True),
    "groups_touched": Case(metrics.groups_touched, (SELECTED,), (UNEQUAL,), mean=True),
    "collision_information": Case(metrics.collision_information, (PROBS,)),
    "gini_gain": Case(metrics.gini_gain, (PROBS,)),
    "routing_variance": Case(metrics.routing_variance, (PROBS,)),
    "mutual_information": Case(of_table(metrics.mutual_information), (LABELS, SELECTED)),
    "normalised_information": Case(of_table(metrics.normalised_information), (LABELS, SELECTED), (2,)),
    "output_cosine": Case(metrics.output_cosine, (OUTPUTS,), mean=True, follows="pairs"),
    "linear_cka": Case(metrics.linear_cka, (OUTPUTS,), follows="pairs"),
    "expert_overlap": Case(metrics.expert_overlap, (OUTPUTS,), mean=True),
    "churn": Case(metrics.churn, (SELECTED, LATER), mean=True),
    "co_activation": Case(metrics.co_activation, (SELECTED,), mean=True, follows="pairs"),
    "co_activation_excess": Case(metrics.co_activation_excess, (SELECTED,), follows="pairs"),
    "choice_redundancy": Case(metrics.choice_redundancy, (CHOICES,), (CHOICE_SIZES,), follows="unnamed"),
}
# Not functions of a batch of tokens that return arrays: tested in the files of their families.
ELSEWHERE = {"MAX_CODES", "adjusted_information", "contingency", "load_before_and_after_drops", "matching_accuracy"}
ELSEWHERE |= {"max_cv", "mean_off_diagonal", "parameter_cosine", "silhouette"}
ELSEWHERE |= {"SamplingFloor", "Verdict", "cv_floor", "sampling_floor", "verdict"}
HOST = {
    "adjusted_information": lambda labels, first, _, mask=None: metrics.adjusted_information(labels, first, mask=mask),
    "matching_accuracy": lambda labels, first, _, mask=None: metrics.matching_accuracy(labels, first, 5, mask=mask),
    "silhouette": lambda _, first, outputs, mask=None: metrics.silhouette(outputs, first, mask=mask),
}
EVERY = pytest.mark.parametrize("name", TOKEN_METRICS)


def evaluate(case, pick=slice(None)):
    return np.asarray(run(case.function, *(array[pick] for array in case.arrays), static=case.static))


def close(actual, desired, rtol=1e-12):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=1e-14)


def test_every_metric_is_here_or_elsewhere():
    public = {n for n, x in vars(metrics).items() if not n.startswith("_") and not isinstance(x, types.ModuleType)}
    assert public == TOKEN_METRICS.keys() | ELSEWHERE


@pytest.mark.deep  # every operation compiles by itself
@EVERY
def test_op_by_op_equals_compiled(name):
    case = TOKEN_METRICS[name]
    close(case.function(*(jnp.asarray(array) for array in case.arrays), *case.static), evaluate(case))


@EVERY
def test_vmap_equals_one_by_one(name):
    case = TOKEN_METRICS[name]
    picks = [np.array([0, 1, 2, 3]), np.array([5, 2, 4, 1])]
    batches = [np.stack([array[pick] for pick in picks]) for array in case.arrays]
    mapped = run(jax.vmap(lambda *arrays: case.function(*arrays, *case.static)), *batches)
    close(mapped, np.stack([evaluate(case, pick) for pick in picks]))


@EVERY
def test_order_and_repetition_of_tokens_do_not_matter(name):
    case = TOKEN_METRICS[name]
    close(evaluate(case, np.array([4, 2, 0, 5, 3, 1])), evaluate(case))
    close(evaluate(case, np.tile(np.arange(6), 2)), evaluate(case))


@EVERY
def test_mean_over_tokens_exactly_where_claimed(name):
    case = TOKEN_METRICS[name]
    parts = 2 / 6 * evaluate(case, slice(0, 2)) + 4 / 6 * evaluate(case, slice(2, 6))
    if case.mean:
        close(parts, evaluate(case))
    else:
        assert np.abs(parts - evaluate(case)).max() > 1e-3
    if case.function is getattr(metrics, name):
        said = " ".join(case.function.__doc__.split()).lower()
        assert ("not a mean over tokens" in said) != case.mean


@pytest.mark.parametrize("name", [name for name, case in TOKEN_METRICS.items() if case.follows != "unnamed"])
def test_names_of_experts_do_not_matter(name):
    case = TOKEN_METRICS[name]
    order = np.array([3, 0, 4, 1, 2])
    renamed = tuple(array[:, order] if array.ndim > 1 else array for array in case.arrays)
    static = tuple(
        Partition(tuple(part.group_of[e] for e in order)) if isinstance(part, Partition) else part
        for part in case.static
    )
    value = evaluate(dataclasses.replace(case, arrays=renamed, static=static))
    expected = evaluate(case)
    if case.follows == "experts":
        expected = expected[order]
    elif case.follows == "pairs":
        expected = expected[np.ix_(order, order)]
    close(value, expected)


@pytest.mark.parametrize("name", [name for name, case in TOKEN_METRICS.items() if UNEQUAL in case.static])
def test_names_of_groups_do_not_matter(name):
    case = TOKEN_METRICS[name]
    relabelled = Partition(tuple((g + 1) % 3 for g in UNEQUAL.group_of))
    close(evaluate(dataclasses.replace(case, static=(relabelled,))), evaluate(case))
    # And which experts share a group does matter.
    shuffled = Partition((1, 0, 2, 0, 0))
    assert abs(evaluate(dataclasses.replace(case, static=(shuffled,))) - evaluate(case)) > 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", [n for n, case in TOKEN_METRICS.items() if case.arrays[0].dtype == np.float64])
def test_accumulates_in_at_least_float32(name, dtype):
    case = TOKEN_METRICS[name]
    narrow = jnp.asarray(case.arrays[0], dtype)
    value = run(case.function, narrow, static=case.static)
    assert value.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
    # The same rounded numbers in float64: what differs is arithmetic alone.
    exact = run(case.function, narrow.astype(jnp.float64), static=case.static)
    np.testing.assert_allclose(value, exact, rtol=1e-12 if dtype == "float64" else 2e-5, atol=1e-6)


# Tokens that are not real

PLACES = np.array([1, 2, 4, 5, 7, 9])  # of the six real tokens among ten; pads first, between and last
REAL = np.isin(np.arange(10), PLACES)


def padded(array, garbage):
    """The array with other tokens among its own; `garbage` chooses what they hold, never anything valid."""
    if array.dtype == bool:
        fill = bool(garbage)
    elif array.dtype == float:
        fill = [math.nan, -1e300][garbage]
    else:
        fill = [-7, 10**6][garbage]
    found = np.full((10, *array.shape[1:]), fill, array.dtype)
    found[PLACES] = array
    return found


@functools.cache
def masked(function):
    def call(*given):
        *arrays, mask = given
        return lambda *static: function(*arrays, *static, mask=mask)

    return lambda *given, static=(): jax.jit(lambda *traced: call(*traced)(*static))(*given)


@EVERY
def test_masked_tokens_change_nothing(name):
    case = TOKEN_METRICS[name]
    compiled = masked(case.function)
    first, second = (
        np.asarray(compiled(*(padded(array, garbage) for array in case.arrays), REAL, static=case.static))
        for garbage in (0, 1)
    )
    np.testing.assert_array_equal(first, second)
    close(first, evaluate(case))
    if all(array.dtype != float for array in case.arrays):  # counts: to the bit
        np.testing.assert_array_equal(first, evaluate(case))


@pytest.mark.parametrize("name", [n for n, case in TOKEN_METRICS.items() if case.function is getattr(metrics, n, None)])
def test_masked_tokens_are_not_looked_at(name):
    """Outside compiled programs values are checked: of real tokens alone, and those are."""
    case = TOKEN_METRICS[name]
    arrays = [jnp.asarray(padded(array, 0)) for array in case.arrays]
    close(case.function(*arrays, *case.static, mask=jnp.asarray(REAL)), evaluate(case))
    if case.arrays[0].dtype != bool:
        with pytest.raises(ValueError, match=r"must (be finite|not be negative)"):
            case.function(*arrays, *case.static, mask=jnp.asarray(REAL).at[0].set(True))


@pytest.mark.parametrize("name", HOST)
def test_masked_tokens_on_the_host(name):
    given = LABELS, np.array([0, 1, 0, 3, 2, 1]), OUTPUTS[:, 0]
    for garbage in (0, 1):
        found = HOST[name](*(padded(array, garbage) for array in given), mask=REAL)
        assert found == pytest.approx(HOST[name](*given), rel=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (np.zeros(6, bool), "`mask` must leave at least one token; it is false for all 6"),
        (np.ones(5, bool), r"`mask` must be a flag for each of 6 tokens; got bool of shape \(5,\)"),
        (np.ones(6), r"`mask` must be a flag for each of 6 tokens; got float64 of shape \(6,\)"),
        ("yes", "`mask` must be an array of numbers, full and not masked; got 'yes'"),
    ],
)
def test_masks_that_are_none(mask, match):
    for name, case in TOKEN_METRICS.items():
        if case.function is getattr(metrics, name, None):
            with pytest.raises(ValueError, match=match):
                case.function(*case.arrays, *case.static, mask=mask)
    with pytest.raises(ValueError, match=match):
        metrics.matching_accuracy(LABELS, LABELS, 3, mask=mask)
