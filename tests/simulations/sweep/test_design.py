"""Designs: what a file says is what runs, and every mistake is one line with its field, rule and value."""

import dataclasses
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from simulations import Clusters, Digits, Training, TwoLayer, arms
from simulations.data import KINDS, Streams
from simulations.sweep import Design, build, drawn, grid, known, listed, read_design
from simulations.sweep.plan import plan


def read(tmp_path, text):
    path = tmp_path / "d.toml"
    path.write_text(text)
    return read_design(path)


def test_a_grid_crosses_its_axes_and_the_last_varies_fastest(tmp_path):
    text = """
        seeds = [3, 1]
        [fixed]
        arm = "gshard"
        [grid]
        data.mean = [0, 2.5]
        router.groups = [2, 4, 8]
    """
    found = read(tmp_path, text)
    assert found == grid({"data.mean": [0.0, 2.5], "router.groups": [2, 4, 8]}, fixed={"arm": "gshard"}, seeds=[3, 1])
    assert found.shape == {"data.mean": 2, "router.groups": 3}
    got = [(s.data.mean, s.arm.router.partition.num_groups) for s in found.settings()]
    assert got == [(0.0, 2), (0.0, 4), (0.0, 8), (2.5, 2), (2.5, 4), (2.5, 8)]


def test_a_list_takes_its_fields_together(tmp_path):
    found = read(tmp_path, '[list]\narm = ["moge", "dense"]\ntraining.learning_rate = [0.01, 0.1]')
    assert found == listed({"arm": ["moge", "dense"], "training.learning_rate": [0.01, 0.1]})
    assert [(s.arm.name, s.training.learning_rate) for s in found.settings()] == [("moge", 0.01), ("dense", 0.1)]


def test_random_values_lie_where_they_should_and_do_not_depend_on_other_fields(tmp_path):
    text = """
        [random]
        samples = 200
        seed = 4
        data.mean = { uniform = [1.0, 2.0] }
        terms.z = { log_uniform = [1e-4, 1.0] }
        router.groups = { choice = [2, 4] }
        data.dim = { integers = [9, 11] }
    """
    found = read(tmp_path, text)
    mean, z = (np.asarray(found.axes[name]) for name in ("data.mean", "terms.z"))
    # Means over 200: four standard errors are 0.082 and 0.188 (false alarms: 1 in 10,000).
    assert mean.min() >= 1
    assert mean.max() <= 2
    assert abs(mean.mean() - 1.5) < 0.082
    assert abs(np.log10(z).mean() + 2) < 4 * 4 / (12 * 200) ** 0.5
    assert set(found.axes["router.groups"]) == {2, 4}
    assert set(found.axes["data.dim"]) == {9, 10, 11}
    # Independent of each other: the correlation of 200 pairs has standard error 0.07.
    assert abs(np.corrcoef(mean, np.log(z))[0, 1]) < 0.28
    fewer = drawn(200, {"terms.z": {"log_uniform": [1e-4, 1.0]}}, seed=4)
    assert fewer.axes["terms.z"] == found.axes["terms.z"]
    assert drawn(200, {"terms.z": {"log_uniform": [1e-4, 1.0]}}, seed=5).axes != fewer.axes


def test_arrays_and_their_scalars_stand_for_lists_and_numbers():
    """They must also be numbers of Python's: a store keeps its design as JSON."""
    found = grid(
        {"data.mean": np.linspace(0.0, 4.0, 3), "data.dim": np.array([8, 9]), "data.priors": np.array([[0.25, 0.75]])},
        fixed={"data.clusters": np.int64(2), "arm": np.str_("moge"), "terms.z": jnp.asarray(0.5)},
        seeds=np.arange(2, 5),
    )
    plain = grid(
        {"data.mean": [0.0, 2.0, 4.0], "data.dim": range(8, 10), "data.priors": [[0.25, 0.75]]},
        fixed={"data.clusters": 2, "arm": "moge", "terms.z": 0.5},
        seeds=[2, 3, 4],
    )
    assert json.dumps(found.to_json()) == json.dumps(plain.to_json())
    assert listed({"data.mean": [np.float64(1.5)]}, seeds=np.int32(3)) == listed({"data.mean": [1.5]}, seeds=3)
    between = drawn(5, {"data.mean": {"uniform": np.array([1.0, 2.0])}})
    assert between == drawn(5, {"data.mean": {"uniform": [1.0, 2.0]}})
    with pytest.raises(ValueError, match=r"`data.mean` in \[grid\] must be a list of at least one value; got 3.0"):
        grid({"data.mean": np.float64(3.0)})


