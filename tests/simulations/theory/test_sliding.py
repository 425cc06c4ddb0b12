"""Hard counts at a tie: steps follow sliding motion at first order, and would not if counts or theory were others."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from himoe_theory import dynamics
from paper_figures.figures import sliding as figure
from simulations import theory

# The package has the function by the module's name.
MODULE = importlib.import_module("simulations.theory.sliding")
SMALL = {"strides": (1, 3, 10), "records": 80}


@pytest.fixture(scope="module")
def found():
    return theory.sliding(**SMALL)


def test_steps_follow_sliding_motion(found):
    assert figure.order_error(found) <= figure.ORDER_BOUND
    assert figure.miscounted(found) <= figure.MISCOUNT_BOUND
    assert list(found.case.values) == ["α = 0.2: slides", "α = 0.1: slides, then leaves", "α = 0.04: crosses"]
    assert float(found["others"]) == 0
    # Not to be had from any share: the two experts are counted in quite different ones, which differ between loads.
    assert 0.7 < float(found["predicted_share"][0]) < float(found["predicted_share"][1]) - 0.1 < 0.9
    np.testing.assert_array_equal(np.isfinite(found["share"]).all("step"), [True, True, False])
    # The lead does what the case says, by the largest steps too.
    slides, leaves, crosses = found["measured"].isel(step=0)
    assert (found["measured"].isel(time=0) == -0.5).all()
    assert abs(float(slides[-1])) < 0.1 < float(crosses[-1])
    assert 0.05 < float(leaves[-1]) < float(crosses[-1])


def test_slides_stay_between_what_a_step_from_either_side_can_reach(found):
    low, high = (found["approach"].sel(side=side) * found.step for side in ("above", "below"))
    width = high - low
    beyond = np.maximum(found["measured"] - high, low - found["measured"]) / width
    # The velocities are those of theory's states, which are a step's order away.
    assert (beyond.max("time") < found.step).sel(case=found.case[:2]).all()
    # They use what they have: of what a step can reach no half is left empty.
    inside = ((found["measured"] - low) / width).isel(case=0, step=0)
    assert float(inside.min()) < 0.25
    assert float(inside.max()) > 0.75


def test_the_shares_are_those_of_the_formula():
    predicted = MODULE._predicted(0.1, np.linspace(0.0, 4.0, 9))
    sharpness = np.linspace(0.5, 1.5, 8)
    for at in (4, 8):
        assert abs(float(predicted["scores"][at, 0] - predicted["scores"][at, 1])) < 1e-9
        probs = softmax(sharpness[:, None] * predicted["scores"][at].values, axis=1)
        share = 0.5 + 0.2 / (2 * 0.1 * 8 * (sharpness * probs[:, 0]).mean())
        assert float(predicted["theta"][at]) == pytest.approx(share, rel=1e-9)


def test_steps_by_hand(found):
    sharpness, x = np.linspace(0.5, 1.5, 8), np.array([0.0, 0.5, *[-2.0] * 6])
    ahead = np.array([0.2, 0.0, *[-0.1] * 6])
    for now in range(30):
        lead = float(found["measured"].isel(case=0, step=0, time=now))
        assert x[0] - x[1] == pytest.approx(lead, abs=1e-12)
        probs = softmax(sharpness[:, None] * x, axis=1)
        counts = np.bincount(np.argmax(sharpness[:, None] * x, axis=1), minlength=8) / 8
        pull = 8 * (sharpness[:, None] * probs * (counts - probs @ counts[:, None])).mean(axis=0)
        x = x + 0.1 * (1.5 * probs.mean(axis=0) - 0.5 * x + ahead - 0.2 * pull)


def test_soft_counts_would_show(monkeypatch):
    def soft(state, alpha):
        share = jax.nn.softmax(MODULE._logits(state["scores"]), axis=1).mean(axis=0)
        return MODULE._velocity(state["scores"], share, alpha)

    monkeypatch.setattr(MODULE, "_counts_all", soft)
    wrong = theory.sliding(**SMALL, loads=(0.2,))
    assert figure.order_error(wrong) > 5 * figure.ORDER_BOUND
    assert figure.miscounted(wrong) > 5 * figure.MISCOUNT_BOUND


class Even(dynamics.Sliding):
    """Both experts counted alike on the tie."""

    def share(self, state):
        return jnp.asarray(0.5)


def test_a_wrong_share_would_show(monkeypatch):
    monkeypatch.setattr(dynamics, "Sliding", Even)
    wrong = theory.sliding(**SMALL, loads=(0.2,))
    assert figure.order_error(wrong) > 5 * figure.ORDER_BOUND


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match="`loads` must be above 0; got 0"):
        theory.sliding(loads=(0.1, 0.0))
    with pytest.raises(ValueError, match="`strides` must be at least 1; got 0"):
        theory.sliding(strides=(1, 0))
    with pytest.raises(ValueError, match=r"`strides` must be at least 2 different numbers, .*; got \(3, 3\)"):
        theory.sliding(strides=(3, 3))
    with pytest.raises(ValueError, match="`records` must be at least 1; got 0"):
        theory.sliding(records=0)
    with pytest.raises(ValueError, match="`interval` must be above 0; got -1"):
        theory.sliding(interval=-1.0)
