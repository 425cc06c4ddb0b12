"""Every gate in the small layer and in a language model: what it sees, what it learns, and that all else starts the
same."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import TopK, gates, routers
from simulations import Arm, Layer, Training, TwoLayer, simulate
from simulations.data import Clusters
from simulations.gates import (
    GATES,
    Cosine,
    ExpertNorm,
    Frozen,
    Gate,
    Jittered,
    Linear,
    Pairs,
    Planted,
    Recurrent,
    Seen,
    Shared,
    Table,
    TwoLevel,
)

RNG = np.random.default_rng(5)
X = RNG.standard_normal((7, 16)).astype(np.float32)
LABELS = jnp.asarray([0, 9, 3, 3, 7, 1, 2], jnp.int32)
ROUTER = routers.gshard(8, 2)
LAYER = Layer(gate_std=1.0)
PAGE = Path(__file__).parents[2] / "docs" / "decisions" / "0020-gates-and-topologies.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def started(gate, layer=LAYER):
    return jax.tree.map(jnp.asarray, layer.init(np.random.default_rng(0), 8, 16, 1, gate))


def applied(gate, parameters, *, training=True, key=0, layer=LAYER):
    state = jnp.zeros(8, jnp.float32)
    x, noise = jnp.asarray(X), jax.random.key(key)
    output, _ = layer.apply(parameters, ROUTER, gate, state, x, LABELS, key=noise, training=training)
    return output


@pytest.mark.parametrize("name", [name for name in GATES if name != "table"])
def test_every_gate_routes_and_learns_what_it_says(name):
    """Gradients reach its parameters if and only if it learns; experts start as they do under a linear gate."""
    gate = GATES[name]()
    parameters = started(gate)
    gradient = jax.grad(lambda p: jnp.square(applied(gate, p).prediction - 1).sum())(parameters)
    if name == "recurrent":
        del gradient["shared_gate"]["states"]  # multiplies the memory, which is 0 at the first layer
    own = [gradient["gate"], gradient.get("shared_gate")]
    moved = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(own)]
    assert all(size > 0 for size in moved) if gate.learns else not any(moved)
    assert len(moved) > 0 or name in ("planted", "expert-norm")
    for found, expected in zip(*(jax.tree.leaves(p["experts"]) for p in (parameters, started(Linear()))), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_gates_around_a_gate_start_as_it_does():
    alone = np.asarray(started(Linear())["gate"])
    np.testing.assert_array_equal(started(Frozen())["gate"], alone)
    np.testing.assert_array_equal(started(Jittered())["gate"], alone)
    np.testing.assert_array_equal(started(Shared())["shared_gate"]["own"], alone)
    np.testing.assert_array_equal(started(Cosine())["gate"]["rows"], alone)


def test_what_a_gate_around_a_gate_answers():
    assert (Frozen().is_linear, Frozen().learns) == (True, False)
    assert (Jittered().is_linear, Jittered().learns, Jittered().is_random) == (False, True, True)
    assert Frozen(Jittered(Planted())).needs == {"labels"}
    assert Frozen(Jittered(Planted())).is_random
    assert not Shared().is_linear


def test_experts_see_the_token_and_the_gate_its_noise():
    """Outside training there is none; in training each expert's output is the same whatever the key, logits are not."""
    gate = Jittered(epsilon=0.5)
    parameters = started(gate)
    quiet, one, other = (applied(gate, parameters, training=t, key=k) for t, k in ((False, 0), (True, 1), (True, 2)))
    plain = applied(Linear(), parameters)
    np.testing.assert_array_equal(quiet.routing.logits, plain.routing.logits)
    assert float(jnp.abs(one.routing.logits - other.routing.logits).min()) > 0
    for found in (one, other):
        np.testing.assert_array_equal(found.experts, plain.experts)


def test_experts_choose_themselves_by_their_first_map():
    layer = Layer(TwoLayer(3))
    parameters = started(ExpertNorm(), layer)
    expected = [[np.linalg.norm(x @ w) for w in np.asarray(parameters["experts"]["in"])] for x in X]
    found = applied(ExpertNorm(), parameters, layer=layer).routing.logits
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_frozen_gate_passes_the_gradient_of_its_tokens():
    parameters = started(Frozen())["gate"]

    def total(gate, x, parameters):
        return (gate.logits(parameters, Seen(x, 8))[0] ** 2).sum()

    for argument, same in ((1, True), (2, False)):
        through, plain = (jax.grad(total, argument)(gate, jnp.asarray(X), parameters) for gate in (Frozen(), Linear()))
        assert np.array_equal(through, plain) == same


