"""The audit agrees for every objective, and would not if a gradient were wrong."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory.objectives import OBJECTIVES, catalogue
from proofs_checks import audit, error
from proofs_checks import gradients as module
from proofs_checks.gradients import BOUND


@pytest.fixture(scope="module")
def found():
    return audit([0.1, 3.0, 50.0], samples=3)


def test_every_objective_agrees(found):
    assert set(found.objective.values) == set(OBJECTIVES)
    assert found["max_error"].shape == (len(OBJECTIVES), 3)
    assert (found["max_error"] < BOUND).all()
    assert (found["max_error"] > 0).any("concentration").all()  # two ways to compute, so rounding differs


def test_float64_whatever_the_session(found):
    assert found.attrs["dtype"] == "float64"
    assert (found["max_error"] < 1e3 * np.finfo(np.float64).eps).all()


@pytest.mark.parametrize("factor", [-1.0, 0.5, 1.001, float("nan")])
def test_a_wrong_gradient_is_seen(monkeypatch, factor):
    right = OBJECTIVES["inter_group_dense"]
    wrong = dataclasses.replace(right, gradient=lambda r: factor * right.gradient(r))
    monkeypatch.setattr(module, "OBJECTIVES", {"inter_group_dense": wrong})
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((5, 8)))
    pair = module.both_gradients(logits, jnp.zeros((5, 4, 2)))["inter_group_dense"]
    assert not error(*pair) < 1e-5


def test_error_by_hand():
    a = jnp.array([[2.0, -4.0], [0.0, 1.0]])  # per token (T = 2): largest 8
    assert error(a + 0.5, a) == pytest.approx(2 * 0.5 / 8)
    assert error(a * 0 + 0.25, a * 0) == pytest.approx(0.5)  # below 1 it is absolute


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], 0, 0), "`samples` must be at least 1; got 0"),
        (([-1.0], 1, 0), "`concentrations` must be above 0; got -1"),
        (([0.0], 1, 0), "`concentrations` must be above 0; got 0"),
        (([], 1, 0), "`number of concentrations` must be at least 1; got 0"),
        (([1.0], 1, -2), "`seed` must be at least 0; got -2"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        audit(*arguments)


def test_catalogue_is_the_one_audited():
    assert module.OBJECTIVES is catalogue.OBJECTIVES
