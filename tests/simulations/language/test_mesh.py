"""Several devices give the numbers of one; what they exchange is counted by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition, metrics, routers
from simulations.arms import arms
from simulations.language.mesh import mesh_of, most_routes
from simulations.language.traffic import traffic

from .small import PARTITION, model

CASES = (("hi-moe", (2, 4), "global"), ("gshard", (4, 2), "micro"))
FREE, GROUPED = routers.gshard(8, 4, partition=Partition.equal(8, 4)), routers.moge(Partition.equal(8, 4), 1)


def test_eight_devices_give_what_one_gives():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.simulations.language.on_devices", json.dumps(CASES)]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip([name for name, _, _ in CASES], json.loads(done.stdout.splitlines()[-1]), strict=True))
    for name, case in found.items():
        assert case["counts_equal"], name
        assert case["gradient"] < 2e-5, (name, case)
    assert found["hi-moe"]["losses"] < 1e-5
    assert found["hi-moe"]["router"] < 1e-4
    assert found["hi-moe"]["experts_on_a_device"] == [2]  # each device holds a group, not all experts


def test_bfloat16_as_users_compile_it():
    """Tests compile without optimisation, which is what makes products in bfloat16 fast, or could break them."""
    root = Path(__file__).parents[3]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    environment |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-m", "tests.simulations.language.optimised"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for form, furthest in json.loads(done.stdout.splitlines()[-1]).items():
        assert 1e-4 < furthest < 0.03, form  # bfloat16 rounds by up to 2^-9 = 0.002, a few times over


def test_too_few_devices():
    with pytest.raises(ValueError, match=r"got 64 x 64, and there are \d+\. XLA_FLAGS="):
        mesh_of((64, 64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"devices": (1, 2), "dispatch": "sorted"}, r"equal groups.* got 2 devices for 2 groups of 3, 1 experts"),
        ({"devices": (0, 1)}, r"`devices \(data\)` must be at least 1; got 0"),
        (
            {"arm": arms(Partition.equal(4, 2), 1)["moge"], "devices": (2, 1)},
            "`dispatch` must be sorted .* got 'dense'",
        ),
        (
            {"arm": arms(Partition.equal(4, 2), 1)["guo-all"], "devices": (2, 2), "dispatch": "sorted"},
            "outputs need all experts on one device",
        ),
    ],
)
def test_models_that_cannot_be_spread(fields, message):
    with pytest.raises(ValueError, match=message):
        model(**fields)


def test_the_worst_case_of_a_device():
    assert most_routes(GROUPED, 4) == 1
    assert most_routes(GROUPED, 2) == 2
    assert most_routes(FREE, 4) == 2  # both experts of a group
    assert most_routes(FREE, 2) == 4
    assert most_routes(routers.moge(PARTITION, (2, 1)), 1) == 3


def counted(router, selected):
    touched = float(metrics.groups_touched(jnp.asarray(selected), router.partition))
    return traffic(router, selected.mean(axis=0), touched, len(selected), dim=10), touched


def test_traffic_by_hand():
    # Two tokens, groups {0, 1}, {2, 3}, {4, 5}, {6, 7}: the first selects 0 1 2 4, the second 0 1 6 7.
    selected = np.zeros((2, 8), bool)
    selected[0, [0, 1, 2, 4]] = selected[1, [0, 1, 6, 7]] = True
    found, touched = counted(FREE, selected)
    assert touched == 2.5
    assert found.rows == 2  # 8 routes, 4 devices
    assert found.fullest == 4 / 2
    assert found.sent == pytest.approx(5 * 3 / 4 * 2 * 10 * 4 / 4)  # five visits, a quarter of them at home
    assert found.gathered == 2 * 3 * 2 * 10 * 4 / 4
    assert found.padding == (16 - 4) / 4  # two tiles of eight rows
    assert found.reserved == 4 / 2


def test_free_top_4_of_8_touches_22_sevenths_of_the_groups_and_grouped_routing_all():
    rng = np.random.default_rng(0)
    selected = rng.permuted(np.tile(np.arange(8) < 4, (20_000, 1)), axis=1)
    free, touched = counted(FREE, selected)
    # Standard deviation of a token's groups below .6: .02 is more than 4 standard errors.
    assert touched == pytest.approx(22 / 7, abs=0.02)
    assert free.sent / free.gathered == pytest.approx(touched / 4)
    assert free.reserved == pytest.approx(2, rel=0.02)
    grouped = np.zeros((64, 8), bool)
    grouped[:, ::2] = True
    found, touched = counted(GROUPED, grouped)
    assert (touched, found.rows, found.fullest, found.reserved) == (4, 64, 1, 1)
    assert found.sent == found.gathered
