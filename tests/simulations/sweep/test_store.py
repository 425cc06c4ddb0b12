"""Stores: equal bytes however the work is cut up, and nothing that happens to a disk or a process is lost or missed."""

import dataclasses
import errno
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from himoe_theory.plumbing import files
from simulations import Regime, provenance, simulate
from simulations.machine import available_memory
from simulations.sweep import Store, grid, local, read_sweep, resume, sweep
from simulations.sweep.compute import compute
from simulations.sweep.design import Design
from simulations.sweep.machine import check_memory, workers_for
from simulations.sweep.plan import plan
from simulations.sweep.store import locked
from tests.simulations.sweep.small import TOML, backwards, content, design, in_this_process


def copy_of(whole, folder):
    """A store of its own with the same files."""
    folder.mkdir()
    for name, data in content(whole).items():
        (folder / name).write_bytes(data)
    return folder


def never(chunks, report):
    raise AssertionError("nothing was missing")
    yield


def test_the_small_design_pads(whole):
    chunks = plan(whole.design)
    assert [[(row.points, row.seed) for row in chunk.rows] for chunk in chunks] == [
        [((0, 1), 0), ((0, 1), 1)],
        [((0, 1), 2), ((2, 3), 0)],
        [((2, 3), 1), ((2, 3), 2)],
        [((4, 5), 0), ((4, 5), 1)],
        [((4, 5), 2)],
    ]
    assert [[row.seed for row in chunk.padded] for chunk in chunks[-2:]] == [[0, 1], [2, 2]]
    assert len({chunk.program for chunk in chunks}) == 1


def test_the_order_of_chunks_changes_no_byte(whole, tmp_path):
    other = sweep(design(tmp_path), tmp_path / "store", executor=backwards)
    assert content(other) == content(whole)


def test_a_sweep_equals_single_runs(whole):
    """Every setting against the program of one arm and seed; float32 in both, so to 100 units in the last place."""
    found = read_sweep(whole.folder)
    setting = whole.design.settings()[1]
    with store_single():
        alone = simulate([setting.arm], setting.data, setting.layer, setting.training, [2], partners=False)
    ours = found.isel({"data.noise": 0, "terms.load": 1}).sel(seed=2)
    for name in ("test_loss", "test_error", "soft_load", "cv", "collision_information", "term_load"):
        np.testing.assert_allclose(
            ours[name], alone[name].values[0, 0], rtol=100 * np.finfo(np.float32).eps, atol=1e-6, err_msg=name
        )
    np.testing.assert_array_equal(ours["hard_load"], alone["hard_load"].values[0, 0])
    assert int(ours["balance"]) == int(alone["balance"][0, 0])


def store_single():
    return jax.enable_x64(False) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64(False)


def test_the_data_set_has_the_designs_axes(whole):
    found = read_sweep(whole.folder)
    assert found["test_error"].dims == ("data.noise", "terms.load", "seed", "record")
    assert list(found["data.noise"].values) == [0.5, 0.25, 0.125]
    assert list(found["terms.load"].values) == [0.0, 0.125]
    assert list(found["seed"].values) == [0, 1, 2]
    assert list(found["step"].values) == [0, 4]
    assert found["hard_load"].shape == (3, 2, 3, 2, 8)
    assert np.isfinite(found["test_error"]).all()
    assert (found["test_error"].isel(record=1).std("data.noise") > 0).all()


def test_runs_that_are_not_stored_are_nan(whole, tmp_path):
    folder = copy_of(whole, tmp_path / "store")
    (folder / "chunk-00001.npz").unlink()
    half = Store.open(folder)
    assert half.damaged() == ["chunk-00001.npz"]
    half._write_manifest()
    found = read_sweep(folder)
    missing = np.isnan(found["test_error"].isel(record=1)).values
    expected = np.zeros((3, 2, 3), bool)
    expected[0, :, 2] = expected[1, :, 0] = True
    np.testing.assert_array_equal(missing, expected)
    for name in ("regime", "balance"):
        assert (found[name].values[expected] == -1).all()
        assert (found[name].values[~expected] >= 0).all()
    assert found.attrs["chunks_stored"] == 4


