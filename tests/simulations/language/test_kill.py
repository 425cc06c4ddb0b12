"""Real processes, killed: what they leave, and that the run which goes on is the unbroken one bit for bit."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulations.language import checkpoints

ROOT = Path(__file__).parents[3]

# As users run it, but what one process compiled the next one need not.
ENVIRONMENT = os.environ | {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def act(folder, what):
    command = [sys.executable, "-m", "tests.simulations.language.victim", folder, what]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, timeout=300, capture_output=True, text=True, check=False)


def test_killed_after_a_step_and_again_while_saving_is_the_unbroken_run_bit_for_bit(tmp_path):
    """Checkpoints at 2, 4, 6: killed after step 3, then while that of step 4 is written, then left in peace."""
    broken = tmp_path / "broken"
    died = act(tmp_path, "after-a-step")
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert checkpoints.steps_of(broken) == [2]
    died = act(tmp_path, "while-saving")
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert checkpoints.steps_of(broken) == [2]
    assert [path.name for path in broken.iterdir() if path.name.startswith(".")] == [".00000004.part"]
    done = act(tmp_path, "finish")
    assert done.returncode == 0, done.stderr
    assert checkpoints.steps_of(broken) == [4, 6]
    assert (tmp_path / "found").read_text() == (tmp_path / "expected").read_text()


def until(condition, process, seconds=240.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def data(tmp_path):
    tokens = bytes(range(16)) * 200  # uint16 0x0100, 0x0302, ...: below 4096
    for name in ("train.bin", "val.bin"):
        (tmp_path / name).write_bytes(tokens)
    (tmp_path / "meta.json").write_text('{"vocab_size": 4096}')
    return tmp_path


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(data):
    folder = data / "out"
    options = ["--arm", "moge", "--size", "tiny", "--context", "8", "--batch", "2", "--held-out", "2", "--records", "2"]
    words = [*options, "--data", data, "--out", folder, "--steps", "4000", "--checkpoint-every", "2"]
    command = [sys.executable, "-m", "simulations", "lm", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes) as process:
        until(lambda: checkpoints.steps_of(folder / "checkpoints"), process)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    last = checkpoints.steps_of(folder / "checkpoints")[-1]
    found = re.fullmatch(r"himoe-simulate: interrupted, step (\d+) is stored; go on with `(.*)`\.\n", error)
    assert found, error
    assert int(found[1]) == last
    assert found[2].startswith("himoe-simulate lm --arm moge --size tiny --steps 4000 --data ")
    assert found[2].endswith("--resume")
    assert not (folder / "result.nc").exists()


def test_commands_that_save_nothing_do_not_wait_for_orbax():
    code = "import simulations.__main__, sys; sys.exit('orbax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=False).returncode == 0
