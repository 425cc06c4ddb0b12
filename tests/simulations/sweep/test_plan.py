"""What shares a program: numbers, which it is given; and that nothing else about them is in it."""

import dataclasses

import jax
import numpy as np
import pytest

from himoe_theory import Renormalised, SoftmaxThenMask
from simulations.data import KINDS, Clusters, Patches, SingleIndex, Streams
from simulations.gates import Frozen, Planted
from simulations.sweep import drawn, grid, listed
from simulations.sweep.plan import pieces, plan
from simulations.training import Training, shared_program

NUMBERS = {
    "terms.z": [0.0, 0.1, 0.3],
    "training.learning_rate": [0.001, 0.01, 0.1],
    "layer.gate_std": [0.0, 0.1, 1.0],
    "layer.expert.init_std": [0.0, 0.1, 1.0],
    "router.controller.tau": [0.0, 0.1, 1.0],
    "data.mean": [0.0, 1.0, 2.0],
}
OTHER = {
    "single-index": SingleIndex(radius=1.5, noise=0.7, leak=0.3),
    "patches": Patches(signal=(1.0, 3.0), centre=(0.5, 0.7), distraction=(2.0, 2.5), noise=0.3, scale=2.0),
    "clusters": Clusters(radius=1.0, noise=0.1, mean=0.3, shared=0.5, overlap=0.2, anisotropy=3.0),
    "streams": Streams(radius=1.0, noise=0.1, mean=0.3, shared=0.5, overlap=0.2, anisotropy=3.0, dwell=3.0),
}


@pytest.mark.parametrize("field", NUMBERS)
def test_numbers_share_one_program(field):
    chunks = plan(grid({field: NUMBERS[field]}, seeds=1, partners=False))
    assert sum(chunk.runs for chunk in chunks) == 3
    assert len({chunk.program for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("field", "values"),
    [("training.batch", [8, 256]), ("data.dim", [16, 17]), ("layer.learn_scale", [False, True]), ("gate", ["frozen"])],
)
def test_what_is_no_number_does_not(field, values):
    chunks = plan(grid({field: values}, seeds=1, partners=False)) + plan(grid({}, seeds=1, partners=False))
    assert len({chunk.program for chunk in chunks}) == 2


@pytest.mark.parametrize("kind", OTHER)
def test_numbers_of_data_reach_batches_through_the_truth_alone(kind):
    """Batches of the program's data and this data's truth are this data's batches, and not those of default data."""
    data, default = OTHER[kind], KINDS[kind]()
    (setting,) = grid({}, fixed={"data.kind": kind}).settings()
    inside = shared_program([dataclasses.replace(setting, data=data)]).source.data
    assert inside == default
    assert {name for name in data.in_truth if getattr(data, name) == getattr(default, name)} == set()
    truth, key = data.truth(np.random.default_rng(0)), jax.random.key(1)
    found, expected = (jax.jit(one.draw, static_argnums=2)(truth, key, 64) for one in (inside, data))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    other = jax.jit(default.draw, static_argnums=2)(default.truth(np.random.default_rng(0)), key, 64)
    assert np.abs(np.asarray(other.x) - np.asarray(expected.x)).max() > 0.1


def test_random_data_fill_chunks():
    """Each setting has a data set of its own: 166 of them, 36 to a chunk, evenly."""
    chunks = plan(drawn(166, {"data.mean": {"uniform": [0.0, 4.0]}}, seeds=1, partners=False))
    assert [chunk.runs for chunk in chunks] == [34, 34, 34, 34, 30]
    assert len({chunk.program for chunk in chunks}) == 1
    assert {len(row.settings) for chunk in chunks for row in chunk.rows} == {1}


@pytest.mark.parametrize(
    ("fields", "seeds", "runs"),
    [
        ({"terms.z": [0.0, 0.1, 0.2, 0.3]}, 1, [1, 1, 1, 1]),
        ({"data.mean": [0.0, 2.0, 4.0]}, 4, [3, 3, 3, 3]),
        ({"terms.z": [0.0, 0.1]}, 8, [4, 4, 4, 4]),
        ({"terms.z": [0.0, 0.1]}, 1, [1, 1]),
    ],
)
def test_a_small_sweep_is_several_chunks_of_one_program(fields, seeds, runs):
    """So that a kill loses a quarter of it at the most."""
    chunks = plan(grid(fields, seeds=seeds, partners=False))
    assert [chunk.runs for chunk in chunks] == runs
    assert len({chunk.program for chunk in chunks}) == 1


def test_rows_are_as_wide_as_is_cheapest():
    """Twelve settings on one data set and one on each of five: padding these to twelve would cost 55 runs."""
    means = [0.0] * 12 + [1.0, 2.0, 3.0, 4.0, 5.0]
    chunks = plan(listed({"data.mean": means, "terms.z": [0.01 * i for i in range(17)]}, seeds=4, partners=False))
    padded = sum(len(row.settings) for chunk in chunks for row in chunk.padded)
    assert padded == 4 * 17


def test_pieces_of_a_long_stride_are_its_divisors():
    """Found without trying every number: the second stride is a prime of ten digits."""
    training = Training(steps=2**31 - 2, records=1, batch=256)
    parts = pieces(Clusters(), training, 1)
    assert training.stride % parts == 0
    assert training.stride // parts * 4 * 256 * 18 <= 2**25
    smaller = [n for n in range(1, min(parts, 10**6)) if training.stride % n == 0]
    assert all(training.stride // n * 4 * 256 * 18 > 2**25 for n in smaller)
    assert pieces(Clusters(), Training(steps=2**31 - 1, records=1), 1) == 2**31 - 1


def test_partners_are_shared_by_all_objectives():
    """Five coefficients and two rates of the controller at two means, three seeds: one frozen partner for each rate and
    mean, and one planted for each mean."""
    axes = {"terms.load_per_token": [0.0, 0.1, 0.2, 0.3, 0.4], "router.controller.tau": [0.0, 0.1], "data.mean": [0, 4]}
    design = grid(axes, seeds=3)
    every, places = design.every()
    assert len(every) == 20 + 4 + 2
    assert sum(chunk.runs for chunk in plan(design)) == 3 * 26
    for setting, place in zip(every, places, strict=False):
        (frozen, same), planted = [every[p] for p in place.frozen], every[place.planted]
        assert same is frozen
        assert (frozen.data, planted.data) == (setting.data, setting.data)
        assert frozen.arm.router.controller == setting.arm.router.controller
        assert (frozen.arm.gate, frozen.arm.terms) == (Frozen(), {})
        assert planted.arm.gate == Planted()
    assert sum(chunk.runs for chunk in plan(grid(axes, seeds=3, partners=False))) == 3 * 20


def test_partners_of_many_settings_have_short_names_of_their_own():
    """Each learning rate has partners of its own, and all arms have one name."""
    every, _ = grid({"training.learning_rate": np.linspace(0.001, 0.01, 60).tolist()}, seeds=1).every()
    names = [setting.arm.name for setting in every[60:]]
    assert len(set(names)) == len(names) == 120
    assert max(map(len, names)) < 25


def test_weights_that_do_not_sum_to_one_have_a_partner_whose_weights_do():
    every, [((own, renormalised), planted)] = grid({}, fixed={"arm": "switch"}, seeds=1).every()
    assert every[own].arm.router.weighting == SoftmaxThenMask()
    assert every[renormalised].arm.router.weighting == Renormalised()
    assert len(every) == planted + 1 == 4
