"""Checkpoints: back as they went, whole or absent, refused by name when damaged or of another configuration."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simulations.language import checkpoints
from simulations.language.checkpoints import check, path_of, restore, save, steps_of
from simulations.sweep.store import Damaged

CONFIGURATION = {"model": {"layers": 2, "arm": {"terms": {"load": 0.01}}}, "seed": 0, "shape": (1, 2)}


def tree(value=1.0):
    parameters = {"a": jnp.full((3, 2), value, jnp.float32), "b": [jnp.arange(4, dtype=jnp.int32)]}
    return {
        "state": {"parameters": parameters, "optimizer": optax.adamw(0.1).init(parameters)},
        "trajectory": {"loss": np.array([value, np.nan, -0.0], np.float32), "counts": np.full((2, 1), 2**40, np.int64)},
        "empty": np.zeros((3, 0, 2), np.float32),
        "step": np.asarray(7, np.int32),
    }


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, 10, tree(1.0), CONFIGURATION)
    save(tmp_path, 20, tree(2.0), CONFIGURATION)
    return tmp_path


def test_a_tree_comes_back_bit_for_bit(folder):
    check(folder, 20, CONFIGURATION)
    expected, found = tree(2.0), restore(folder, 20, tree(0.0))
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_the_newest_two_stay(folder):
    save(folder, 30, tree(), CONFIGURATION)
    assert steps_of(folder) == [20, 30]
    assert steps_of(folder / "none") == []


def test_a_step_that_is_done_again_replaces_its_checkpoint(folder):
    save(folder, 20, tree(5.0), CONFIGURATION)
    check(folder, 20, CONFIGURATION)
    assert restore(folder, 20, tree())["trajectory"]["loss"][0] == 5.0
    assert sorted(path.name for path in folder.iterdir()) == ["00000010", "00000020"]


@pytest.mark.parametrize("moment", ["files.write", "_hashes"])
def test_a_crash_while_saving_leaves_the_last_good_one(folder, monkeypatch, moment):
    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(f"{checkpoints.__name__}.{moment}", crash)
        with pytest.raises(KeyboardInterrupt):
            save(folder, 30, tree(), CONFIGURATION)
    assert steps_of(folder) == [10, 20]
    check(folder, 20, CONFIGURATION)
    save(folder, 30, tree(), CONFIGURATION)  # what the crash left is in nobody's way
    assert sorted(path.name for path in folder.iterdir()) == ["00000020", "00000030"]


def files(folder, step):
    return sorted(path for path in path_of(folder, step).rglob("*") if path.is_file())


def test_every_file_is_watched(folder):
    """A flipped bit in any file, or its absence, is seen and its name given, and the one before is offered."""
    for path in files(folder, 20):
        content = path.read_bytes()
        for damage in (lambda p, c: p.write_bytes(bytes([c[0] ^ 1]) + c[1:] if c else b"x"), lambda p, c: p.unlink()):
            damage(path, content)
            with pytest.raises(Damaged) as caught:
                check(folder, 20, CONFIGURATION)
            message, name = str(caught.value), path.relative_to(path_of(folder, 20)).as_posix()
            assert f"00000020` must be as it was written; {name} is damaged" in message
            assert "resume from the one before with `--from-step 10`" in message
            assert "\n" not in message
            path.write_bytes(content)
    check(folder, 20, CONFIGURATION)


def test_the_first_has_none_before_it(folder):
    (path_of(folder, 10) / checkpoints.MANIFEST).write_text("{}")
    with pytest.raises(Damaged, match=r"00000010` .* manifest\.json is damaged: there is none before it\."):
        check(folder, 10, CONFIGURATION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "`seed` must be as in .*00000020 to resume, 0; got 1. Give it as it was"),
        ({"model": {"layers": 2, "arm": {"terms": {"load": 0.1}}}}, r"`model\.arm\.terms\.load` .*, 0\.01; got 0\.1"),
        ({"model": {"layers": 3, "arm": {"terms": {"load": 0.1}}}}, r"`model\.layers` .*, 2; got 3"),
        ({"more": 5}, "`more` .*, null; got 5"),
        ({"shape": (1, 3)}, r"`shape` .*, \[1, 2\]; got \[1, 3\]"),
    ],
)
def test_another_configuration_is_refused_by_field(folder, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        check(folder, 20, CONFIGURATION | change)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_or_of_another_format(folder):
    with pytest.raises(ValueError, match=r"00000015` must be a checkpoint; there is none\. Steps with one: 10, 20"):
        check(folder, 15, CONFIGURATION)
    path = path_of(folder, 20) / checkpoints.MANIFEST
    manifest = json.loads(path.read_text()) | {"format": "other 1"}
    manifest.pop("check")
    path.write_text(json.dumps(manifest | {"check": checkpoints._check(manifest)}))
    with pytest.raises(ValueError, match="must have format 'himoe-theory checkpoint 1'; got 'other 1'"):
        check(folder, 20, CONFIGURATION)


def test_a_disk_that_refuses_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"00000001` must be written; got File exists\. Earlier checkpoints"):
        save(tmp_path / "file", 1, tree(), CONFIGURATION)


def test_what_orbax_says_of_a_full_disk_is_one_line(folder, monkeypatch):
    import orbax.checkpoint as ocp

    def full(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device [a.b]\n[more]")

    monkeypatch.setattr(ocp.Checkpointer, "save", full)
    with pytest.raises(ValueError, match="00000030` must be written; got RESOURCE_EXHAUSTED: No space left") as caught:
        save(folder, 30, tree(), CONFIGURATION)
    assert "\n" not in str(caught.value)
    assert steps_of(folder) == [10, 20]


FULL = """
import resource, sys, pathlib, numpy
from simulations.language import checkpoints
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoints.save(pathlib.Path(sys.argv[1]), 1, {"a": numpy.random.default_rng(0).normal(size=200_000)}, {})
except ValueError as error:
    print(error)
"""


def test_orbax_prints_nothing_of_its_own_when_the_system_refuses(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", FULL, str(tmp_path / "c")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert "00000001` must be written; got " in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("name", ["²", "1", "٣٣٣٣٣٣٣٣", "00000020.part", "0" * 9])
def test_folders_that_are_no_steps_are_passed_over(folder, name):
    (folder / name).mkdir()
    assert steps_of(folder) == [10, 20]
