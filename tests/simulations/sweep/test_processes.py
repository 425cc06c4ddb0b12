"""Real processes: killed, interrupted, one or several, and a cluster; the bytes are those of an unbroken sweep."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulations.__main__ import main
from simulations.sweep import Store, local, read_sweep, resume, sweep
from simulations.sweep.cluster import dask
from simulations.sweep.plan import plan
from simulations.workers import WorkerLost
from tests.simulations.sweep.small import ROOT, command, content, design, file, in_this_process


def until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def children(pid):
    """Processes that another one started, by number."""
    return [int(n) for path in Path(f"/proc/{pid}/task").glob("*/children") for n in path.read_text().split()]


def gone(pid):
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")")[1].split()[0] == "Z"


def test_a_killed_sweep_goes_on_where_it_stopped(whole, tmp_path):
    """Two processes until it is killed, none after that."""
    folder = tmp_path / "store"
    with command("sweep", file(tmp_path), "--out", folder, "--workers", "2") as started:
        until(lambda: list(folder.glob("chunk-*.npz")))
        workers = children(started.pid)
        started.kill()
    missing = Store.open(folder).missing()
    assert missing, "it was done before it was killed"
    until(lambda: all(map(gone, workers)), 20)
    asked = []

    def counted(chunks, report):
        asked.extend(chunks)
        yield from in_this_process(chunks, report)

    resume(folder, executor=counted)
    assert len(asked) == len(missing)
    assert content(folder) == content(whole)


def test_ctrl_c_ends_within_seconds_and_keeps_what_is_stored(tmp_path):
    folder = tmp_path / "store"
    with command("sweep", file(tmp_path), "--out", folder, "--workers", "1") as started:
        until(lambda: len(children(started.pid)) >= 2)  # the worker, and the one that watches over its pipes
        with pytest.raises(ValueError, match="must have one writer at a time; another process is writing"):
            resume(folder)
        workers, began = children(started.pid), time.monotonic()
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert started.returncode == 130
    assert err.strip().endswith(
        f"interrupted, finished chunks are stored; go on with `himoe-simulate resume {folder}`."
    )
    assert "Traceback" not in err
    until(lambda: all(map(gone, workers)), 10)
    assert len(Store.open(folder).hashes) == 5


def test_a_lost_worker_is_told_and_nothing_stored_is_lost(whole, tmp_path, monkeypatch):
    folder = tmp_path / "store"

    def dies(chunks, report):
        yield from in_this_process(chunks[:1], report)
        killer = local(1)(chunks[1:], lambda shares: [os.kill(pid, signal.SIGKILL) for pid in spawned()])
        yield from ((place + 1, computed) for place, computed in killer)

    def spawned():
        import multiprocessing

        return [child.pid for child in multiprocessing.active_children()]

    with pytest.raises(
        WorkerLost,
        match=r"ended without a result: too little memory, .* What is stored is whole: run `himoe-simulate resume",
    ):
        sweep(design(tmp_path), folder, executor=dies)
    assert Store.open(folder).missing() == [1, 2, 3, 4]
    resume(folder, executor=in_this_process)
    assert content(folder) == content(whole)


@pytest.mark.deep
def test_a_cluster_of_processes_that_loses_a_worker_gives_the_same_bytes(whole, tmp_path):
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    where = tmp_path / "scheduler.json"
    scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
    worker = ["dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    with contextlib.ExitStack() as stack:

        def start(name, *options):
            words = [sys.executable, "-m", f"distributed.cli.{name}", *options, "--scheduler-file", str(where)]
            process = subprocess.Popen(words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        start(*scheduler)
        until(where.is_file)
        workers = [start(*worker), start(*worker)]
        executor = dask(json.loads(where.read_text())["address"])

        def losing_one(chunks, report):
            for place, computed in executor(chunks, report):
                workers[0].kill()  # after the first result: what it holds or computes is computed elsewhere
                yield place, computed

        other = sweep(design(tmp_path), tmp_path / "store", executor=losing_one)
        assert workers[0].wait(20) == -signal.SIGKILL
    assert content(other) == content(whole)


def test_a_dask_cluster_gives_the_same_bytes(whole, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        assert cluster.scheduler_address.startswith("tcp://")
        other = sweep(design(tmp_path), tmp_path / "store", executor=dask(cluster.scheduler_address))
    assert content(other) == content(whole)


def test_no_cluster_is_one_line(whole, monkeypatch):
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    monkeypatch.setattr("simulations.sweep.cluster.SECONDS_TO_CONNECT", 0.2)
    with pytest.raises(
        ValueError, match=r"must be the address of a Dask scheduler; nothing answers at tcp://127.0.0.1:9"
    ):
        list(dask("tcp://127.0.0.1:9")(plan(whole.design), lambda shares: None))


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["himoe-simulate", *map(str, arguments)])
    main()


def test_resume_says_when_nothing_is_missing(whole, monkeypatch, capsys):
    call(monkeypatch, "resume", whole.folder)
    assert "5 chunks, all stored" in capsys.readouterr().out


def test_show_prints_and_draws(whole, monkeypatch, capsys):
    call(monkeypatch, "show", whole.folder)
    printed = capsys.readouterr().out
    assert "rows: data.noise, columns: terms.load" in printed
    assert "5 of 5 chunks stored" in printed
    cell = read_sweep(whole.folder)["test_error"].isel({"data.noise": 1, "terms.load": 0, "record": 1})
    assert f"{float(cell.mean()):.4g} ±" in printed
    call(monkeypatch, "show", whole.folder, "--x", "terms.load", "--value", "cv")
    call(monkeypatch, "show", whole.folder, "--x", "data.noise", "--value", "cv", "--at", "terms.load=0")
    names = {"test_error-data.noise-terms.load", "cv-terms.load", "cv-data.noise-terms.load=0"}
    assert {p.name for p in whole.folder.parent.glob("*.png")} == {f"store.{name}.png" for name in names}
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in whole.folder.parent.glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "STORE", "--x", "data.meen"), "one of data.noise, terms.load, seed; got 'data.meen'"),
        (("show", "STORE", "--value", "loss"), "`value` must be one of adjusted_information, "),
        (
            ("show", "STORE", "--x", "terms.load", "--y", "terms.load"),
            "must be different fields; got 'terms.load' twice",
        ),
        (("show", "STORE", "--at", "terms.load"), "`at` must be FIELD=VALUE; got 'terms.load'"),
        (("show", "STORE", "--at", "seed=1", "--at", "seed=2"), "`at` must fix a field once; got seed=1 and seed=2"),
        (("show", "STORE", "--at", "terms.load=2"), "`at` terms.load must be one of its 2 values 0, 0.125; got '2'"),
        (("resume", "STORE", "--workers", "0"), "`workers` must be at least 1; got 0"),
        (("resume", "STORE", "--executor", "mars"), "`executor` must be local or an address such as tcp://host:8786"),
        (("sweep", "nowhere.toml"), "`nowhere.toml` must be a readable TOML file; got"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(whole, monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *(whole.folder if word == "STORE" else word for word in arguments))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
