"""Spectra name their modes; objectives of outputs, held controllers and random policies have fields."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import KeepRandomly, Partition, dynamics, routers
from himoe_theory.objectives import OBJECTIVES, load_for_share_grad

from ..evaluate import of_experts

GROUPS = Partition((0, 1, 0, 1))
INTRA, INTER, ALPHA, T, N = 0.3, 0.05, 0.01, 3, 4
ROUTER = routers.moge(GROUPS, 1)
GRADIENT = dynamics.LogitGradient(ROUTER, {"intra_group_global": INTRA, "inter_group_dense": INTER, "p_squared": ALPHA})
RNG = np.random.default_rng(2)
X, Y = jnp.asarray(RNG.normal(size=(6, 3))), jnp.asarray(RNG.normal(size=(6, 2)))
ROWS, SLOPES = jnp.asarray(RNG.normal(size=(N, 3))), jnp.asarray(RNG.normal(size=(N, 3, 2)))
RATES = {
    "contrast within": dynamics.contrast_within(INTRA, N),
    "contrast between": dynamics.contrast_between(INTRA, INTER, N, 2),
    "common within": dynamics.common_within_full(INTRA, ALPHA, N),
    "common between": dynamics.common_between_full(INTRA, INTER, ALPHA, N, 2),
}


# Names


def test_names_at_uniform_routing():
    found = dynamics.spectrum(dynamics.FreeLogits(GRADIENT), jnp.zeros((T, N)))
    names = [name for name in found.names if not name.endswith("shared")]
    assert Counter(names) == {"contrast within": 4, "contrast between": 2, "common within": 2, "common between": 1}
    for name, rate in zip(found.names, found.rates, strict=True):
        assert rate == pytest.approx(RATES.get(name, 0.0), abs=1e-12)
    assert found.shares(0) == dynamics.mode_shares(found.field, found.state, found.mode(0))
    assert sum(found.shares(0).values()) == pytest.approx(1.0)


def test_names_of_a_linear_router_on_a_population():
    """Two tokens of unlike weight: one direction is the mean, the other a contrast, in the weights' own sense."""
    nodes, weights = jnp.asarray([[1.0, 3.0], [1.0, -1.0]]), jnp.asarray([0.25, 0.75])  # mean (1, 0)
    gradient = dynamics.PopulationGradient(ROUTER, {"intra_group_global": INTRA, "p_squared": ALPHA}, weights)
    found = dynamics.spectrum(dynamics.LinearRouter(gradient, nodes), jnp.zeros((N, 2)))
    moving = {name: rate.real for name, rate in zip(found.names, found.rates, strict=True) if abs(rate) > 1e-9}
    # Contrasts have variance 3, the mean has square 1; without a term between groups both kinds grow alike.
    assert {round(v, 9) for n, v in moving.items() if n.startswith("contrast")} == {round(3 * 2 * INTRA / 16, 9)}
    assert {round(v, 9) for n, v in moving.items() if n.startswith("common")} == {
        round(2 * INTRA / 16 - 2 * ALPHA / 4, 9)
    }
    table = np.outer([3.0, -1.0], [1.0, -1.0, 1.0, -1.0])  # mean 0 under the weights
    assert dynamics.shares(table, GROUPS, weights)["contrast between"] == pytest.approx(1.0)
    assert dynamics.shares(table, GROUPS)["contrast between"] == pytest.approx(0.8)
    assert {name.split()[0] for name in moving} == {"contrast", "common"}


def test_names_of_router_and_experts():
    """No residual and no coupling: the router's modes are those of its terms, experts only relax."""
    targets = X @ jnp.ones((3, 2))
    field = dynamics.RouterAndExperts(routers.dense(GROUPS), GRADIENT, dynamics.linear_expert, X, targets)
    state = dynamics.Mixture(jnp.zeros((N, 3)), jnp.ones((N, 3, 2)))
    found = dynamics.spectrum(field, state)
    for name, rate in zip(found.names, found.rates.real, strict=True):
        assert rate <= 1e-12 or name.startswith("router")
        assert rate >= -1e-3 or name == "expert contrast shared" or name.startswith(("router common", "expert common"))
    assert found.rates[0].real > 0.01
    inner = dynamics.Normalised(field, 1.0, 1e-3)
    assert dynamics.spectrum(inner, state).names[0] == found.names[0]


def test_fields_without_groups_are_one_group():
    field = dynamics.FreeLogits(lambda s: -s / T)
    found = dynamics.spectrum(field, jnp.zeros((T, 2)))
    assert {name.split()[1] for name in found.names} <= {"within", "shared"}


# Objectives of outputs


