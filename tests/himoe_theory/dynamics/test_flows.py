"""Flows of fields: conserved quantities, limits, hysteresis, periods, and discrete training as the rate falls."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition, dynamics, routers

GROUPS = Partition((0, 1, 0, 1))
ROUTER = routers.moge(GROUPS, 1)
TERMS = {"intra_group_global": 0.5, "inter_group_dense": 0.1, "p_squared": 0.05, "load": 0.1}
RNG = np.random.default_rng(5)
X = RNG.normal(size=(6, 3)) + 0.5
W = RNG.normal(size=(4, 3))


def test_losses_of_the_softmax_alone_conserve_the_sum_of_rows():
    times = (0.0, 4.0, 9.0)
    for terms, kept in ((TERMS, True), ({**TERMS, "z": 0.02}, False)):
        field = dynamics.LinearRouter(dynamics.LogitGradient(ROUTER, terms), jnp.asarray(X), 0.7)
        rows = dynamics.flow(field, jnp.asarray(W), times, tolerance=1e-7).states
        assert rows.shape == (3, 4, 3)
        assert np.abs(rows[-1] - W).max() > 0.01
        gone = np.abs(rows.sum(axis=1) - W.sum(axis=0)).max()
        assert (gone < 1e-13) if kept else (gone > 1e-3)


def test_steps_of_training_tend_to_the_flow_at_first_order():
    gradient = dynamics.LogitGradient(ROUTER, {"intra_group_global": 1.0, "p_squared": 0.2})
    field = dynamics.LinearRouter(gradient, jnp.asarray(X))
    end = dynamics.flow(field, jnp.asarray(W), (0.0, 1.0)).states[-1]
    errors = []
    for steps in (50, 100):
        at = jnp.asarray(W)
        for _ in range(steps):
            at = at + dynamics.velocity(field, at) / steps
        errors.append(np.abs(np.asarray(at) - end).max())
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.05)


def test_the_mean_field_limit_of_a_sample_with_repetitions():
    repeats = np.array([1, 3, 2, 1, 1, 4])  # uneven counts: 7 to 5 in either group
    terms = {**TERMS, "load_frozen": 0.2, "z": 0.1}
    weights = jnp.asarray(repeats / repeats.sum())
    population = dynamics.LinearRouter(dynamics.PopulationGradient(ROUTER, terms, weights), jnp.asarray(X))
    batch = dynamics.LinearRouter(dynamics.LogitGradient(ROUTER, terms), jnp.asarray(np.repeat(X, repeats, axis=0)))
    found, expected = (dynamics.velocity(field, jnp.asarray(W)) for field in (population, batch))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_router_and_experts_grow_at_the_predicted_rate_and_keep_their_balance():
    targets = np.abs(X[:, 0])
    shared = np.linalg.lstsq(X, targets, rcond=None)[0]
    moment = np.asarray(dynamics.residual_moment(jnp.asarray(X), jnp.asarray(targets - X @ shared)))
    router_rate, expert_rate, experts = 0.5, 0.2, 4
    values, vectors = np.linalg.eigh(moment)
    top = int(np.abs(values).argmax())
    rate = abs(values[top]) * math.sqrt(router_rate * expert_rate) / experts
    field = dynamics.RouterAndExperts(
        routers.dense(GROUPS), None, dynamics.linear_expert, jnp.asarray(X), jnp.asarray(targets[:, None]),
        router_rate, expert_rate,
    )  # fmt: skip
    errors, span = [], 2.0 / rate
    for size in (2e-4, 1e-4):
        rows = size * np.outer([1.0, -2.0, 3.0, -2.0], vectors[:, top])
        other = math.sqrt(expert_rate) * np.sign(values[top]) * rows[:, :, None]
        start = dynamics.Mixture(jnp.asarray(math.sqrt(router_rate) * rows), jnp.asarray(shared[:, None] + other))
        states = dynamics.flow(field, start, (0.0, span)).states
        grown = states.router[-1] / states.router[0]
        errors.append(np.abs(grown / math.exp(rate * span) - 1).max())
        deviation = states.experts[-1] - states.experts[-1].mean(axis=0)
        balance = (np.square(states.router[-1]).sum() / router_rate) / (np.square(deviation).sum() / expert_rate)
        assert balance == pytest.approx(1.0, abs=50 * size)
    assert errors[1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)  # the next order is cubic: the error halves


def test_hysteresis_of_reinforced_scores():
    field = dynamics.Reinforcement(6.0, 1.0, 1.0)
    near = jnp.full(8, 0.75).at[0].add(1e-3)
    rest = dynamics.settle(field, near, span=30.0)
    np.testing.assert_allclose(jax.nn.softmax(rest), 0.125, atol=1e-9)
    far = dynamics.settle(field, jnp.zeros(8).at[0].set(5.0), span=30.0)
    share = float(jax.nn.softmax(far)[0])
    assert share == pytest.approx(0.981, abs=5e-4)
    assert float(dynamics.collapsed_control(share, 8)) == pytest.approx(6.0, rel=1e-8)
    assert dynamics.spinodal(8) < 6.0 < dynamics.uniform_limit(8)


def test_the_bias_oscillates_with_the_predicted_period():
    experts, plant = 8, (1.0, 0.05, 1.0)
    rate = dynamics.bias_threshold(experts, *plant)
    start = dynamics.Biased(jnp.full(experts, 2.5).at[0].add(1e-3).at[1].add(-1e-3), jnp.zeros(experts))
    times = np.linspace(0.0, 450.0, 2001)
    bias = dynamics.flow(dynamics.BiasedReinforcement(*plant, rate), start, times, tolerance=1e-9).states.bias[:, 0]
    up = np.flatnonzero((bias[:-1] < 0) & (bias[1:] >= 0))[1:]
    crossed = times[up] - bias[up] * (times[1] - times[0]) / (bias[up + 1] - bias[up])
    predicted = dynamics.hopf_period(rate, experts, plant[1], plant[2])
    np.testing.assert_allclose(np.diff(crossed), predicted, rtol=1e-4)


def test_a_smooth_sign_swings_within_reach_of_its_step():
    field = dynamics.BiasedReinforcement(0.1, 1.0, 1.0, 0.01, dynamics.SmoothSign(1e-3))
    start = dynamics.Biased(jnp.array([0.3, 0.0]), jnp.zeros(2))
    state = dynamics.settle(field, start, span=50.0)
    np.testing.assert_allclose(state.scores, 0.05, atol=1e-8)  # the sign's flow is stable here: it has no delay
    assert dynamics.velocity(field, start).bias[0] == pytest.approx(-0.01, rel=1e-9)


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match=r"increasing numbers; got \[1.0, 0.0\]"):
        dynamics.flow(lambda s: s, jnp.ones(1), [1.0, 0.0])
    with pytest.raises(ValueError, match="`start` must be finite; 1 of 2"):
        dynamics.flow(lambda s: s, jnp.array([1.0, jnp.nan]), [0.0, 1.0])
    with pytest.raises(RuntimeError, match="after 2 spans of 1 it is"):
        dynamics.settle(lambda s: s, jnp.ones(1), span=1.0, rounds=2)


# Fields that are not finite, at the start and on the way


def _until(bad):
    """Grows as e^t and is `bad` above 2, which it reaches at ln 2."""
    return lambda s: jnp.where(s > 2, bad, s)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.usefixtures("unchecked")
def test_a_field_that_is_not_finite_at_the_start_is_refused(bad):
    field, start = (lambda s: jnp.where(jnp.arange(3) == 1, bad, s)), jnp.ones(3)
    with pytest.raises(ValueError, match=r"finite at the start, 0\.5; 1 of 3 are not"):
        dynamics.flow(field, start, [0.5, 1.0])
    with pytest.raises(ValueError, match="finite at the start, 0; 1 of 3 are not"):
        dynamics.settle(field, start, span=1.0)


@pytest.mark.parametrize(
    ("field", "time"),
    [
        (_until(math.nan), "0.693147"),
        (_until(math.inf), "0.693147"),
        (lambda s: s**2, "1"),  # 1/(1 - t)
        (jnp.exp, "0.367879"),  # -ln(e^-1 - t)
        (lambda s: -jnp.sqrt(s), "2"),  # (1 - t/2)^2, and no real number beyond
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_path_that_ends_says_when(field, time):
    with pytest.raises(RuntimeError, match=rf"must reach time 3; it stops near time {time}\."):
        dynamics.flow(field, jnp.ones(1), [0.0, 3.0], tolerance=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_paths_that_would_take_for_ever_end():
    # Steps too short to move a number of this precision are accepted one after the other.
    with pytest.raises(RuntimeError, match=r"finite on the way; near time 9\.9995e-05 it is not"):
        dynamics.flow(lambda s: jnp.where(s > 1.0001, math.nan, s), jnp.ones(1), [0.0, 1.0])
    with pytest.raises(RuntimeError, match="`evaluations` of the field; they are used up at 1"):
        dynamics.flow(lambda s: -jnp.sign(s), jnp.ones(1), [0.0, 2.0], evaluations=2000)
    with pytest.raises(ValueError, match="`rest` must be finite and above 0; got nan"):
        dynamics.settle(lambda s: -s, jnp.ones(1), span=1.0, rest=math.nan)


@pytest.mark.usefixtures("unchecked")
def test_a_step_that_leaves_the_field_is_tried_again_shorter():
    """From 1 to 0.1 along the circle x^2 + t^2 = 1, which ends at t = 1."""
    field = lambda z: jnp.stack([-z[1] / jnp.sqrt(1 - z[1] ** 2), jnp.ones(())])  # noqa: E731
    end = dynamics.flow(field, jnp.array([1.0, 0.0]), [0.0, math.sqrt(0.99)]).states[-1]
    np.testing.assert_allclose(end, [0.1, math.sqrt(0.99)], rtol=1e-6)
