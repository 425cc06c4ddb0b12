"""Every router of the library inside a language model."""

import inspect

import jax
import numpy as np
import pytest

from himoe_theory import KeepRandomly, Router, routers
from simulations.arms import INTER, INTRA, LOAD, Arm
from simulations.language.available import available, plain_widths
from simulations.language.program import Program

from .small import PARTITION, corpus, model, recipe

ROUTERS = {
    "dense": routers.dense(PARTITION),
    "gshard": routers.gshard(4, 2, partition=PARTITION),
    "switch": routers.switch(4, partition=PARTITION),
    "st_moe": routers.st_moe(4, 2, KeepRandomly(0.2), partition=PARTITION),
    "loss_free": routers.loss_free(4, 2, partition=PARTITION),
    "moge": routers.moge(PARTITION, 1),
    "himoe": routers.himoe(PARTITION, 1),
    "himoe_paper": routers.himoe_paper(PARTITION, 1),
}


def test_these_are_all():
    made = {
        name
        for name, function in inspect.getmembers(routers, inspect.isfunction)
        if not name.startswith("_") and function.__annotations__.get("return") is Router
    }
    assert made == set(ROUTERS)


@pytest.mark.parametrize("name", ROUTERS)
def test_an_arm_routes_as_it_does(name):
    """Selection, weights and the next state, on logits and a state that separate the routers."""
    logits = jax.random.normal(jax.random.key(0), (32, 4))
    state = 3 * jax.random.normal(jax.random.key(1), (4,))

    def routed(router):
        routing, after = router.step(jax.random.key(2), state.astype(logits.dtype), logits)
        return np.asarray(routing.experts), np.asarray(routing.weights), np.asarray(after)

    def same(router):
        found, expected = routed(router), routed(ROUTERS[name])
        shaped = all(a.shape == b.shape for a, b in zip(found, expected, strict=True))
        # MoGE's arm keeps an average of which it makes nothing.
        parts = 2 if name == "moge" else 3
        return shaped and all(np.allclose(*pair) for pair in zip(found[:parts], expected[:parts], strict=True))

    arms = [arm.name for arm in available(PARTITION).values() if arm.router.partition == PARTITION and same(arm.router)]
    assert arms
    assert name.replace("himoe", "hi-moe").replace("_", "-") in arms


@pytest.mark.parametrize("name", ROUTERS)
def test_a_step_lowers_the_loss_of_its_batch(name):
    of = Program(model(arm=Arm(name, ROUTERS[name], {LOAD: 0.01}, "")), recipe(warmup=0))
    batch = of.cut(corpus().batch(0, 0, 4, 8))
    state, first = of.advance(of.begin(0), *batch)
    gate = np.asarray(state.parameters["layers"]["00"]["moe"]["gate"])
    state, second = of.advance(state, *batch)
    assert first.finite
    assert second.finite
    assert float(second.cross_entropy) < float(first.cross_entropy)
    assert 4 * 8 <= float(first.counts.sum()) <= 4 * 8 * ROUTERS[name].routes
    assert np.abs(gate - of.model.init(0)["layers"]["00"]["moe"]["gate"]).max() > 1e-3


def test_the_papers_form_has_the_numbers_of_hi_moe():
    known = available(PARTITION, tau=0.3, beta=0.5, temperature=2.0, load=0.2, intra=0.4, inter=0.6, capacity=0.5)
    ours, paper = known["hi-moe"], known["hi-moe-paper"]
    assert paper.router.controller == ours.router.controller
    assert ours.terms == {LOAD: 0.2, INTRA: 0.4, INTER: 0.6}
    assert paper.terms == {LOAD: 0.2, "intra_group_global_selection": 0.4, "inter_group_selected": 0.6}
    assert {arm.router.capacity.factor for arm in known.values() if arm.router.capacity} == {0.5}
    without = {name for name, arm in known.items() if arm.router.capacity is None}
    assert without == {"dense", "plain"}
    assert [name for name, arm in known.items() if arm.router.capacity and not arm.router.capacity.even] == [
        "loss-free"
    ]


def test_widths_of_plain_networks():
    assert plain_widths(5, 3) == {"width": 15, "dense_width": 5}