def test_ids_have_their_expert_whatever_the_token():
    gate = Table(table=(3, 1, 4))
    logits, memory = gate.logits({}, Seen(jnp.asarray(X[:4]), 5, ids=jnp.asarray([0, 1, 2, 4]), memory="kept"))
    assert logits.argmax(axis=1).tolist() == [3, 1, 4, 1]
    assert memory == "kept"
    drawn, _ = Table(vocabulary=100).logits({}, Seen(jnp.asarray(X), 5, ids=jnp.arange(7)))
    assert drawn.argmax(axis=1).tolist() == gates.hashed(100, 5)[:7].tolist()


def test_the_memory_is_the_cell_s_state():
    gate = Recurrent(states=3)
    parameters = started(gate)
    seen = Seen(jnp.asarray(X), 8, shared=parameters["shared_gate"])
    _, first = gate.logits(parameters["gate"], seen)
    logits, second = gate.logits(parameters["gate"], seen._replace(memory=first))
    inputs = X @ np.asarray(parameters["gate"]["projection"]).T
    cell = gates.Cell(**parameters["shared_gate"])
    np.testing.assert_allclose(second, gates.recur(cell, jnp.asarray(inputs), first), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, second @ parameters["gate"]["rows"].T, rtol=1e-5, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Halves(Gate):
    """A gate as a user writes one: one matrix for positive entries, one for negative ones."""

    def init(self, draw, num_experts, dim):
        return {"up": draw(num_experts, dim), "down": draw(num_experts, dim)}

    def logits(self, parameters, seen):
        up, down = jnp.maximum(seen.x, 0), jnp.minimum(seen.x, 0)
        return up @ parameters["up"].T + down @ parameters["down"].T, seen.memory


def test_arms_of_several_gates_are_compared_in_one_run():
    """A user's among them."""
    every = [Arm(name, ROUTER, {"load": 0.01}, name, gate) for name, gate in (("a", "learned"), ("b", Halves()))]
    found = simulate(every, Clusters(), LAYER, Training(steps=2, batch=8, records=1, test_tokens=16), seeds=[0])
    losses = found["test_loss"].isel(step=-1)
    assert np.isfinite(losses).all()
    assert (losses.sel(arm="a") != losses.sel(arm="b")).all()


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_decision_runs(example):
    exec(example, {"__name__": "example"})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Arm("a", ROUTER, {}, "", "cosin"), "`gate` must be a gate, such as Cosine.*learned.*got 'cosin'"),
        (lambda: Arm("a", ROUTER, {}, "", Cosine), "`gate` must be a gate"),
        (lambda: started(Table()), "`gate` must do without ids in the small layer; got Table"),
        (lambda: Cosine(temperature=0.0), "`temperature`.*0"),
        (lambda: Jittered(epsilon=-0.5), "`epsilon`.*-0.5"),
        (lambda: started(Pairs(rows=3)), "`rows` must divide the experts; got 3 rows, 8 experts"),
        (lambda: started(TwoLevel(groups=3)), "`num_groups` must divide.*8 experts, 3 groups"),
        (lambda: started(TwoLevel((0, 1))), "partition has 2 experts, `gate` has 8"),
        (lambda: Table((9,)).init(np.zeros, 8, 16), "`table` must name experts below 8; got 9"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_selection_of_two_from_two_levels_has_both_factors():
    """The mass of a group is its own softmax, whatever the experts' logits."""
    gate = TwoLevel(4)
    parameters = started(gate)
    logits = LAYER.logits(parameters, gate, jnp.asarray(X), LABELS)
    groups = X @ np.asarray(parameters["gate"]["groups"]).T
    mass = jnp.exp(logits).reshape(7, 4, 2).sum(axis=2)
    np.testing.assert_allclose(mass, jax.nn.softmax(jnp.asarray(groups)), rtol=1e-5)
    assert TopK(2).routes(ROUTER.partition) == 2
