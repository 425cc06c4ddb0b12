"""Spectra of fields by autodiff: the closed forms of growth near rest are special cases."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from himoe_theory import Partition, Router, TopK, dynamics, routers
from himoe_theory import objectives as obj

INTRA, INTER, ALPHA = 0.3, 0.07, 0.02
GROUPS = Partition((0, 1, 0, 1, 2, 2))
N, S, T = 6, 2, 3
ROUTER = routers.moge(GROUPS, 1)
RNG = np.random.default_rng(8)
X = RNG.normal(size=(12, 3)) + np.array([0.8, 0.0, -0.4])


def terms(load):
    return {"intra_group_global": INTRA, "inter_group_dense": INTER, load: ALPHA}


def growth(load):
    """Rate -> names that have it, from the closed forms."""
    common = {
        "p_squared": (dynamics.common_within_full, dynamics.common_between_full),
        "load_frozen": (dynamics.common_within_frozen, dynamics.common_between_frozen),
    }[load]
    return {
        "contrast within": dynamics.contrast_within(INTRA, N),
        "contrast between": dynamics.contrast_between(INTRA, INTER, N, S),
        "common within": common[0](INTRA, ALPHA, N),
        "common between": common[1](INTRA, INTER, ALPHA, N, S),
    }


@pytest.mark.parametrize("load", ["p_squared", "load_frozen"])
def test_growth_at_uniform_routing_with_names_and_multiplicities(load):
    field = dynamics.FreeLogits(dynamics.LogitGradient(ROUTER, terms(load)))
    found = dynamics.spectrum(field, jnp.zeros((T, N)))
    assert found.drift < 1e-15
    assert found.residuals.max() < 1e-12
    expected = growth(load)
    counts = {"contrast within": 6, "contrast between": 4, "common within": 3, "common between": 2}
    rates = [0.0] * T + [expected[name] for name, count in counts.items() for _ in range(count)]
    np.testing.assert_allclose(found.rates, sorted(rates, reverse=True), atol=1e-12)
    for number, rate in enumerate(found.rates):
        share = dynamics.shares(found.mode(number), GROUPS)
        # Constants that change no probability rest, common or not: rate 0 for both, so one name for both.
        share["shared"] = share.pop("common shared") + share.pop("contrast shared")
        name = dynamics.largest_share(share)
        assert share[name] == pytest.approx(1.0, abs=1e-9)
        assert rate == pytest.approx(expected.get(name, 0.0), abs=1e-12)


def test_a_linear_router_multiplies_rates_by_the_tokens_gram_eigenvalues():
    tokens = np.concatenate([X, -X + 2 * X.mean(axis=0)])  # odd about the mean: the mean is a Gram mode
    field = dynamics.LinearRouter(dynamics.LogitGradient(ROUTER, terms("p_squared")), jnp.asarray(tokens))
    found = dynamics.spectrum(field, jnp.zeros((N, 3)))
    rates, mean = growth("p_squared"), tokens.mean(axis=0)
    moment = tokens.T @ tokens / len(tokens)
    blocks = []
    for where, count in (("within", 3), ("between", 2)):
        # The load sees the mean alone: J = contrast * E[x x'] - pull * mean mean'.
        block = rates[f"contrast {where}"] * moment
        block += (rates[f"common {where}"] - rates[f"contrast {where}"]) * np.outer(mean, mean)
        blocks += [np.linalg.eigvalsh(block)] * count
    expected = np.sort(np.concatenate([*blocks, np.zeros(3)]))[::-1]
    np.testing.assert_allclose(found.rates, expected, atol=1e-10)
    few = dynamics.leading_spectrum(field, jnp.zeros((N, 3)), 4)
    np.testing.assert_allclose(few.rates, expected[:4], atol=1e-9)
    assert few.residuals.max() < 1e-8
    change = dynamics.logit_change(found.mode(0), tokens)
    assert dynamics.shares(change, GROUPS)["contrast within"] > 0.5


def test_a_gaussian_population_grows_by_its_moments():
    mean, root = np.array([0.8, -0.3]), np.array([[1.0, 0.0], [0.5, 0.7]])
    nodes, weights = dynamics.gaussian_nodes(jnp.asarray(mean), jnp.asarray(root), 3)
    fourth = np.asarray(weights @ jnp.square(jnp.square(nodes[:, 0] - mean[0])))
    np.testing.assert_allclose([weights.sum(), fourth], [1.0, 3.0], rtol=1e-13)
    gradient = dynamics.PopulationGradient(ROUTER, terms("load_frozen"), weights)
    found = dynamics.spectrum(dynamics.LinearRouter(gradient, nodes), jnp.zeros((N, 2)))
    rates, expected = growth("load_frozen"), [0.0] * 2
    for where, count in (("within", 3), ("between", 2)):
        block = rates[f"contrast {where}"] * root @ root.T + rates[f"common {where}"] * np.outer(mean, mean)
        expected += list(np.linalg.eigvalsh(block)) * count
    np.testing.assert_allclose(found.rates, np.sort(expected)[::-1], atol=1e-12)


@pytest.mark.parametrize("experts", [2, 3])
def test_specialisation_from_the_symmetric_state(experts):
    targets = np.abs(X[:, 0]) - 0.3 * X[:, 1] ** 2
    shared = np.linalg.lstsq(X, targets, rcond=None)[0]
    moment = dynamics.residual_moment(jnp.asarray(X), jnp.asarray(targets - X @ shared))
    field = dynamics.RouterAndExperts(
        routers.dense(Partition.equal(experts, 1)), None, dynamics.linear_expert, jnp.asarray(X),
        jnp.asarray(targets[:, None]), 0.5, 0.2,
    )  # fmt: skip
    state = dynamics.Mixture(jnp.zeros((experts, 3)), jnp.asarray(np.tile(shared[:, None], (experts, 1, 1))))
    found = dynamics.spectrum(field, state)
    predicted = np.repeat(dynamics.specialisation_rates(moment, experts, 0.5, 0.2), experts - 1)
    np.testing.assert_allclose(found.rates[: predicted.size], predicted, rtol=1e-8)
    assert found.drift < 1e-14
    share = dynamics.mixture_shares(field, state, found.mode(0))
    assert sum(v for name, v in share.items() if name.startswith("router")) == pytest.approx(0.5, abs=1e-9)
    assert sum(share.values()) == pytest.approx(1.0)
    assert share["expert common shared"] + share["router common shared"] < 1e-12


def test_reinforced_scores_with_and_without_a_load():
    flat = routers.dense(Partition.equal(4, 1))
    for load, pull in (("load_frozen", 0.25), ("p_squared", 0.5)):
        field = dynamics.Reinforcement(1.3, 0.4, 0.8, dynamics.LogitGradient(flat, {load: 0.25}))
        found = dynamics.spectrum(field, jnp.full(4, 1.3 / 0.4 / 4))
        rate = float(dynamics.uniform_rate(1.3, 0.4, 0.8, 4, pull))
        np.testing.assert_allclose(found.rates, sorted([-0.4] + 3 * [rate], reverse=True), atol=1e-12)
    # The collapsed branch turns back, with rate 0 along it, at the spinodal.
    u = scipy.optimize.brentq(lambda u: math.exp(u) + 2 - 3 * math.exp(-u) - 4 * u, 0.5, 3.0, xtol=1e-15)
    probs = np.array([math.exp(u), 1.0, 1.0, 1.0]) / (math.exp(u) + 3)
    control = dynamics.spinodal(4)
    turned = dynamics.spectrum(dynamics.Reinforcement(control, 1.0, 1.0), jnp.asarray(control * probs))
    assert turned.drift < 1e-13
    assert abs(turned.rates).min() < 1e-8


def test_live_experts_are_neutral_at_their_threshold():
    gain, decay, beta, experts = 1.0, 0.05, 1.0, 8
    for live in (3, 8):
        alpha = dynamics.live_threshold_frozen(live, experts, gain, decay, beta)
        flat = routers.dense(Partition.equal(experts, 1))
        field = dynamics.Reinforcement(gain, decay, beta, dynamics.LogitGradient(flat, {"load_frozen": alpha}))
        scores = jnp.where(jnp.arange(experts) < live, 0.0, -80.0)
        displacement = jnp.zeros(experts).at[0].set(1.0).at[1].set(-1.0)
        rate, residual = dynamics.growth_rate(field, scores, displacement, moving=True)
        assert abs(rate) < 1e-8
        assert residual < 1e-8


def test_proportional_bias_loses_stability_through_a_pair():
    gain, decay, beta, experts = 1.0, 0.05, 1.0, 8
    rate = dynamics.bias_threshold(experts, gain, decay, beta)
    for factor in (1.0, 1.1):
        field = dynamics.BiasedReinforcement(gain, decay, beta, factor * rate)
        state = dynamics.Biased(jnp.full(experts, gain / decay / experts), jnp.zeros(experts))
        found = dynamics.spectrum(field, state)
        trace = dynamics.bias_trace(factor * rate, experts, gain, decay, beta)
        determinant = dynamics.bias_determinant(factor * rate, experts, decay, beta)
        pair = trace / 2 + 1j * math.sqrt(determinant - trace**2 / 4)
        upper = found.rates[found.rates.imag > 1e-3]
        np.testing.assert_allclose(upper, [pair] * (experts - 1), atol=1e-8)
    np.testing.assert_allclose(
        dynamics.hopf_period(rate, experts, decay, beta), 2 * math.pi / math.sqrt(0.05 * 0.6 / 8), rtol=1e-12
    )
    mode = found.mode(int(np.argmax(found.rates.imag)))
    assert np.iscomplexobj(mode.bias)
    assert mode.scores.shape == (experts,)


def test_groups_flip_where_their_purity_says():
    # Sharp inside each group, equal masses: a shift between the two groups grows iff the purity exceeds the ratio.
    groups, gap = Partition((0, 0, 1, 1)), 1.2
    q = float(jax.nn.sigmoid(gap))
    purity = q**2 + (1 - q) ** 2
    state, shift = jnp.array([[gap, 0.0, gap, 0.0]]), jnp.array([[1.0, 1.0, -1.0, -1.0]])
    for inter in (0.1 * purity, 0.05):
        terms = {"intra_group_global": 0.1, "inter_group_dense": inter}
        field = dynamics.FreeLogits(dynamics.LogitGradient(routers.moge(groups, 1), terms))
        # L = c (m^2 + (1-m)^2), m = sigmoid(2a) at logits +a and -a: the shift's velocity is -L''/4 = -c/4 times it.
        rate, _ = dynamics.growth_rate(field, state, shift, moving=True)
        assert rate == pytest.approx(-float(dynamics.group_coefficient(purity, 0.1, inter)) / 4, abs=1e-12)
    assert dynamics.flip_purity(0.1, 0.1 * purity) == pytest.approx(purity)


def test_hard_counts_are_constant_in_the_linearisation():
    logits = jnp.asarray(RNG.normal(size=(5, 4)))
    router = Router("flat", Partition.equal(4, 1), TopK(2), "himoe-theory")
    hard = dynamics.jacobian(dynamics.FreeLogits(dynamics.LogitGradient(router, {"load": 1.0})), logits)
    counts = (np.argsort(np.argsort(np.asarray(logits))) >= 2).sum(axis=0)
    share = jnp.asarray(counts / counts.sum())
    held = dynamics.jacobian(lambda s: -5 * obj.load_for_share_grad(s, share), logits)
    np.testing.assert_allclose(hard, held, atol=1e-15)


def test_bias_corrected_terms_see_the_temperature():
    router = routers.himoe(GROUPS, 1, tau=0.3, temperature=0.5)
    mean = jnp.asarray(RNG.normal(size=N))
    gradient = dynamics.LogitGradient(router, {"intra_group_global_selection": INTRA}, mean)
    logits = jnp.asarray(RNG.normal(size=(T, N)))
    expected = jax.jit(jax.grad(lambda s: INTRA * obj.intra_group_global((s - 0.3 * mean) / 0.5)))(logits)
    np.testing.assert_allclose(dynamics.velocity(gradient, logits), expected, rtol=1e-12, atol=1e-15)


def test_another_coefficient_is_no_other_program():
    traces = []

    def counted(logits):
        traces.append(1)
        return obj.p_squared_grad(logits)

    class Scaled(dynamics.LogitGradient):
        def __call__(self, logits):
            return counted(logits) * self.terms.coefficients[0]

    for alpha in (0.1, 0.2, 0.3):
        field = dynamics.FreeLogits(Scaled(ROUTER, {"load": alpha}))
        dynamics.velocity(field, jnp.ones((T, N)))
    assert len(traces) == 1


def test_shares_by_hand():
    groups = Partition((0, 0, 0, 1))  # unequal
    table = np.array([[1.0, 1.0, 1.0, -3.0], [1.0, 1.0, 1.0, -3.0]])
    assert dynamics.shares(table, groups)["common between"] == pytest.approx(1.0)
    table = np.array([[2.0, 0.0, -2.0, 0.0], [-2.0, 0.0, 2.0, 0.0]])
    assert dynamics.shares(table, groups)["contrast within"] == pytest.approx(1.0)
    table = np.array([[3.0, 3.0, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0]])
    found = dynamics.shares(table, groups)
    assert (found["common shared"], found["contrast shared"]) == (pytest.approx(0.8), pytest.approx(0.2))
    assert sum(dynamics.shares(np.zeros((2, 4)), groups).values()) == 0


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match="known objectives; got 'loud'"):
        dynamics.LogitGradient(ROUTER, {"loud": 1.0})
    with pytest.raises(ValueError, match=r"`terms\[load\]` must be finite and at least 0; got -1"):
        dynamics.LogitGradient(ROUTER, {"load": -1.0})
    with pytest.raises(ValueError, match="at most 4000 numbers here; got 4002"):
        dynamics.spectrum(lambda s: s, jnp.zeros(4002))
    with pytest.raises(ValueError, match=r"`count` must be at most 4 .* got 5"):
        dynamics.leading_spectrum(lambda s: s, jnp.zeros(6), 5)
    with pytest.raises(ValueError, match="must have 3 numbers, not all 0; got 2"):
        dynamics.growth_rate(lambda s: s, jnp.zeros(3), jnp.ones(2))
    with pytest.raises(ValueError, match=r"finite with its derivative at the state; .* = nan"):
        dynamics.spectrum(lambda s: s * math.nan, jnp.zeros(2), moving=True)
    with pytest.raises(ValueError, match="got 1 of int64"):
        dynamics.jacobian(lambda s: s, jnp.zeros(1, jnp.int64))
    with pytest.raises(ValueError, match="`weights` must sum to 1; the sum is 2"):
        dynamics.PopulationGradient(ROUTER, {"load": 1.0}, jnp.ones(2))
    with pytest.raises(ValueError, match=r"means over tokens of the logits, or load, .* got load_entropy"):
        dynamics.PopulationGradient(ROUTER, {"load_entropy": 1.0}, jnp.ones(1))


# States that move


def test_rates_about_a_moving_state_are_given_on_request_alone():
    """A hard load at equal logits: counts all go to the first expert, and rates there are no growth from rest."""
    gradient = dynamics.LogitGradient(routers.gshard(3, 1), {"load": 1.0})
    field, state = dynamics.FreeLogits(gradient), jnp.zeros((1, 3))
    share = dynamics.velocity(field, state)
    drift = math.sqrt(6) / 3  # N pi (h - <h, pi>) = (2, -1, -1)/3
    np.testing.assert_allclose(share, [[-2 / 3, 1 / 3, 1 / 3]], rtol=1e-12)
    refused = pytest.raises(ValueError, match=r"at rest; it moves at speed 0\.816: `settle` it, or give `moving=True`")
    for call in (dynamics.spectrum, lambda *given: dynamics.growth_rate(*given, jnp.array([[0.0, 1.0, -1.0]]))):
        with refused:
            call(field, state)
    found = dynamics.spectrum(field, state, moving=True)
    assert found.drift == pytest.approx(drift, rel=1e-12)
    np.testing.assert_allclose(found.rates.real.sum(), np.trace(dynamics.jacobian(field, state)), atol=1e-12)


@pytest.mark.parametrize(("dtype", "near", "far"), [("float64", 1e-9, 1e-7), ("float32", 1e-4, 1e-3)])
def test_rest_is_judged_by_the_distance_to_it(dtype, near, far):
    """The same at every speed of the field: it is a distance of the state, in its own precision."""
    for speed in (1e-6, 1.0, 1e6):
        field = dynamics.FreeLogits(lambda s, speed=speed: speed * (s - 1))
        for leading in (False, True):
            spectrum = (lambda f, z: dynamics.leading_spectrum(f, z, 1)) if leading else dynamics.spectrum
            assert spectrum(field, jnp.full((1, 3), 1 + near, dtype)).drift > 0
            with pytest.raises(ValueError, match="`state` must be at rest"):
                spectrum(field, jnp.full((1, 3), 1 + far, dtype))
