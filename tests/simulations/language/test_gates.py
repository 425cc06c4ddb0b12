"""Gates in a language model: each layer's logits, one by one, from what its gate saw."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import gates
from simulations.gates import Cosine, ExpertNorm, Frozen, Gaussians, Jittered, Linear, Recurrent, Seen, Shared, Table
from simulations.language.plan import count
from simulations.language.recipe import decays
from simulations.language.weights import to_released

from .small import arm, model

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 16, (2, 8)), jnp.int32)


def gated(gate, layers=2):
    return model(arm=dataclasses.replace(arm("guo-none"), gate=gate), layers=layers)


def routed(of, parameters, **given):
    _, aux = of.loss(parameters, of.init_state(), TOKENS, TOKENS, records=True, **given)
    return aux


@pytest.mark.parametrize("gate", [Recurrent(states=3), Shared(Cosine()), Table(seed=1), ExpertNorm()], ids=str)
def test_logits_are_those_of_what_the_gate_sees(gate):
    """The memory goes from layer to layer, shared parameters are the same in both, ids are the tokens."""
    of = gated(gate)
    parameters = of.init(0)
    aux = routed(of, parameters)
    memory = None
    for row, name in enumerate(("00", "01")):
        own = parameters["layers"][name]["moe"]
        shown = {"memory": memory, "experts": own["in"]["weight"], "shared": parameters.get("gate")}
        seen = Seen(aux.hidden[row], 4, TOKENS.ravel(), **shown)
        logits, memory = gate.logits(own["gate"], seen)
        np.testing.assert_allclose(aux.routing[row].logits, logits, rtol=1e-5, atol=1e-6)
    if isinstance(gate, Table):
        chosen = np.asarray(aux.routing[1].logits).argmax(axis=1)
        np.testing.assert_array_equal(chosen, gates.hashed(65536, 4, seed=1)[np.asarray(TOKENS).ravel()])


def test_noise_is_in_training_only_and_needs_no_router_that_is_random():
    of = gated(Jittered(epsilon=0.3), layers=1)
    parameters, key = of.init(0), jax.random.key(0)
    quiet = routed(of, parameters, key=key, training=False).routing[0].logits
    noisy = routed(of, parameters, key=key).routing[0].logits
    plain = routed(gated(Linear(), layers=1), parameters, training=False).routing[0].logits
    np.testing.assert_array_equal(quiet, plain)
    assert float(jnp.abs(noisy - plain).min()) > 0
    assert of.arm.is_random


def test_all_else_starts_the_same_whatever_the_gate():
    """And shapes, parameters counted and the weights that decay are those of what is drawn."""
    plain = gated(Linear()).init(0)
    for gate in (Cosine(width=3), Gaussians(), Recurrent(), Shared()):
        of = gated(gate)
        found = of.init(0)
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(lambda leaf: leaf.shape, of.shapes())
        for layer in ("00", "01"):
            one, other = found["layers"][layer], plain["layers"][layer]
            for part in ("in", "out", "norm"):
                assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one["moe"][part], other["moe"][part])))
            assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one["attention"], other["attention"])))
        assert count(of)[0] == sum(leaf.size for leaf in jax.tree.leaves(found))
        marks = decays(of.shapes(), gate)
        assert jax.tree.leaves(marks["layers"]["01"]["moe"]["gate"]) == [
            leaf.ndim > 1 for leaf in jax.tree.leaves(found["layers"]["01"]["moe"]["gate"])
        ]
        assert not any(jax.tree.leaves(decays(of.shapes(), Frozen(gate))["layers"]["00"]["moe"]["gate"]))


def test_products_of_a_gate_for_all_layers_count_in_each():
    shared, own = count(gated(Shared())), count(gated(Linear()))
    assert own[0] - shared[0] == 4 * 8
    assert own[2] == shared[2]


def test_only_linear_gates_have_released_names():
    of = gated(Cosine(), layers=1)
    with pytest.raises(ValueError, match="need a linear gate; got Cosine"):
        to_released(of, of.init(0))
