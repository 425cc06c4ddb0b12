"""Rules that select from the whole batch: against plain sorting, and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from himoe_theory import expert_choice, global_top

from . import strategies as draw
from .strategies import EXPERTS, LOGITS, TOKENS, few

keys = st.one_of(draw.logits(), draw.hostile_logits())
TIES = np.array([[0.0, 1.0, 1.0, 0.0, 1.0, 0.0], [0.0] * 6, [-0.0, 0.0] * 3, [2.0, -1.0, 2.0, -1.0, -1.0, 2.0]])
CELLS = [(token, expert) for token in range(TOKENS) for expert in range(EXPERTS)]


@pytest.mark.parametrize("places", [1, 3, TOKENS])
@few
@given(keys)
@example(TIES)
def test_expert_choice_against_sorting(places, values):
    expected = np.zeros(values.shape, bool)
    for expert in range(EXPERTS):
        expected[sorted(range(TOKENS), key=lambda token: (-values[token, expert], token))[:places], expert] = True
    np.testing.assert_array_equal(expert_choice(jnp.asarray(values), places), expected)


@pytest.mark.parametrize("places", [1, 8, 24])
@few
@given(keys)
@example(TIES)
def test_global_top_against_sorting(places, values):
    expected = np.zeros(values.shape, bool)
    for cell in sorted(CELLS, key=lambda cell: (-values[cell], cell))[:places]:
        expected[cell] = True
    np.testing.assert_array_equal(global_top(jnp.asarray(values), places), expected)


def test_by_hand():
    scores = jnp.array([[3.0, 1.0], [2.0, 2.0], [1.0, 0.0]])
    np.testing.assert_array_equal(expert_choice(scores, 1), [[True, False], [False, True], [False, False]])
    np.testing.assert_array_equal(global_top(scores, 3), [[True, False], [True, True], [False, False]])


def test_sizes():
    """Columns of expert choice are full; the global rule fills as many cells as it is told."""
    np.testing.assert_array_equal(expert_choice(jnp.asarray(LOGITS), 2).sum(axis=0), 2)
    assert int(global_top(jnp.asarray(LOGITS), 7).sum()) == 7


@pytest.mark.parametrize(
    ("rule", "places", "message"),
    [
        (expert_choice, TOKENS + 1, r"`places` must be at most 4 \(the number of tokens\); got 5"),
        (expert_choice, 0, "`places` must be at least 1; got 0"),
        (global_top, 25, r"`places` must be at most 24 \(the number of cells\); got 25"),
    ],
)
def test_bad_places(rule, places, message):
    with pytest.raises(ValueError, match=message):
        rule(jnp.asarray(LOGITS), places)


def test_bad_scores():
    with pytest.raises(ValueError, match="`scores` must be finite; 1 of 2 are not"):
        expert_choice(jnp.array([[0.0, jnp.nan]]), 1)