def test_a_diverged_run_is_a_row_with_its_code():
    from simulations import Balance

    wild = grid({"terms.load": [0.0, 1e38]}, fixed=dict(Design.from_json(small()).fixed), seeds=2, partners=False)
    parts = [compute(chunk, lambda share: None).arrays for chunk in plan(wild)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    runs = list(zip(arrays["design_point"], arrays["design_seed"], strict=True))
    assert sorted(runs) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    wild_ones = arrays["design_point"] == 1
    assert list(arrays["balance"][wild_ones]) == [Balance.DIVERGED] * 2
    assert np.isnan(arrays["test_loss"][wild_ones, 1]).all()
    assert np.isfinite(arrays["test_loss"][~wild_ones]).all()


def small():
    import tomllib

    found = tomllib.loads(TOML)
    fixed = {"arm": "dense"} | {f"training.{name}": value for name, value in found["fixed"]["training"].items()}
    return {"axes": [], "fixed": fixed, "seeds": [0], "crossed": True, "runs_per_chunk": 4, "partners": False}


def test_a_full_store_computes_nothing(whole):
    assert resume(whole.folder, executor=never).missing() == []
    assert sweep(whole.design, whole.folder, executor=never).missing() == []


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_chunk_is_named_and_computed_again(whole, tmp_path, capsys, harm):
    folder = copy_of(whole, tmp_path / "store")
    path = folder / "chunk-00002.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(data if harm == "flip" else data[:-1])
    with pytest.raises(ValueError, match=r"chunk-00002.npz` must be as it was written; it is damaged. Run `himoe-sim"):
        read_sweep(folder)
    asked = []

    def counted(chunks, report):
        asked.extend(chunks)
        yield from in_this_process(chunks, report)

    resume(folder, executor=counted)
    assert [[(row.points, row.seed) for row in c.rows] for c in asked] == [[((2, 3), 1), ((2, 3), 2)]]
    assert "chunk-00002.npz` is damaged and is computed again" in capsys.readouterr().err
    assert content(folder) == content(whole)


@pytest.mark.parametrize("at", ["chunk", "manifest"])
def test_a_full_disk_is_one_line_and_harms_nothing(whole, tmp_path, monkeypatch, at):
    folder, written = tmp_path / "store", []
    real = os.fsync

    def fsync(handle):
        written.append(os.readlink(f"/proc/self/fd/{handle}"))
        full = "chunk-00001" in written[-1] if at == "chunk" else "manifest" in written[-1] and len(written) > 6
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(
        ValueError, match=r"must be written; got No space left on device. What is stored is whole"
    ) as why:
        sweep(design(tmp_path), folder, executor=in_this_process)
    assert "\n" not in str(why.value)
    monkeypatch.undo()
    assert not list(folder.glob(".*"))
    assert Store.open(folder).missing() == [1, 2, 3, 4]
    resume(folder, executor=in_this_process)
    assert content(folder) == content(whole)


def test_a_crash_between_chunk_and_record_is_safe(whole, tmp_path, monkeypatch):
    folder = tmp_path / "store"

    def dies(self):
        raise KeyboardInterrupt

    made = Store.create
    monkeypatch.setattr(Store, "create", lambda *a: (made(*a), monkeypatch.setattr(Store, "_write_manifest", dies))[0])
    with pytest.raises(KeyboardInterrupt):
        sweep(design(tmp_path), folder, executor=in_this_process)
    monkeypatch.undo()
    assert (folder / "chunk-00000.npz").exists()
    assert Store.open(folder).missing() == [0, 1, 2, 3, 4]
    resume(folder, executor=in_this_process)
    assert content(folder) == content(whole)


HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_held_store_is_refused_and_a_dead_writer_lets_go(whole, tmp_path):
    folder = copy_of(whole, tmp_path / "store")
    with subprocess.Popen([sys.executable, "-c", HOLD, folder / "lock"], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"`{re.escape(str(folder))}` must have one writer at a time"):
            resume(folder, executor=never)
        other.kill()
    assert other.returncode < 0
    resume(folder, executor=never)


def test_a_second_writer_is_refused_however_the_first_is_held(tmp_path):
    with locked(tmp_path / "store"):
        with pytest.raises(ValueError, match="must have one writer at a time"), locked(tmp_path / "store"):
            pass
    with locked(tmp_path / "store"):
        pass


def test_chunks_compute_in_single_precision_whatever_the_process_has_set(whole):
    seen = []
    found = compute(plan(whole.design)[0], lambda share: seen.append((share, jax.config.jax_enable_x64)))
    assert seen == [(1.0, False)]
    assert jax.config.jax_enable_x64
    kinds = {values.dtype for name, values in found.arrays.items() if not name.startswith("design_")}
    assert kinds == {np.dtype(np.float32), np.dtype(np.int8)}


def rewrite(folder, change):
    """The manifest with a change and a check that fits it, as another version would have written it."""
    opened = Store.open(folder)
    change(opened._manifest)
    opened._write_manifest()


def test_another_design_version_or_source_is_refused(whole, tmp_path):
    folder = copy_of(whole, tmp_path / "store")
    turned = Design(dict(reversed(whole.design.axes.items())), whole.design.fixed, whole.design.seeds, True, 4)
    with pytest.raises(ValueError, match=r"must be a store of this design; it holds another. Choose another folder"):
        sweep(turned, folder, executor=never)
    rewrite(folder, lambda m: m["made_by"].update(jax="0.1.2"))
    with pytest.raises(
        ValueError, match=r"must be resumed by the same jax; got .*, the store was made by 0.1.2. Go back"
    ):
        resume(folder, executor=never)
    assert read_sweep(folder).attrs["chunks_stored"] == 5  # to read it, no version is needed
    rewrite(folder, lambda m: m["made_by"].update(jax=jax.__version__, sources="feed"))
    with pytest.raises(ValueError, match=r"must be resumed by the same sources; got .*, the store was made by feed"):
        resume(folder, executor=never)
    rewrite(folder, lambda m: m.update(format="himoe-theory sweep 9"))
    with pytest.raises(ValueError, match="must have format 'himoe-theory sweep 3'; got 'himoe-theory sweep 9'"):
        resume(folder, executor=never)


def test_other_devices_are_refused(whole, tmp_path):
    folder = copy_of(whole, tmp_path / "store")
    (folder / "chunk-00000.npz").unlink()
    here = f"{provenance.processor()} x 1"
    rewrite(folder, lambda m: m["made_by"].update(device="gpu x 4"))
    with pytest.raises(ValueError, match=f"must have chunks of one device, gpu x 4; got one of {re.escape(here)}"):
        resume(folder, executor=in_this_process)
    rewrite(folder, lambda m: m["made_by"].update(device=here, compiled="as usual"))
    with pytest.raises(ValueError, match=r"must have chunks of one compiled, as usual; got one of .* unoptimised"):
        resume(folder, executor=in_this_process)


def test_a_worker_with_other_versions_is_refused(whole, tmp_path):
    def elsewhere(chunks, report):
        for place, computed in in_this_process(chunks, report):
            yield place, dataclasses.replace(computed, made_by={**computed.made_by, "optax": "0.0.9"})

    with pytest.raises(ValueError, match=r"must have chunks of one optax, .*; got one of 0\.0\.9"):
        sweep(design(tmp_path), tmp_path / "store", executor=elsewhere)


@pytest.mark.parametrize(
    "harm", [lambda b: b[:-9], lambda b: b.replace(b"0.125", b"0.225"), lambda b: b"[]", lambda b: b""]
)
def test_a_damaged_manifest_is_refused(whole, tmp_path, harm):
    folder = copy_of(whole, tmp_path / "store")
    path = folder / "manifest.json"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ValueError, match=r"manifest.json` must be as it was written; it is damaged. Restore it"):
        resume(folder, executor=never)


