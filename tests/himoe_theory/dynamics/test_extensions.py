"""Specialisation beyond linear experts, own counts, two levels: against the spectra and flows of the whole problem."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from himoe_theory import Partition, Router, SelectionBias, Sigmoid, TopK, dynamics, metrics, routers

RNG = np.random.default_rng(11)
X = RNG.normal(size=(10, 2)) + np.array([1.0, 0.2])
Y = np.stack([np.abs(X[:, 0]), X[:, 0] * X[:, 1]], axis=1)
EXPERTS, ETA_W, ETA_V = 3, 0.5, 0.2
FLAT = Partition.equal(EXPERTS, 1)
TERMS = {"intra_group_global": 0.4, "p_squared": 0.3}
CONTRAST = float(dynamics.contrast_within(0.4, EXPERTS))
COMMON = float(dynamics.common_within_full(0.4, 0.3, EXPERTS))
ALONG = np.array([1.0, 2.0, -3.0])


def stacked(parameters):
    return jax.tree.map(lambda leaf: jnp.tile(leaf[None], (EXPERTS,) + (1,) * leaf.ndim), parameters)


SHARED = {
    "linear": jnp.asarray(RNG.normal(size=(2, 2))),
    "two-layer": (jnp.asarray(RNG.normal(size=(2, 2))), jnp.asarray(RNG.normal(size=(2, 2)))),
}
FUNCTIONS = {"linear": dynamics.linear_expert, "two-layer": dynamics.two_layer_expert}


@pytest.mark.parametrize("kind", ["linear", "two-layer"])
def test_the_leading_mode_of_the_symmetric_state_is_one_of_the_whole_problem(kind):
    expert, shared = FUNCTIONS[kind], SHARED[kind]
    moment, curvature = jax.jit(lambda p: dynamics.symmetric_moments(expert, p, jnp.asarray(X), jnp.asarray(Y)))(shared)
    assert (np.abs(curvature).max() > 0.1) == (kind == "two-layer")
    rates = {"contrast_rate": CONTRAST, "common_rate": COMMON, "router_rate": ETA_W, "expert_rate": ETA_V}
    lead = dynamics.onset(jnp.asarray(X), moment, curvature, EXPERTS, **rates)
    assert lead.common + lead.contrast + lead.coupling + lead.curvature == pytest.approx(lead.rate, rel=1e-12)
    field = dynamics.RouterAndExperts(
        routers.dense(FLAT),
        dynamics.LogitGradient(routers.dense(FLAT), TERMS),
        expert,
        jnp.asarray(X),
        jnp.asarray(Y),
        ETA_W,
        ETA_V,
    )
    state = dynamics.Mixture(jnp.zeros((EXPERTS, 2)), stacked(shared))
    _, unravel = jax.flatten_util.ravel_pytree(shared)
    deviations = [unravel(jnp.asarray(math.sqrt(ETA_V) * c * lead.experts)) for c in ALONG]
    mode = dynamics.Mixture(
        jnp.asarray(math.sqrt(ETA_W) * np.outer(ALONG, lead.router)),
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *deviations),
    )
    rate, residual = dynamics.growth_rate(field, state, mode, moving=True)
    assert rate == pytest.approx(lead.rate, rel=1e-10)
    assert residual < 1e-10
    share = dynamics.mixture_shares(field, state, mode)
    expert_share = sum(value for name, value in share.items() if name.startswith("expert"))
    assert expert_share == pytest.approx(np.square(lead.experts).sum(), rel=1e-9)


def test_the_moment_of_linear_experts_is_that_of_the_residual():
    slope = jnp.asarray(RNG.normal(size=(2, 1)))
    data = (jnp.asarray(X), jnp.asarray(Y[:, :1]))
    moment, curvature = jax.jit(lambda p: dynamics.symmetric_moments(dynamics.linear_expert, p, *data))(slope)
    expected = dynamics.residual_moment(jnp.asarray(X), jnp.asarray(Y[:, 0] - X @ np.asarray(slope)[:, 0]))
    np.testing.assert_allclose(moment, expected, rtol=1e-13)
    assert not np.any(curvature)


def test_no_load_stops_specialisation_and_regularisers_name_the_phase():
    moment, flat = jnp.array([[0.3, 0.0], [0.0, -0.5]]), jnp.zeros((2, 2))
    spread = jnp.array([[1.0, 1.0], [1.0, -1.0], [3.0, 1.0], [3.0, -1.0]])  # mean (2, 0), variances 1 and 1

    def lead(contrast, common, scale=1.0):
        return dynamics.onset(spread, scale * moment, flat, 4, contrast_rate=contrast, common_rate=common)

    for load in (0.0, 1.0, 100.0):
        # Along the mean a load slows the mode to c^2/|rho|; the mode at right angles to it never notices.
        found = lead(0.0, -load)
        assert found.name == "specialise"
        assert found.rate == pytest.approx(0.5 / 4)
        rho, c = -load * 4.0, 0.3 / 4
        both = np.linalg.eigvalsh(np.array([[rho, c], [c, 0.0]]))
        assert float(dynamics.slowed_rate(c, rho)) == pytest.approx(both[-1], rel=1e-9)
        assert both[-1] > 0
    assert lead(0.0, 1.0).name == "collapse"
    assert lead(1.0, -10.0).name == "sharpen"
    assert lead(0.0, -1.0, scale=0.0).name == "frozen"
    strong = dynamics.slowed_rate(jnp.array([1e-3]), jnp.array([-1e6]))
    np.testing.assert_allclose(strong, 1e-12, rtol=1e-9)


@pytest.mark.parametrize("selection", [TopK(1), TopK(2), None])
def test_a_selection_drives_experts_apart_at_once(selection):
    router = routers.dense(FLAT) if selection is None else Router("top", FLAT, selection, "himoe-theory")
    target = Y[:, 1:]
    shared = np.linalg.lstsq(X, target, rcond=None)[0]
    rows = np.array([[0.3, 1.0], [0.4, -0.9], [-0.1, 0.1]])
    residual = jnp.asarray((target - X @ shared)[:, 0])
    drives = []
    for size in (1e-7, 1e-10):
        field = dynamics.RouterAndExperts(
            router, None, dynamics.linear_expert, jnp.asarray(X), jnp.asarray(target), 1.0, ETA_V
        )
        at = dynamics.velocity(field, dynamics.Mixture(jnp.asarray(size * rows), stacked(jnp.asarray(shared))))
        chosen = np.argsort(np.argsort(-X @ rows.T)) < (EXPERTS if selection is None else selection.k)
        combine = jnp.asarray(chosen / chosen.sum(axis=1, keepdims=True))
        drives.append(np.asarray(dynamics.selection_drive(jnp.asarray(X), residual, combine)))
        np.testing.assert_allclose(at.experts[:, :, 0], ETA_V * drives[-1], atol=10 * size)
        assert np.abs(at.router).max() < 10 * size  # no force on the router before the experts differ
    assert (np.abs(drives[0]).max() > 0.01) == (selection is not None)
    np.testing.assert_array_equal(*drives)


def test_adam_without_memory_has_the_same_modes_in_units_of_epsilon():
    field = dynamics.LinearRouter(dynamics.LogitGradient(routers.dense(FLAT), TERMS), jnp.asarray(X))
    plain = dynamics.spectrum(field, jnp.zeros((EXPERTS, 2)))
    adam = dynamics.spectrum(dynamics.Normalised(field, 1e-3, 1e-4), jnp.zeros((EXPERTS, 2)))
    np.testing.assert_allclose(adam.rates, 10 * plain.rates, atol=1e-12)
    moved = dynamics.velocity(dynamics.Normalised(field, 1e-3, 1e-15), jnp.asarray(RNG.normal(size=(EXPERTS, 2))))
    np.testing.assert_allclose(np.abs(moved), 1e-3, rtol=1e-6)
    assert np.abs(np.asarray(moved).sum(axis=0)).max() > 1e-4  # the sum of rows is no longer conserved


def test_own_counts_push_a_leading_logit_back():
    experts, tokens, intra, alpha = 3, 2, 0.2, 0.1
    router = Router("top", Partition.equal(experts, 1), TopK(1), "himoe-theory")
    field = dynamics.FreeLogits(dynamics.LogitGradient(router, {"intra_group_global": intra, "load": alpha}))
    for gap in (0.2, 3.0):
        gains = []
        for other in range(experts):  # every choice of the other token, all as likely
            logits = jnp.zeros((tokens, experts)).at[0, 0].set(gap).at[1, other].set(0.7)
            moved = dynamics.velocity(field, logits)
            gains.append(float(moved[0, 0] - moved[0, 1:].mean()))
        p = math.exp(gap) / (math.exp(gap) + experts - 1)
        predicted = dynamics.hard_sharpening(p, intra, alpha, experts, tokens)
        assert np.mean(gains) == pytest.approx(predicted, rel=1e-11)
        lead = p - (1 - p) / (experts - 1)
        assert (predicted > 0) == (lead > dynamics.hard_nucleus(intra, alpha, experts, tokens))
    critical = dynamics.critical_batch_hard(intra, alpha, experts)
    assert critical == pytest.approx(0.75)
    assert dynamics.hard_sharpening(0.9, intra, alpha, experts, 1) == pytest.approx(0.9 * 0.15 * 0.04, rel=1e-12)


def test_the_sign_update_leaves_a_floor_of_max_violation():
    tokens, rate = 40001, 0.01
    difference = np.linspace(-0.4, 0.4, tokens) + 0.124  # density 1/0.8
    scores = 0.5 + np.outer(difference / 2, [1.0, -1.0])
    logits = jnp.asarray(np.log(scores / (1 - scores)))
    controller, whole = SelectionBias(rate), Partition.equal(2, 1)

    def step(bias, _):
        bias, _, keys = controller.prepare(bias, logits, Sigmoid(), mask=None, training=True)
        counts = TopK(1).choose(keys, whole, None).selected.sum(axis=0)
        return controller.update(bias, counts), metrics.max_violation(counts.astype(bias.dtype))

    found = np.asarray(jax.jit(lambda: jax.lax.scan(step, jnp.zeros(2), None, length=40)[1])())[-20:]
    assert found.min() < 0.7 * found.max()  # the cycle is not centred
    assert found.mean() == pytest.approx(dynamics.sign_bias_floor(rate, 1 / 0.8), rel=1e-2)


def test_two_levels_have_two_transitions():
    partition, gain, decay = Partition.equal(6, 2), 1.1, 0.55
    for beta, gamma in itertools.product((1.2, 1.6), (0.0, 0.7)):
        field = dynamics.GroupedReinforcement(gain, decay, jnp.asarray(beta), jnp.asarray(gamma), partition)
        kappa, chi = beta * gain / decay, gamma * gain / decay
        state = dynamics.Levels(jnp.full(6, gain / decay / 6), jnp.full(2, gain / decay / 2))
        whole = dynamics.spectrum(field, state)
        assert whole.drift < 1e-14
        found = whole.rates / decay
        between = float(dynamics.between_rate(kappa, chi, 2, 3))
        inside = float(dynamics.inside_rate(kappa, 0.5, 3))
        expected = sorted([between] + 4 * [inside] + 3 * [-1.0], reverse=True)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert dynamics.between_rate(kappa, 0.0, 2, 3) == pytest.approx(inside)
    # Groups collapsed, experts inside still uniform: a state of the Potts model of groups, stable at kappa < S.
    rest = dynamics.settle(field, dynamics.Levels(jnp.zeros(6).at[:3].set(1.0), jnp.array([1.0, 0.0])), span=40.0)
    mass = scipy.special.softmax(beta * rest.experts + gamma * np.repeat(rest.groups, 3)).reshape(2, 3).sum(axis=1)
    control = dynamics.potts_control(kappa, chi, 3)
    assert float(dynamics.collapsed_control(float(mass[0]), 2)) == pytest.approx(control, rel=1e-8)
    assert dynamics.spectrum(field, rest).rates.real.max() / decay == pytest.approx(
        float(dynamics.inside_rate(kappa, float(mass[0]), 3)), abs=1e-8
    )


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match=r"must be \[dim, parameters\]; got \(3, 2\), inputs \(10, 2\)"):
        dynamics.onset(jnp.asarray(X), jnp.zeros((3, 2)), jnp.zeros((2, 2)), 3, contrast_rate=0.0, common_rate=0.0)
    with pytest.raises(ValueError, match=r"`p` must be finite and in \[0.5, 1\]; got 0.4"):
        dynamics.hard_sharpening(0.4, 0.1, 0.1, 2, 3)
    with pytest.raises(ValueError, match=r"`mass` must be finite and in \[0, 1\]; got 1.5"):
        dynamics.inside_rate(1.0, 1.5, 2)
