"""Topologies: the layer against loops over tokens, experts, rounds and layers in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import GroupedTopK, Partition, routers
from himoe_theory.objectives import Objective
from simulations import Arm, Clusters, Layer, Training, TwoLayer, simulate
from simulations.gates import Recurrent
from simulations.losses import term_values
from simulations.topology import PLAIN, Topology, finer

PARTITION = Partition((0, 1, 1, 0))
ROUTER = routers.moge(PARTITION, 1)
LAYER = Layer(TwoLayer(5), gate_std=1.0)
X = np.random.default_rng(2).standard_normal((6, 3)).astype(np.float32)
LABELS = jnp.zeros(6, jnp.int32)


def started(topology, outputs=3, gate=None, router=ROUTER):
    rng, given = np.random.default_rng(0), () if gate is None else (gate,)
    gate = Arm("a", router, {}, "", *given).gate
    p = LAYER.init(rng, 4, 3, outputs, gate, topology, 2)
    return gate, jax.tree.map(jnp.asarray, p)


def applied(topology, outputs=3, gate=None, router=ROUTER, **given):
    gate, parameters = started(topology, outputs, gate, router)
    state = jnp.zeros((topology.depth, 4) if topology.depth > 1 else 4, jnp.float32)
    x, key = jnp.asarray(X), jax.random.key(0)
    output, moved = LAYER.apply(
        parameters, router, gate, state, x, LABELS, key=key, training=True, topology=topology, **given
    )
    return parameters, output, moved


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def one(parameters, number, x, units=None):
    """An expert by hand, of its first units."""
    p = {name: np.asarray(value[number], np.float64) for name, value in parameters.items()}
    hidden = np.asarray(jax.nn.gelu(jnp.asarray(x @ p["in"] + p["in_bias"])))
    return hidden[:units] @ p["out"][:units] + p["out_bias"]


def routed(parameters, gate, x, units=(None,) * 4, nested=False):
    """Top-1 in each of the groups {0, 3} and {1, 2}, weights renormalised: outputs and weights."""
    logits = x @ np.asarray(gate, np.float64).T
    y, weights = [], np.zeros((len(x), 4))
    for t, row in enumerate(logits):
        chosen = [max(members, key=lambda e, row=row: row[e]) for members in ((0, 3), (1, 2))]
        raised = np.exp(row[chosen])
        weights[t, chosen] = raised / raised.sum()
        y.append(sum(weights[t, e] * one(parameters, 0 if nested else e, x[t], units[e]) for e in chosen))
    return np.asarray(y), weights


def test_shared_experts_and_adjugates_are_added():
    """An adjugate's weight is that of its group; experts and gate are those of a plain layer."""
    p, output, _ = applied(Topology(shared=2, adjugates=3))
    plain, _, _ = applied(PLAIN)
    assert jax.tree.all(jax.tree.map(np.array_equal, [p["gate"], p["experts"]], [plain["gate"], plain["experts"]]))
    assert p["adjugates"]["in"].shape == (2, 3, 3)
    y, weights = routed(p["experts"], p["gate"], X.astype(np.float64))
    for t, x in enumerate(X.astype(np.float64)):
        y[t] += one(p["shared"], 0, x) + one(p["shared"], 1, x)
        for group, members in enumerate(((0, 3), (1, 2))):
            y[t] += weights[t, list(members)].sum() * one(p["adjugates"], group, x)
    close(output.prediction, y)


@pytest.mark.parametrize("nested", [False, True])
def test_experts_of_unequal_width_are_their_first_units(nested):
    widths = (1, 5, 3, 2)
    p, output, _ = applied(Topology(widths=widths, nested=nested))
    assert p["experts"]["in"].shape[0] == (1 if nested else 4)
    close(output.prediction, routed(p["experts"], p["gate"], X.astype(np.float64), widths, nested)[0])


def test_units_that_an_expert_lacks_have_no_gradient():
    topology = Topology(widths=(1, 5, 3, 2))
    gate, parameters = started(topology)

    def loss(p):
        state, key, x = jnp.zeros(4, jnp.float32), jax.random.key(0), jnp.asarray(X)
        given = {"key": key, "training": True, "topology": topology}
        return jnp.square(LAYER.apply(p, ROUTER, gate, state, x, LABELS, **given)[0].prediction - 1).sum()

    gradient = jax.grad(loss)(parameters)["experts"]
    for e, width in enumerate(topology.widths):
        assert (
            float(jnp.abs(gradient["out"][e, width:]).sum()) == float(jnp.abs(gradient["in"][e][:, width:]).sum()) == 0
        )
    assert float(jnp.abs(gradient["out"][1]).min()) > 0


def test_rounds_have_gates_of_their_own_and_an_inner_residual():
    p, output, _ = applied(Topology(rounds=3))
    x, total = X.astype(np.float64), 0
    for gate in (p["gate"], p["rounds"]["1"], p["rounds"]["2"]):
        y, _ = routed(p["experts"], gate, x)
        total, x = total + y, x + y
    close(output.prediction, total)
    close(output.steps[2].x, X + np.asarray(total) - y)


