"""Inputs that the tests of metrics share: one asymmetric batch, and strategies. Everything is NumPy."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from himoe_theory import Partition

# One group, unequal interleaved, a singleton beside three, singletons, equal. Built here: a type-checked constructor
# inside a strategy draws on `random`, which Hypothesis reports.
PARTITIONS = [Partition(g) for g in [(0, 0, 0), (0, 1, 0, 2, 1), (0, 0, 0, 1), (0, 1, 2, 3), (0, 1, 1, 0)]]
UNEQUAL = Partition((0, 1, 0, 2, 0))

PROBS = np.array(
    [
        [0.50, 0.20, 0.15, 0.10, 0.05],
        [0.02, 0.90, 0.03, 0.04, 0.01],
        [0.30, 0.30, 0.25, 0.05, 0.10],
        [0.10, 0.05, 0.05, 0.70, 0.10],
        [0.60, 0.00, 0.40, 0.00, 0.00],
        [0.20, 0.20, 0.20, 0.25, 0.15],
    ]
)
SELECTED = np.array(
    [
        [1, 1, 0, 0, 0],
        [0, 1, 0, 1, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1],
        [1, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
    ],
    dtype=bool,
)
LATER = np.array(
    [
        [1, 0, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 1, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 1, 0, 1],
    ],
    dtype=bool,
)
LABELS = np.array([0, 2, 0, 1, 1, 2])
CHOICES = np.array([[0, 2], [1, 0], [0, 2], [1, 1], [0, 1], [1, 2]])
CHOICE_SIZES = (2, 3)
OUTPUTS = np.random.default_rng(5).normal(size=(6, 5, 3)) + np.array([1.0, 0.0, -0.5])


@functools.cache
def _compiled(function, static):
    return jax.jit(lambda *arrays: function(*arrays, *static))


def run(function: Callable, *arrays, static=()):
    """The metric, compiled once for each shape: op by op, every operation would be compiled on its own."""
    return _compiled(function, static)(*(jnp.asarray(array) for array in arrays))


@functools.cache
def _compiled_slope(function, static):
    return jax.jit(jax.grad(lambda *arrays: function(*arrays, *static)))


def slope(function: Callable, *arrays, static=()):
    """Gradient of the metric with respect to its first array, compiled likewise."""
    return _compiled_slope(function, static)(*(jnp.asarray(array) for array in arrays))


def check_slope(function: Callable, point: np.ndarray, static=(), *, rtol=1e-6):
    """The gradient against central differences, entry by entry."""
    step = 1e-5
    difference = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        move = np.zeros_like(point)
        move[index] = step
        ahead, behind = (run(function, point + side, static=static) for side in (move, -move))
        difference[index] = (ahead - behind) / (2 * step)
    # A difference is wrong by the square of the step, and by rounding over the step.
    np.testing.assert_allclose(slope(function, point, static=static), difference, rtol=rtol, atol=1e-8)


def softmax(logits):
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _shapes(experts):
    """Tokens and experts: one token, one expert, more tokens and fewer tokens than experts."""
    return st.sampled_from([(1, experts), (5, experts)] if experts else [(1, 3), (2, 1), (2, 4), (5, 3)])


@st.composite
def probabilities(draw, experts=None):
    """Rows from nearly uniform to one-hot with exact zeros."""
    shape = draw(_shapes(experts))
    scale = draw(st.sampled_from([1e-6, 1.0, 800.0]))
    return softmax(scale * draw(hnp.arrays(float, shape, elements=st.floats(-1, 1))))


@st.composite
def selections(draw, experts=None):
    """Every token selects the same number of distinct experts. Returns the selection and that number."""
    shape = draw(_shapes(experts))
    routes = draw(st.integers(1, shape[1]))
    scores = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 9)))
    rank = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1)
    return rank < routes, routes


@st.composite
def loose_selections(draw, experts=None):
    """Any flags: tokens differ in how many experts they select, and some select none."""
    return draw(hnp.arrays(bool, draw(_shapes(experts))))


def loads(experts=None):
    """Non-negative, with exact zeros; the largest may be 1e5 times the least positive."""
    size = st.just(experts) if experts else st.sampled_from([1, 2, 4, 7])
    return size.flatmap(lambda n: hnp.arrays(float, n, elements=st.just(0.0) | st.floats(1e-3, 100.0)))


def vectors(shape):
    """Outputs in which some vectors are exactly zero."""
    entries = st.floats(-10, 10).map(lambda x: x if abs(x) > 1e-3 else 0.0)
    return st.tuples(hnp.arrays(float, shape, elements=entries), hnp.arrays(bool, shape[:-1])).map(
        lambda pair: pair[0] * pair[1][..., None]
    )