def test_the_largest_bounds_can_be_drawn_from():
    bounds = {"data.mean": {"uniform": [-8.9e307, 8.9e307]}, "data.dim": {"integers": [-(2**63), 2**63 - 1]}}
    found = drawn(50, bounds)
    assert np.isfinite(found.axes["data.mean"]).all()
    # Every one of 50 in the same half: 1 in 10^14.
    assert min(found.axes["data.dim"]) < 0 < max(found.axes["data.dim"])


def test_many_seeds_are_checked_in_linear_time():
    """By pairs these would take minutes."""
    began = time.process_time()
    assert len(grid({"data.mean": [1.0]}, seeds=100_000).seeds) == 100_000
    assert time.process_time() - began < 10


def test_every_field_reaches_the_setting():
    setting = build(
        {
            "arm": "moge-bias",
            "terms.z": 0.5,
            "terms.load_per_token": 0.25,
            "router.experts": 6,
            "router.groups": 2,
            "router.per_group": 2,
            "router.controller.tau": 0.5,
            "router.controller.beta": 0.25,
            "router.controller.temperature": 2.0,
            "data.priors": (0.5, 0.25, 0.25),
            "data.clusters": 3,
            "data.target": "quadratic",
            "layer.gate_std": 0.5,
            "layer.expert.kind": "two-layer",
            "layer.expert.width": 3,
            "training.steps": 12,
        }
    )
    assert setting.arm.terms == {"load_per_token": 0.25, "z": 0.5}
    assert setting.arm.router.partition.sizes == (3, 3)
    assert setting.arm.router.routes == 4
    controller = setting.arm.router.controller
    assert (controller.tau, controller.beta, controller.temperature) == (0.5, 0.25, 2.0)
    assert setting.data == Clusters(clusters=3, priors=(0.5, 0.25, 0.25), target="quadratic")
    assert (setting.layer.gate_std, setting.layer.expert) == (0.5, TwoLayer(3))
    assert setting.training == Training(steps=12, records=1)


def test_fields_that_are_not_given_have_their_defaults():
    setting = build({"data.kind": "digits"})
    assert setting.data == Digits()
    assert setting.training == Training(records=1)
    assert dict(setting.arm.terms) == dict(arms()["hi-moe"].terms)


def test_a_design_survives_json_with_the_order_of_its_axes():
    design = grid(
        {"terms.z": [0.1, 0.3], "data.mean": [1.0]}, fixed={"data.priors": [0.25, 0.75], "data.clusters": 2}, seeds=2
    )
    again = Design.from_json(json.loads(json.dumps(design.to_json(), sort_keys=True)))
    assert again == design
    assert list(again.axes) == ["terms.z", "data.mean"]


