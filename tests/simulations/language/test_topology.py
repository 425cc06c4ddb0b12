"""Shared experts, adjugates and unequal widths in a language model, against sums over experts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import KeepFirst
from simulations.events import Every
from simulations.gates import Seen
from simulations.language.dispatch import Experts
from simulations.language.plan import count
from simulations.language.weights import to_released
from simulations.schedules import ramp, steps
from simulations.topology import Topology

from .small import arm, model

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 16, (2, 8)), jnp.int32)


def built(topology, **fields):
    return model(arm=dataclasses.replace(arm("guo-none"), topology=topology), **fields)


@pytest.mark.parametrize("dispatch", ["dense", "sorted"])
def test_a_mixture_is_the_sum_of_all_its_parts(dispatch):
    topology = Topology(shared=2, adjugates=3, widths=(8, 1, 4, 2))
    of = built(topology, dispatch=dispatch)
    p = of.init(0)["layers"]["00"]["moe"]
    x = jnp.asarray(np.random.default_rng(1).standard_normal((5, 8)), jnp.float32)
    real = jnp.asarray([True, True, True, True, False])
    state = of.arm.router.init()
    y, layer = of._mixture(p, state, Seen(x, 4), None, None, True, jnp.float32, None, real, None)

    def every(parameters):
        n = parameters["in"]["weight"].shape[0]
        return np.asarray(Experts(of, parameters, jnp.float32).apply(jnp.broadcast_to(x, (n, 5, 8))))

    narrow = jax.tree.map(np.array, {name: p[name] for name in ("in", "out")})
    for e, width in enumerate(topology.widths):
        narrow["out"]["weight"][e, width:] = 0
    combine = np.asarray(layer.routing.combine)
    expected = np.einsum("te,eto->to", combine, every(jax.tree.map(jnp.asarray, narrow)))
    expected += np.asarray(real)[:, None] * every(p["shared"]).sum(axis=0)
    groups = np.stack([combine[:, :3].sum(axis=1), combine[:, 3]], axis=1)
    expected += np.einsum("tg,gto->to", groups, every(p["adjugates"]))
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=1e-6)


def test_coefficients_and_numbers_of_the_router_follow_their_schedules():
    """The value of a term times its factor; as many experts kept as the count says."""
    router = dataclasses.replace(arm("guo-none").router, policy=KeepFirst(1.0))
    given = {"terms": {"z": 1.0}, "router": router}
    of = model(arm=dataclasses.replace(arm("guo-none"), **given))
    acts = {"terms.z": ramp(4), "router.policy.count": steps((0, 2), (2, 1))}
    scheduled = model(arm=dataclasses.replace(arm("guo-none"), **given, schedules=acts))
    parameters, state = of.init(0), of.init_state()
    _, plain = of.loss(parameters, state, TOKENS, TOKENS, step=1)
    for step, share, kept in ((1, 0.25, 2), (3, 0.75, 1)):
        _, aux = scheduled.loss(parameters, state, TOKENS, TOKENS, step=step)
        np.testing.assert_allclose(aux.terms["z"], share * plain.terms["z"], rtol=1e-6)
        assert float(aux.counts.sum()) == kept * TOKENS.size


def test_what_is_always_on_is_counted_as_active():
    plain, of = built(Topology()), built(Topology(shared=2, adjugates=3))
    one = 2 * 8 * 8 + 8 + 8
    added = 2 * one + 2 * (2 * 8 * 3 + 3 + 8)
    assert [a - b for a, b in zip(count(of)[:2], count(plain)[:2], strict=True)] == [added, added]
    assert count(of)[2] - count(plain)[2] == 2 * 2 * 8 * 8 + 2 * 2 * 8 * 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: model(arm=dataclasses.replace(arm(), schedules={"updates.gate": ramp(1)})),
            "must be of terms and router; got 'updates.gate'",
        ),
        (lambda: model(arm=dataclasses.replace(arm(), events=(Every(1, max),))), "`events` must be left.*got 1"),
        (lambda: built(Topology(rounds=2)), "must leave `rounds` to the small layer; got 2"),
        (lambda: built(Topology(widths=(1, 2, 3, 9))), "`widths` must be at most the layer's, 8; got 9"),
        (lambda: built(Topology(shared=1), devices=(2, 1), dispatch="sorted"), "must be plain on several devices"),
        (lambda: to_released(built(Topology(shared=1)), {}), "need a plain mixture; got Topology"),
    ],
)
def test_what_a_language_model_cannot_have_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
