"""Masked tokens change nothing: no value, no gradient of a real token; their own gradient is exactly 0."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from himoe_theory import objectives as obj

from .strategies import TOKENS, few, permutations
from .test_bad_input import FUNCTIONS, GOOD, refuses

OF_TOKENS = {name: f for name, f in FUNCTIONS.items() if "mask" in inspect.signature(f).parameters}
VALUES = {name: f for name, f in OF_TOKENS.items() if f"{name}_grad" in OF_TOKENS}
PADS = 3


def arguments(function, rows=None, filling=0.0):
    """Good arguments; with `rows`, those of a batch that holds them at these places and `filling` elsewhere."""
    found = {name: GOOD[name] for name in inspect.signature(function).parameters if name != "mask"}
    if rows is not None:
        for name in {"logits", "selected", "experts", "noise", "outputs"} & set(found):
            own = np.asarray(found[name])
            pad = {"b": True, "i": 1}.get(own.dtype.kind, filling)
            found[name] = np.full((TOKENS + PADS, *own.shape[1:]), pad, own.dtype)
            if name == "experts":
                found[name][:] = np.arange(own.shape[1])
            found[name][rows] = own
    return {name: jnp.asarray(v) if isinstance(v, np.ndarray) else v for name, v in found.items()}


def test_every_objective_takes_a_mask():
    assert set(FUNCTIONS) - set(OF_TOKENS) == {"cv_squared"}
    assert len(VALUES) >= 23


@pytest.mark.parametrize("name", VALUES)
@few
@given(permutations(TOKENS + PADS), st.sampled_from([0.0, 3.0, -1e4, np.nan, np.inf]))
@example(np.arange(TOKENS + PADS), np.nan)
@example(np.arange(TOKENS + PADS)[::-1], 7.0)
def test_masked_tokens_change_nothing(name, order, filling):
    value, gradient = VALUES[name], OF_TOKENS[f"{name}_grad"]
    rows = np.sort(order[:TOKENS])
    mask = jnp.zeros(TOKENS + PADS, bool).at[rows].set(True)
    alone, padded = arguments(value), arguments(value, rows, filling)
    np.testing.assert_allclose(value(**padded, mask=mask), value(**alone), rtol=1e-14, atol=1e-15)
    closed, expected = np.asarray(gradient(**padded, mask=mask)), np.asarray(gradient(**alone))
    np.testing.assert_allclose(closed[rows], expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(np.delete(closed, rows, axis=0), 0.0)


@pytest.mark.parametrize("name", VALUES)
def test_autodiff_gives_masked_tokens_nothing(name):
    """Whatever stands there, and NaN too; for the others it is the closed form."""
    value, gradient = VALUES[name], OF_TOKENS[f"{name}_grad"]
    rows = np.array([0, 2, 3, 6])
    mask = jnp.zeros(TOKENS + PADS, bool).at[rows].set(True)
    given = arguments(value, rows, np.nan)
    of = "outputs" if "outputs" in given else "logits"
    reverse = np.asarray(jax.grad(lambda x: value(**{**given, of: x}, mask=mask))(given[of]))
    np.testing.assert_allclose(reverse, gradient(**given, mask=mask), rtol=1e-7, atol=1e-12)
    np.testing.assert_array_equal(np.delete(reverse, rows, axis=0), 0.0)
    assert np.abs(reverse).max() > 1e-3


@pytest.mark.parametrize("name", VALUES)
def test_a_full_mask_is_none_and_an_empty_one_is_finite(name):
    given = arguments(VALUES[name])
    every, none = jnp.ones(TOKENS, bool), jnp.zeros(TOKENS, bool)
    for function in (VALUES[name], OF_TOKENS[f"{name}_grad"]):
        np.testing.assert_allclose(function(**given, mask=every), function(**given), rtol=1e-14, atol=1e-16)
        assert np.isfinite(function(**given, mask=none)).all()
    np.testing.assert_array_equal(OF_TOKENS[f"{name}_grad"](**given, mask=none), 0.0)


def test_padding_by_hand():
    """Real tokens (2,0), (0,2) twice, then four pads (3,0), top-1: load 1, and not 1.2263."""
    logits = jnp.array([[2.0, 0], [0, 2], [2, 0], [0, 2], [3, 0], [3, 0], [3, 0], [3, 0]])
    selected = logits == logits.max(axis=1, keepdims=True)
    real = jnp.arange(8) < 4
    np.testing.assert_allclose(obj.load(logits, selected, mask=real), 1.0, rtol=1e-15)
    assert abs(float(obj.load(logits, selected)) - 1.2263) < 5e-5


@pytest.mark.parametrize("name", ["load", "orthogonality_span", "z_loss_grad"])
@pytest.mark.usefixtures("unchecked")
def test_a_mask_must_fit(name):
    given = arguments(OF_TOKENS[name])
    for bad, match in (
        (jnp.ones(3, bool), r"`mask` must have one entry a token of `\w+`, 4; got shape \(3,\)"),
        (jnp.ones(TOKENS), "`mask` must be boolean, true for real tokens; got dtype float64"),
    ):
        refuses(lambda bad=bad: OF_TOKENS[name](**given, mask=bad), match=match)