def test_chunks_hold_every_run_once_in_one_shape_a_program():
    design = grid(
        {"arm": ["moge", "moge-intra", "gshard"], "data.mean": [0.0, 1.0, 4.0], "terms.z": [0.0, 0.1, 0.2]}, seeds=5
    )
    chunks = plan(Design(design.axes, {}, design.seeds, runs_per_chunk=7, partners=False))
    settings = design.settings()
    held = [(point, row.seed) for c in chunks for row in c.rows for point in row.points]
    assert sorted(held) == [(point, seed) for point in range(27) for seed in range(5)]
    shapes = {}
    for chunk in chunks:
        shape = (len(chunk.rows[0].settings), len(chunk.padded))
        assert shape[0] * shape[1] <= 7
        shapes.setdefault((chunk.program.terms, chunk.rows[0].settings[0].arm.router.selection), set()).add(shape)
        for row in chunk.rows:
            assert {settings[point].data for point in row.points} == {row.data}
    # moge and moge-intra share a program (6 settings a mean); gshard has its own (3 settings a mean, 2 seeds).
    assert sorted(next(iter(s)) for s in shapes.values()) == [(3, 2), (6, 1)]
    assert all(len(s) == 1 for s in shapes.values())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[grid]\ndata.meen = [1.0]",
            r"`data.meen` in \[grid\] must be a field; got 1.0, known are data.kind, data.clu",
        ),
        (
            "[fixed]\nterms.lode = 1",
            r"`terms.lode` in \[fixed\] must be a field; got 1, known are .*terms.load_per_tok",
        ),
        ("[grid]\nrouter.experts = [8, 8.5]", r"`router.experts` in \[grid\] must be a whole number; got 8.5"),
        ("[grid]\ndata.mean = [1, true]", r"`data.mean` in \[grid\] must be a number; got True"),
        ("[fixed]\ndata.target = 'cubic'", "must be one of linear, single-index, quadratic; got 'cubic'"),
        ("[fixed]\ndata.factors = [2, 2, 2]", r"must be a list of 2 whole numbers; got \[2, 2, 2\]"),
        ("[fixed]\ndata.priors = '1'", "`data.priors` in .* must be a list of numbers; got '1'"),
        ("[grid]\ndata.mean = []", r"`data.mean` in \[grid\] must be a list of at least one value; got \[\]"),
        ("[grid]\ndata.mean = 4.0", r"`data.mean` in \[grid\] must be a list of at least one value; got 4.0"),
        ("[grid]\ndata.mean = [4.0, 4]", "`data.mean` must have distinct values; got 4.0 twice"),
        ("[fixed]\ndata.mean = 1\n[grid]\ndata.mean = [2.0]", r"must be fixed or an axis; got 1.0 and \[2.0\]"),
        (
            "[list]\ndata.mean = [1.0]\ndata.dim = [9, 10]",
            "equally many values of all fields; got 1 of data.mean, 2 of da",
        ),
        (
            "[list]\ndata.mean = [1.0]\n[grid]\ndata.dim = [9]",
            "must have one of the tables grid, list, random; got grid and",
        ),
        ("[random]\ndata.mean = {uniform = [0, 1]}", r"`samples` in \[random\] must be given"),
        ("[random]\nsamples = 0\ndata.mean = {uniform = [0, 1]}", "`samples` must be at least 1; got 0"),
        (
            "[random]\nsamples = 2\ndata.mean = {normal = [0, 1]}",
            r"`data.mean.normal` in \[random\] must be .*got \[0, 1\]",
        ),
        (
            "[random]\nsamples = 2\ndata.mean = [0, 1]",
            r"be { DISTRIBUTION = .* with one of uniform, log_.*; got \[0, 1\]",
        ),
        (
            "[random]\nsamples = 2\ndata.mean = {uniform = [2, 1]}",
            r"two rising numbers from -8.988e\+307 to .*; got \[2, 1\]",
        ),
        (
            "[random]\nsamples = 2\nterms.z = {log_uniform = [0, 1]}",
            r"two rising numbers from 2.225e-308 to 1.798e\+308; got \[0, 1\]",
        ),
        (
            "[random]\nsamples = 2\ndata.mean = {uniform = [-1.7e308, 1.7e308]}",
            r"`data.mean` in \[random\] must have two rising numbers from -8.988e\+307 .*got \[-1.7e\+308, 1.7e\+308\]",
        ),
        (
            f"[random]\nsamples = 2\ndata.mean = {{uniform = [0, {10**400}]}}",
            r"`data.mean` in \[random\] must have two rising numbers .*; got \[0, 10{400}\]",
        ),
        (
            f"[random]\nsamples = 2\ndata.dim = {{integers = [0, {2**63}]}}",
            r"`data.dim` in \[random\] must have .* whole numbers .* to 9.223e\+18; got \[0, 9223372036854775808\]",
        ),
        ("[random]\nsamples = 2", r"\[random\] must have at least one field; got none"),
        (
            "[random]\nsamples = 2\ndata.dim = {uniform = [8.25, 8.5]}",
            r"`data.dim` in \[random\] must be a whole number; got 8.",
        ),
        ("seeds = 0", "`seeds` must be at least 1; got 0"),
        ("seeds = []", "`number of seeds` must be at least 1; got 0"),
        ("seeds = [1, 2, 1]", "`seeds` must have distinct values; got 1 twice"),
        ("seeds = [-1]", "`seeds` must be at least 0; got -1"),
        ("seeds = 2.5", "`seeds` must be a whole number; got 2.5"),
        ("seeds = 1\nruns_per_chunk = 0", "`runs_per_chunk` must be at least 1; got 0"),
        (
            "seeds = 1\nruns_per_chunk = 1000000000000",
            "`runs_per_chunk` must be at most 10000000 .*; got 1000000000000",
        ),
        ("", "must say what to run: at least one of fixed, grid, list, random, seeds; got nothing"),
        ("runs_per_chunk = 9", "must say what to run: at least one of .*; got runs_per_chunk"),
        ("seeds = 100000000", "at most 10000000 runs; got 1 settings × 100000000 seeds, 95.4 GiB of results or more"),
        ("seeds = 9999999999999", "at most 10000000 runs; got 1 settings × 9999999999999 seeds"),
        (
            "[random]\nsamples = 1000000000\ndata.mean = {uniform = [0, 1]}",
            "must have at most 10000000 runs; got 1000000000 settings × 1 seeds, 954 GiB",
        ),
        (
            f"seeds = 1001\n[grid]\ndata.mean = {list(range(100))}\ndata.noise = {list(range(100))}",
            "must have at most 10000000 runs; got 10000 settings × 1001 seeds",
        ),
        ("seeds = 1\npartners = 3", "`partners` must be true or false; got 3"),
        ("seed = 3", "`seed` must be one of seeds, runs_per_chunk, partners, fixed, grid, list, random; got 3"),
        ("grid = 3", "`grid` must be a table; got 3"),
        ("[grid", "must be a readable TOML file; got"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"data.mean": [0.0, -2.0]}, r"Setting 1 \(data.mean = -2.0\): `mean` must be finite and at least 0; got -2"),
        ({"arm": ["hi-mo"]}, r"Setting 0 \(arm = 'hi-mo'\): `arm` must be one of dense, .*; got 'hi-mo'"),
        ({"router.groups": [4, 3]}, "Setting 1 .*must divide `num_experts`; got 8 experts, 3 groups"),
        ({"training.steps": [10**14]}, "`steps` must be at most 2147483647 .*; got 100000000000000"),
        ({"training.records": [7]}, "`records` must divide `steps`; got 7 records, 1500 steps"),
        ({"data.shared": [[1.0, 2.0]]}, r"`data.shared` of 'clusters' must be a number; got \(1.0, 2.0\)"),
        ({"data.test_images": [5]}, "`data.test_images` must be a field of 'clusters'; got 5, known are data.clusters"),
    ],
)
def test_a_setting_that_cannot_be_built_is_named(axes, message):
    with pytest.raises(ValueError, match=message):
        plan(grid(axes))


def test_every_class_field_has_a_name():
    assert {
        "data.anisotropy",
        "data.test_images",
        "layer.learn_scale",
        "layer.expert.filters",
        "training.batch",
    } <= set(known())


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_data_can_be_fixed(kind):
    """Also those whose name another kind uses for something else: `shared` is a share or a list of weights."""
    default = KINDS[kind]()
    values = {
        f"data.{field.name}": getattr(default, field.name)
        for field in dataclasses.fields(default)
        if getattr(default, field.name) is not None
    }
    (setting,) = grid({}, fixed={"data.kind": kind} | values).settings()
    assert setting.data == default


def test_streams_have_their_own_field_and_those_of_clusters():
    (setting,) = grid(
        {}, fixed={"data.kind": "streams", "data.dwell": 4, "data.clusters": 5, "data.shared": 0.5}
    ).settings()
    assert setting.data == Streams(clusters=5, shared=0.5, dwell=4.0)
