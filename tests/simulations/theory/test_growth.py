"""Steps, slopes, and the growth that they measure, against theory and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import dynamics
from paper_figures.figures import growth as figure
from simulations import theory
from simulations.theory.steps import descend, fitted_rate, stepped


def rotate(state, rate):
    return {"a": rate * state["b"], "b": -rate * state["a"]}


def test_steps_are_plain_and_the_start_is_recorded():
    start = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([0.5, 0.0])}
    states = descend(rotate, start, jnp.asarray(0.1), 2, 3, 0.7)
    assert states["a"].shape == (3, 2)
    turn = np.linalg.matrix_power(np.array([[1.0, 0.07], [-0.07, 1.0]]), 6)
    both = np.array([start["a"], start["b"]])
    np.testing.assert_array_equal(states["a"][0], start["a"])
    np.testing.assert_allclose([states["a"][-1], states["b"][-1]], turn @ both, rtol=1e-13)


def test_rates_by_hand():
    times = np.array([0.0, 1.0, 2.0])
    assert fitted_rate(times, -3 * np.exp(-0.4 * times)) == pytest.approx(-0.4, rel=1e-13)
    assert stepped(np.array([0.5]), 0.2)[0] == pytest.approx(np.log(1.1) / 0.2, rel=1e-14)
    with pytest.raises(ValueError, match="at least 2 records to take a slope from; got 1"):
        fitted_rate(times[:1], times[:1])


@pytest.fixture(scope="module")
def modes():
    return theory.modes(sizes=((6, 3), (2, 2), (3, 1)), draws=2, steps=60, records=6, seed=5)


def test_modes_grow_as_predicted(modes):
    assert figure.mode_error(modes, "predicted") <= figure.BOUND
    # Allowing for the size of the step, nothing is left but the nonlinearity at 1e-6.
    assert figure.mode_error(modes, "corrected") < 1e-5
    # The contrasts do not see the load; the full one pulls twice as hard on a common mode.
    modes = modes.isel(layer=0)
    np.testing.assert_array_equal(
        modes["predicted"].sel(load_kind="full")[:, :2], modes["predicted"].sel(load_kind="frozen")[:, :2]
    )
    difference = (modes["measured"].sel(load_kind="full") - modes["measured"].sel(load_kind="frozen")).values
    assert (difference[:, 2:] < 0).all()
    np.testing.assert_allclose(difference[:, :2], 0, atol=1e-9)


def test_modes_that_do_not_exist_are_not_measured(modes):
    """One group has nothing between groups, groups of one expert nothing within them; the rest is as predicted."""
    exists = modes["exists"].values
    np.testing.assert_array_equal(exists, [[True] * 4, [True, False] * 2, [False, True] * 2])
    for name in ("predicted", "corrected", "measured"):
        there = np.isfinite(modes[name]).all(("draw", "load_kind")).values
        np.testing.assert_array_equal(there, exists)
    errors = [figure.mode_error(modes.isel(layer=i), "predicted") for i in range(3)]
    assert all(0 < error <= figure.BOUND for error in errors)
    # By hand: two experts of one group, tokens' contrast of length c: 2 lambda c^2 / 4.
    rng = np.random.default_rng(5)
    intra = rng.uniform(0.1, 1.0, 2)
    rng.uniform(size=6)
    contrast = rng.uniform(0.7, 1.5, 2)
    np.testing.assert_allclose(modes["predicted"].values[1, :, 0, 0], intra * contrast**2 / 2, rtol=1e-12)


def test_a_wrong_rate_would_show(modes, monkeypatch):
    monkeypatch.setattr(dynamics, "load_pull_full", dynamics.load_pull_frozen)
    monkeypatch.setattr(dynamics.growth, "load_pull_full", dynamics.load_pull_frozen)
    from simulations.theory.growth import _mode_rates

    numbers = {name: np.array([0.5]) for name in ("intra", "inter", "alpha", "mean", "contrast")}
    wrong = _mode_rates(numbers, 6, 3)
    monkeypatch.undo()
    right = _mode_rates(numbers, 6, 3)
    assert np.abs(wrong - right).max() > 5 * figure.BOUND * np.abs(right).max()


def test_experts_specialise_as_predicted():
    found = theory.specialisation(sizes=(2, 3), tokens=24, dim=4, share=0.05, seed=1)
    assert figure.expert_error(found, "predicted") <= figure.BOUND
    assert figure.expert_error(found, "corrected") < 2e-3
    np.testing.assert_allclose(found["predicted"][0] / found["predicted"][1], 3 / 2, rtol=1e-12)
    # Router rows and expert deviations grow alike at equal rates.
    inside = found["norm"].sel(experts=3).values
    inside = inside[(inside[:, 0] > 1e-5) & (inside[:, 0] < 1e-2)]
    np.testing.assert_allclose(inside[:, 0] / inside[:, 1], 1.0, rtol=1e-3)
    # The router starts from random numbers of 1e-7 and ends at its own scale.
    assert found["norm"].values[..., 0].max() > 1e5 * found["norm"].values[:, 0, 0].max()
