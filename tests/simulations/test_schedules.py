"""Schedules and events of training, and interventions after it."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from himoe_theory import KeepFirst, LogitAverage, routers
from simulations import Arm, Clusters, Layer, Training, arms
from simulations.data import Digits
from simulations.events import Every
from simulations.interventions import train
from simulations.losses import task_loss
from simulations.schedules import factor, named, ramp, router_at, steps
from simulations.training import Program, Source, group

DATA = Clusters(dim=4, clusters=3)
TRAINING = Training(steps=4, batch=16, records=4, test_tokens=64)
ROUTER = routers.gshard(4, 2)
PLAIN = Arm("plain", ROUTER, {"load": 1.0}, "")


def program(arm, training=TRAINING):
    (members,) = group([arm])
    given = members.gate, members.terms, (), members.topology, members.schedules, members.events
    return Program(Source(DATA, training), Layer(), *given), members.settings(training, 1)


def states(arm, training=TRAINING):
    of, settings = program(arm, training)
    return [carry for carry, _, _ in of.states(DATA, Layer(), [0], settings)]


def measured(arm, name):
    of, settings = program(arm)
    return [found[name][0, 0] for found, _ in of.run(DATA, Layer(), [0], settings)]


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.array_equal(x, y)), a, b))


def test_steps_and_ramps_by_hand():
    stairs = steps((0, 8.0), (3, 2.0), (5, 1.0))
    assert [float(stairs(t)) for t in range(7)] == [8, 8, 8, 2, 2, 1, 1]
    assert [float(ramp(4)(t)) for t in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert stairs == steps((0, 8.0), (3, 2.0), (5, 1.0))  # so that equal arms share a program
    assert float(factor(optax.linear_schedule(2.0, 0.0, 10), jnp.int32(5))) == 1


@pytest.mark.parametrize("path", ["advance_in_closed_form", "advance_by_autodiff"])
def test_a_scheduled_number_is_that_number_at_its_step(path):
    """Four steps at once, against four programs of one step each whose numbers are those of the schedule."""
    router = routers.himoe(ROUTER.partition, 2, tau=0.5)
    scales = {
        "terms.load": ramp(4),
        "router.controller.temperature": steps((0, 1.0), (2, 3.0)),
        "training.learning_rate": steps((0, 1.0), (3, 0.1)),
    }
    arm = dataclasses.replace(PLAIN, router=router, schedules=scales)
    whole = dataclasses.replace(TRAINING, records=1)
    of, settings = program(arm, whole)
    keys, seeds = jax.random.key(0)[None], [0]
    truths = of.source.truths(seeds)
    batches = of.source.block(truths, keys, jnp.int32(0))
    rest = (keys, jnp.int32(0)) if path == "advance_by_autodiff" else (jnp.int32(0),)
    found = getattr(of, path)(of.begin(seeds, settings), settings, batches, *rest)

    carry = of.begin(seeds, settings)
    for t in range(4):
        now = dataclasses.replace(
            arm,
            schedules={},
            terms={"load": float(scales["terms.load"](t))},
            router=router_at(router, named(scales), t),
        )
        rate = 0.1 if t == 3 else 1.0
        one = dataclasses.replace(TRAINING, steps=1, records=1, learning_rate=TRAINING.learning_rate * rate)
        single, numbers = program(now, one)
        batch = jax.tree.map(lambda leaf, t=t: leaf[t : t + 1], batches)
        rest = (keys, jnp.int32(t)) if path == "advance_by_autodiff" else (jnp.int32(t),)
        carry = getattr(single, path)(carry, numbers, batch, *rest)
    for a, b in zip(jax.tree.leaves(found.parameters), jax.tree.leaves(carry.parameters), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_number_of_experts_falls():
    """Measured with the number that the next step has."""
    router = dataclasses.replace(ROUTER, policy=KeepFirst(1.0))
    arm = dataclasses.replace(PLAIN, router=router, schedules={"router.policy.count": steps((0, 2), (3, 1))})
    np.testing.assert_allclose([load.sum() for load in measured(arm, "hard_load")], [2, 2, 2, 1, 1], rtol=1e-6)


def test_gate_and_experts_can_move_in_turn():
    """The parameters of one kind are held in every second step."""
    turns = {"updates.gate": lambda t: t % 2, "updates.experts": lambda t: 1 - t % 2}
    found = states(dataclasses.replace(PLAIN, schedules=turns))
    for t, (before, after) in enumerate(itertools.pairwise(found)):
        for name, moves in (("gate", t % 2 == 1), ("experts", t % 2 == 0)):
            assert same(before.parameters[name], after.parameters[name]) != moves


def test_events_come_when_they_say_and_see_one_run():
    seen = []

    def look(carry, batch):
        seen.append((carry.parameters["gate"].shape, None if batch is None else batch.x.shape))
        return carry

    found = states(dataclasses.replace(PLAIN, events=(Every(0, look), Every(2, look))))
    assert seen == [((4, 4), None), ((4, 4), (16, 4)), ((4, 4), (16, 4))]
    for a, b in zip(found, states(PLAIN), strict=True):  # an event that changes nothing changes nothing
        for x, y in zip(jax.tree.leaves(a.parameters), jax.tree.leaves(b.parameters), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-6)  # by autodiff, and in closed form


def close_first(carry, batch):
    return dataclasses.replace(carry, limits=carry.limits.at[0].set(False))


def open_all(carry, batch):
    return dataclasses.replace(carry, limits=jnp.ones_like(carry.limits))


def test_experts_are_closed_and_opened():
    """Closed from the start, opened after three steps: until then none of them moves."""
    arm = dataclasses.replace(PLAIN, events=(Every(0, close_first), Every(3, open_all)))
    loads = measured(arm, "hard_load")
    assert [load[0] > 0 for load in loads] == [False, False, False, True, True]
    np.testing.assert_allclose([load.sum() for load in loads], 2, rtol=1e-6)
    found = states(arm)
    first = [carry.parameters["experts"]["weight"][0, 0, 0] for carry in found]
    assert same(first[0], first[3])
    assert not same(first[3], first[4])


def drop_label(carry, batch):
    return dataclasses.replace(carry, weights=carry.weights.at[1].set(0.0))


def test_tokens_of_a_label_can_be_left_out_of_the_loss():
    found = train(dataclasses.replace(PLAIN, terms={}, events=(Every(0, drop_label),)), DATA, Layer(), TRAINING, [0])
    assert float(found.carry.weights[0, 0, 1]) == 0
    rng = np.random.default_rng(0)
    prediction, y = (jnp.asarray(rng.normal(size=(4, 2))) for _ in range(2))
    weights = jnp.asarray([1.0, 0.0, 3.0, 0.0])
    by_hand = ((prediction[0] - y[0]) ** 2).mean() / 2 + 3 * ((prediction[2] - y[2]) ** 2).mean() / 2
    np.testing.assert_allclose(task_loss(DATA, prediction, y, weights), by_hand / 4)
    np.testing.assert_allclose(task_loss(DATA, prediction, y, jnp.ones(4)), task_loss(DATA, prediction, y))
    labels = jax.nn.one_hot(jnp.arange(4) % 2, 2, dtype=prediction.dtype)
    np.testing.assert_allclose(
        task_loss(Digits(), prediction, labels, jnp.ones(4)), task_loss(Digits(), prediction, labels)
    )


def test_interventions_after_training():
    arm = dataclasses.replace(PLAIN, router=dataclasses.replace(ROUTER, controller=LogitAverage(0.1, 0.9)))
    trained = train(arm, DATA, Layer(), TRAINING, [0, 1])
    of, settings = program(arm)
    *_, (last, _) = of.run(DATA, Layer(), [0], settings)
    plain = trained.measured()
    np.testing.assert_allclose(plain["test_loss"][0], last["test_loss"][0, 0], rtol=1e-6)
    closed = trained.measured(limits=jnp.asarray([True, False, True, True]))
    assert (closed["hard_load"][:, 1] == 0).all()
    drawn = trained.measured(offset=jnp.asarray([0.0, 0.0, 1e3, 0.0]))
    assert (drawn["hard_load"][:, 2] == 1).all()
    single = trained.measured(router=routers.gshard(4, 1))
    np.testing.assert_allclose(single["hard_load"].sum(axis=1), 1, rtol=1e-6)
    assert (single["test_loss"] != plain["test_loss"]).all()


def shrink(carry, batch):
    return dataclasses.replace(carry, limits=carry.limits[1:])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: steps((1, 2.0)), "`steps` must begin at 0 and rise; got 1"),
        (lambda: steps((0, 2.0), (0, 1.0)), "`steps` must begin at 0 and rise; got 0, 0"),
        (lambda: ramp(0), "`steps` must be at least 1; got 0"),
        (lambda: dataclasses.replace(PLAIN, schedules={"terms.z": ramp(1)}), "got 'terms.z', known are terms.load"),
        (
            lambda: dataclasses.replace(arms()["hi-moe"], schedules={"router.selection.k": ramp(1)}),
            "got 'router.selection.k'.*router.controller.tau",
        ),
        (lambda: dataclasses.replace(PLAIN, schedules={"terms.load": 3}), "must be a function of the step; got 3"),
        (lambda: Every(-1, shrink), "`steps` must be at least 0; got -1"),
        (
            lambda: states(dataclasses.replace(PLAIN, events=(Every(3, shrink),)), Training(steps=4, records=2)),
            "`events` must come at records, every 2 steps; got 3",
        ),
        (lambda: states(dataclasses.replace(PLAIN, events=(Every(0, shrink),))), "must keep the shapes and types"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
