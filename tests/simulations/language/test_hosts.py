"""Two real processes that train one model are one process with as many devices, also across a stop."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import simulations
from simulations.language import checkpoints
from simulations.language.hosts import any_of_all, join, leads

ROOT = Path(__file__).parents[3]


def started(folder, act, devices, *joined):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    words = [sys.executable, "-m", "tests.simulations.language.on_hosts", folder, act, *joined]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([str(word) for word in words], cwd=ROOT, env=environment, **pipes)


def finished(processes):
    output = [process.communicate(timeout=300) for process in processes]
    for process, (_, error) in zip(processes, output, strict=True):
        assert process.returncode == 0, error
    return [out for out, _ in output]


def two(folder, act):
    """What two processes with two devices each print."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    return finished([started(folder, act, 2, coordinator, process) for process in range(2)])


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run of one process with four devices, and one of two processes that a request to the second stops."""
    folder = tmp_path_factory.mktemp("hosts")
    alone = started(folder, "whole", 4)
    printed = two(folder, "stop and fail")
    finished([alone])
    return folder, printed


def test_two_processes_stop_together_and_end_where_one_does(broken):
    folder, _ = broken
    assert checkpoints.steps_of(folder / "broken") == [2, 3]
    assert not (folder / "broken.nc").exists()
    two(folder, "go on")
    whole, parts = (simulations.read_result(folder / f"{name}.nc") for name in ("whole", "broken"))
    for name in ("train_loss", "validation_loss", "hard_load", "loss_by_domain", "expert_overlap", "silhouette"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=2e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(parts["train_load"], whole["train_load"])


@pytest.mark.parametrize(
    "line",
    [
        "failed: step 2 is not finite; first is parameter layers.00.moe.in.weight (256 of 256 entries)",
        "refused: `seed` must be equal in all processes; process 1 has 1, process 0 0. "
        "Start all with the same options.",
    ],
)
def test_both_processes_say_what_is_wrong(broken, line):
    for printed in broken[1]:
        assert line in printed.splitlines()


def test_a_process_alone_leads_and_answers_for_itself():
    assert leads()
    assert any_of_all(True)
    assert not any_of_all(False)


def test_joining_needs_a_coordinator():
    join(None, None, None)  # one host: nothing to do
    with pytest.raises(ValueError, match="need `coordinator`; got 2 and None without"):
        join(None, 2, None)
    with pytest.raises(ValueError, match="`coordinator` must be HOST:PORT of process 0; got 'nowhere'"):
        join("nowhere", 2, 5)