def test_layers_have_experts_of_their_own_and_the_last_gives_the_outputs():
    p, output, _ = applied(Topology(layers=2), outputs=1)
    below = p["below"]["0"]
    x = X.astype(np.float64)
    x = x + routed(below["experts"], below["gate"], x)[0]
    close(output.prediction, routed(p["experts"], p["gate"], x)[0])
    assert output.prediction.shape == (6, 1)


def test_every_mixture_has_a_row_of_the_state():
    """Each moves by the mean of its own logits."""
    router = routers.himoe(PARTITION, 1, tau=0.0, beta=0.75)
    _, output, state = applied(Topology(rounds=2, layers=2), router=router)
    assert state.shape == (4, 4)
    for row, step in zip(state, output.steps, strict=True):
        close(row, 0.25 * np.asarray(step.routing.logits).mean(axis=0))


def test_the_memory_goes_from_round_to_round_and_layer_to_layer():
    """One cell for all: the last mixture's logits, from every earlier one's tokens."""
    gate = Recurrent(states=2)
    p, output, _ = applied(Topology(rounds=2, layers=2), gate=gate)
    owns = [p["below"]["0"]["gate"], p["below"]["0"]["rounds"]["1"], p["gate"], p["rounds"]["1"]]
    seen = LAYER._seen(p, p, jnp.asarray(X), LABELS, PLAIN)
    for own, step in zip(owns, output.steps, strict=True):
        logits, memory = gate.logits(own, seen._replace(x=step.x))
        close(step.routing.logits, logits)
        seen = seen._replace(memory=memory)


def test_objectives_add_up_over_mixtures_and_see_the_one_above():
    """That of neighbours over pairs; with one mixture there is none."""
    seen = []

    def neighbours(view):
        seen.append((view.routing, view.above))
        return view.routing.logits.sum()

    above = Objective("above", neighbours, needs=frozenset({"above"}))
    alone = Objective("alone", lambda view: view.routing.logits.sum())
    _, output, _ = applied(Topology(rounds=3))
    found = term_values((above, alone), output)
    sums = [float(step.routing.logits.sum()) for step in output.steps]
    close(found["alone"], sum(sums))
    close(found["above"], sum(sums[1:]))
    steps = output.steps
    assert [(a is b.routing, c is d.routing) for (a, c), b, d in zip(seen, steps[1:], steps, strict=False)] == [
        (True, True)
    ] * 2
    with pytest.raises(ValueError, match="above needs `above`"):
        term_values((above,), applied(PLAIN)[1])


def test_costs_are_the_widths():
    cost = Objective("cost", lambda view: view.costs.sum(), needs=frozenset({"costs"}))
    topology = Topology(widths=(1, 5, 3, 2))
    assert float(term_values((cost,), applied(topology)[1], topology.costs)["cost"]) == 11


def test_finer_experts_select_as_many_times_more():
    router = finer(routers.moge(PARTITION, (1, 2)), 3)
    assert router.partition.group_of == (0,) * 3 + (1,) * 6 + (0,) * 3
    assert router.selection == GroupedTopK((3, 6))
    assert finer(routers.gshard(4, 2), 2).routes == 4
    with pytest.raises(ValueError, match="`router` must select a number of experts; got Everything"):
        finer(routers.dense(PARTITION), 2)


def test_arms_of_several_topologies_are_compared_in_one_run():
    """Closed form for the plain one alone; what is around experts changes losses, and every record is finite."""
    layer = Layer(TwoLayer(4))
    around = {"plain": PLAIN, "shared": Topology(shared=1), "nested": Topology(widths=(1, 2, 3, 4), nested=True)}
    every = [Arm(name, ROUTER, {"load": 0.01}, name, topology=one) for name, one in around.items()]
    every.append(dataclasses.replace(every[0], name="twice", topology=Topology(layers=2)))
    training = Training(steps=2, batch=8, records=1, test_tokens=16)
    found = simulate(every, Clusters(dim=3, clusters=2), layer, training, seeds=[0], partners=False)
    final = found["test_loss"].isel(step=-1).values.ravel()
    assert np.isfinite(final).all()
    assert len(set(final.tolist())) == 4
    assert np.isfinite(found["parameter_cosine"]).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Topology(shared=-1), "`shared` must be at least 0; got -1"),
        (lambda: Topology(rounds=0), "`rounds` must be at least 1; got 0"),
        (lambda: Topology(nested=True), "`nested` must come with `widths`"),
        (lambda: applied(Topology(widths=(1, 2))), "`widths` must be one number an expert; got 2 for 4"),
        (lambda: applied(Topology(widths=(1, 2, 3, 6))), "`widths` must be at most the layer's, 5; got 6"),
        (
            lambda: applied(Topology(rounds=2), outputs=1),
            "`rounds` must have as many outputs.*got 1 and 3",
        ),
        (
            lambda: Layer().init(np.random.default_rng(0), 4, 3, 3, topology=Topology(adjugates=1)),
            "`widths` and `adjugates` must have experts with hidden units",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
