"""Reinforced scores: loops, stairs and periods on small versions, within the figure's bounds."""

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import dynamics
from paper_figures.figures import reinforcement as figure
from simulations import theory
from simulations.theory.reinforcement import _period


def test_a_loop_jumps_where_theory_says():
    loop = theory.hysteresis(experts=4, ratio=1.02, patience=600)
    assert figure.jump_error(loop) <= figure.JUMP_BOUND
    between = (loop.control > 1.05 * dynamics.spinodal(4)) & (loop.control < 0.95 * 4)
    assert between.sum() > 3
    assert float(loop["largest"].sel(direction="up")[between].max()) < 0.26
    # Going down, every state is on the collapsed branch.
    down = loop["largest"].sel(direction="down")[between]
    np.testing.assert_allclose(
        dynamics.collapsed_control(jnp.asarray(down.values), 4), loop.control[between], rtol=1e-3
    )
    with pytest.raises(ValueError, match="`ratio - 1` must be"):
        theory.hysteresis(ratio=0.9)


def test_live_experts_stay_below_the_stairs():
    stairs = theory.staircase(experts=4, points=3, runs=2, steps=700)
    assert figure.stair_error(stairs) <= figure.STAIR_BOUND
    assert figure.above(stairs) == 0
    assert float(stairs["threshold"].sel(n=4)) == pytest.approx((4 - 0.05 * 16) / 4)
    assert not np.isnan(stairs["measured_threshold"]).any()


def test_periods_are_those_of_the_hopf_bifurcation():
    found = theory.oscillation(points=3, periods=4, per_period=1000)
    assert figure.period_error(found) <= figure.PERIOD_BOUND
    assert abs(float(found["measured"][1] / found["predicted"][1]) - 1) < 1e-4
    np.testing.assert_array_equal(np.sign(found["grows"][[0, 2]]), [1, -1])


def test_a_period_by_hand():
    times = np.arange(4001) * 0.01
    period, growth = _period(np.exp(-0.02 * times) * np.sin(2 * np.pi * times / 7.3), 0.01)
    assert period == pytest.approx(7.3, rel=1e-4)
    assert growth == pytest.approx(-0.02, rel=1e-2)