def test_folders_that_are_no_stores(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere` must be a store; it has no manifest.json"):
        resume(tmp_path / "nowhere", executor=never)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(
        ValueError, match=r"full` must be a store or empty; it has no manifest.json and holds thesis.tex"
    ):
        sweep(design(tmp_path), tmp_path / "full", executor=never)
    with pytest.raises(ValueError, match=r"must be a folder that can be written; got Not a directory"):
        sweep(design(tmp_path), tmp_path / "design.toml" / "x", executor=never)


def test_files_tell_nothing_of_time_or_place(whole):
    manifest = json.loads((whole.folder / "manifest.json").read_text())
    assert set(manifest) == {"format", "design", "made_by", "chunks", "check"}
    log = [json.loads(line) for line in (whole.folder / "log.jsonl").read_text().splitlines()]
    assert [set(line) for line in log] == [{"chunk", "stored", "seconds", "host"}] * 5


def test_memory_and_cores_bound_the_workers(whole, tmp_path):
    chunks = plan(whole.design)
    need = chunks[0].bytes + 2**29
    assert [workers_for(chunks, 8, m) for m in (0, need, 3 * need, 100 * need)] == [1, 1, 3, 5]
    assert workers_for(chunks, 2, 100 * need) == 2
    check_memory(chunks, chunks[0].bytes)
    huge = plan(grid({}, fixed={"training.batch": 10**9}, seeds=2))
    # 4 bytes of 16 arrays of a billion tokens by 8 experts, of two tokens' 16 numbers, and of 18 numbers a token drawn.
    with pytest.raises(
        ValueError, match=r"must have chunks that fit in memory; one chunk needs about 663 GiB, free are 20\."
    ):
        check_memory(huge, 20 * 2**30)
    check_memory(chunks, 2 * chunks[0].bytes, workers=2)
    with pytest.raises(ValueError, match=r"`workers` must have room for a chunk each; got 3 workers; one chunk needs"):
        check_memory(chunks, 2 * chunks[0].bytes, workers=3)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   2000 kB\n")
    assert available_memory(tmp_path) == 2048000
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("5000\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("3000\n")
    assert available_memory(tmp_path) == 2000
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert available_memory(tmp_path) == 2048000


@pytest.mark.parametrize("executor", [None, local(1), local(2)])
def test_what_does_not_fit_is_refused_before_there_is_a_store(tmp_path, executor):
    huge = grid({"training.batch": [10**9]}, seeds=1)
    with pytest.raises(ValueError, match=r"must have chunks that fit in memory; one chunk needs about 663 GiB"):
        sweep(huge, tmp_path / "store", executor=executor)
    assert not (tmp_path / "store").exists()


def test_regimes_are_those_of_single_runs_and_partners_are_no_settings(tmp_path):
    """Partners are in other chunks; where theirs are not stored, nothing is judged."""
    given = grid({"terms.load": [0.0, 0.125]}, fixed=dict(Design.from_json(small()).fixed), seeds=2)
    store = sweep(given, tmp_path / "store", executor=in_this_process)
    found = read_sweep(store.folder)
    assert found["test_error"].shape == (2, 2, 2)
    settings = given.settings()
    arms = [dataclasses.replace(one.arm, name=str(number)) for number, one in enumerate(settings)]
    with store_single():
        alone = simulate(arms, settings[0].data, settings[0].layer, settings[0].training, range(2))
    for name in ("frozen_error", "planted_error", "gain"):
        np.testing.assert_allclose(found[name], alone[name], rtol=2e-3, atol=1e-3, err_msg=name)
    np.testing.assert_array_equal(found["regime"], alone["regime"])
    lost = copy_of(store, tmp_path / "half")
    (lost / f"chunk-{len(store.hashes) - 1:05d}.npz").unlink()
    half = Store.open(lost)
    half.damaged()
    half._write_manifest()
    again = read_sweep(lost)
    unknown = again["planted_error"].isnull() | again["frozen_error"].isnull()
    assert unknown.any()
    np.testing.assert_array_equal(again["regime"], found["regime"].where(~unknown, Regime.NOT_JUDGED))
    np.testing.assert_array_equal(again["balance"], found["balance"])
