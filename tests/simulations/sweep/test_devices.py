"""A chunk spread over two devices, with rows of two data sets and two learning rates, is what single runs are."""

import json
import os
import subprocess
import sys

import pytest

from tests.simulations.sweep.small import ROOT


@pytest.mark.parametrize(
    "optimised", [False, pytest.param(True, marks=pytest.mark.deep)], ids=["unoptimised", "as users compile"]
)
def test_two_devices_give_what_single_runs_give(optimised):
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"}
    if optimised:
        environment |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
        del environment["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    command = [sys.executable, "-m", "tests.simulations.sweep.on_devices"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 2
    assert found["closed form"]["closed"]
    assert not found["autodiff"]["closed"]
    for name in ("closed form", "autodiff"):
        assert found[name]["device"] == "2"
        assert found[name]["furthest"] < 2e-5, name  # float32 in both, 30 steps of Adam