@pytest.mark.parametrize("name", [name for name, each in OBJECTIVES.items() if each.of == "outputs"])
def test_outputs_pull_the_selected_experts_alone(name):
    coefficient, rate, router = 0.7, 0.5, routers.gshard(N, 2)
    task = dynamics.RouterAndExperts(router, None, dynamics.linear_expert, X, Y, 1.0, rate)
    both = dynamics.RouterAndExperts(
        router, None, dynamics.linear_expert, X, Y, 1.0, rate, output_terms={name: coefficient}
    )
    state = dynamics.Mixture(ROWS, SLOPES)
    before, after = dynamics.velocity(task, state), dynamics.velocity(both, state)
    np.testing.assert_allclose(after.router, before.router, rtol=1e-13)
    experts = np.argsort(-np.asarray(X @ ROWS.T), axis=1)[:, :2]
    outputs = np.einsum("td,tkdo->tko", X, np.asarray(SLOPES)[experts])
    pulled = np.asarray(OBJECTIVES[name].gradient(of_experts(outputs, experts.astype(np.int32))))
    expected = np.zeros(SLOPES.shape)
    for token, route in itertools.product(range(len(X)), range(2)):
        expected[experts[token, route]] -= rate * coefficient * np.outer(X[token], pulled[token, route])
    np.testing.assert_allclose(after.experts - before.experts, expected, rtol=1e-8, atol=1e-12)
    assert np.abs(expected).max() > 1e-3
    # And its modes: the Jacobian along a displacement, by finite differences.
    step, found = 1e-6, dynamics.jacobian(both, state)
    moved = [dynamics.velocity(both, state._replace(experts=SLOPES + sign * step * SLOPES)) for sign in (1, -1)]
    difference = jax.flatten_util.ravel_pytree(jax.tree.map(lambda a, b: (a - b) / (2 * step), *moved))[0]
    along = np.concatenate([np.zeros(ROWS.size), np.asarray(SLOPES).ravel()])
    np.testing.assert_allclose(found @ along, difference, atol=1e-6)


# Controllers and policies


def test_a_controller_is_held_where_it_is_put():
    router, held = routers.loss_free(3, 1), jnp.array([0.0, 5.0, 0.0])
    state = dynamics.Mixture(ROWS[:3], SLOPES[:3])
    task = dynamics.RouterAndExperts(router, None, dynamics.linear_expert, X, Y)
    biased = dynamics.RouterAndExperts(router, None, dynamics.linear_expert, X, Y, held=held)
    moving = [np.abs(dynamics.velocity(field, state).experts).max(axis=(1, 2)) > 0 for field in (task, biased)]
    assert moving[0].sum() > 1
    np.testing.assert_array_equal(moving[1], [False, True, False])


def test_a_random_policy_has_a_field_for_each_draw_and_their_mean():
    experts, threshold = 3, 0.8
    router = routers.st_moe(experts, 2, KeepRandomly(threshold), epsilon=0.0)
    logits = jnp.array([[1.0, 0.7, -3.0], [-2.0, 0.1, 0.3]])
    keys = jax.random.split(jax.random.key(1), 3000)

    def drawn(key):
        return dynamics.FreeLogits(dynamics.LogitGradient(router, {"load": ALPHA}, key=key))

    order, probs = np.argsort(-logits, axis=1), np.asarray(jax.nn.softmax(logits))
    chance = [min(1, probs[t, order[t, 1]] / probs[t, order[t, :2]].sum() / threshold) for t in range(2)]
    outcomes = []
    for kept in itertools.product((0, 1), repeat=2):
        counts = np.zeros(experts)
        for t in range(2):
            counts[order[t, : 1 + kept[t]]] += 1
        weight = np.prod([chance[t] if kept[t] else 1 - chance[t] for t in range(2)])
        velocity = -2 * ALPHA * np.asarray(load_for_share_grad(logits, jnp.asarray(counts / counts.sum())))
        outcomes.append((weight, velocity))
    expected = sum(weight * velocity for weight, velocity in outcomes)
    error = np.sqrt(sum(weight * (velocity - expected) ** 2 for weight, velocity in outcomes) / len(keys))
    found = np.asarray(dynamics.velocity(dynamics.OverDraws(drawn, keys), logits))
    assert (np.abs(found - expected) <= 4.5 * error).all()  # six entries: a false alarm in 25,000
    one = np.asarray(dynamics.velocity(drawn(keys[0]), logits))
    assert min(np.abs(one - velocity).max() for _, velocity in outcomes) < 1e-15
    np.testing.assert_array_equal(one, dynamics.velocity(drawn(keys[0]), logits))
    names = dynamics.spectrum(dynamics.OverDraws(drawn, keys[:3]), logits, moving=True).names
    assert len(names) == 6


def test_a_random_policy_and_experts():
    router = routers.st_moe(N, 2, KeepRandomly(1.0))
    state = dynamics.Mixture(0 * ROWS, SLOPES)  # each second expert stays with chance 1/2
    moves = []
    for seed in range(6):
        field = dynamics.RouterAndExperts(router, None, dynamics.linear_expert, X, Y, key=jax.random.key(seed))
        moves.append(np.asarray(dynamics.velocity(field, state).experts))
    assert len({move.tobytes() for move in moves}) > 1
    assert dynamics.spectrum(field, state, moving=True).rates.size == ROWS.size + SLOPES.size
