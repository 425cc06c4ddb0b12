"""Results are computed when they must be, kept when they can be, and stored one by one."""

import io
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import simulations
from paper_figures import compute
from paper_figures.compute import Stored, bring_up_to_date, look
from paper_figures.workers import run_all
from simulations import store
from simulations.workers import WorkerLost

from .fakes import Endless, Failing, FakeAudit, Killed, fake


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=60)


@pytest.fixture
def ran(monkeypatch):
    """Names of the parts that ran, in this process instead of workers."""
    names = []

    def run_here(parts, workers, report):
        for index, part in enumerate(parts):
            names.append(part.name)
            result = part.run(lambda share: None)
            report([1.0 if i <= index else 0.0 for i in range(len(parts))])
            yield index, result

    monkeypatch.setattr(compute, "run_all", run_here)
    return names


PARTS = ["one"] * 5
"""Two arms, the frozen partner of each, and their planted one."""
EXPERIMENTS = (fake("one", ("moge", "gshard")), FakeAudit("two", (0.1,), 7, 3))


def test_what_is_missing_is_computed_and_stored_and_then_kept(tmp_path, console, ran):
    first = bring_up_to_date(EXPERIMENTS, tmp_path, console)
    assert ran == [*PARTS, "two"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.nc", "two.nc"]
    again = bring_up_to_date(EXPERIMENTS, tmp_path, console)
    assert ran == [*PARTS, "two"]
    for name in ("one", "two"):
        assert again[name].result.equals(first[name].result)
        assert again[name].result.attrs == first[name].result.attrs


def test_only_what_changed_is_computed_again(tmp_path, console, ran):
    bring_up_to_date(EXPERIMENTS, tmp_path, console)
    ran.clear()
    changed = fake("one", ("moge", "gshard"), seeds=(0, 1))
    result = bring_up_to_date((changed, EXPERIMENTS[1]), tmp_path, console)["one"].result
    assert ran == PARTS
    assert list(result.seed.values) == [0, 1]
    assert (
        f"`{tmp_path / 'one.nc'}` is out of date: configuration changed. It is computed again."
        in console.file.getvalue()
    )


def test_other_sources_are_named(tmp_path, console, ran, monkeypatch):
    bring_up_to_date(EXPERIMENTS, tmp_path, console)
    here = simulations.source_hash
    monkeypatch.setattr(simulations, "source_hash", lambda *packages: here(*packages) if packages else "other")
    assert isinstance(look(EXPERIMENTS[1], tmp_path), Stored)
    assert look(EXPERIMENTS[0], tmp_path) == f"`{tmp_path / 'one.nc'}` is out of date: sources changed."


@pytest.mark.parametrize("damage", ["truncated", "not netCDF", "another format"])
def test_a_damaged_file_is_named_and_computed_again(tmp_path, console, ran, damage):
    whole = bring_up_to_date(EXPERIMENTS, tmp_path, console)["one"].result
    ran.clear()
    path = tmp_path / "one.nc"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "not netCDF":
        path.write_text("nothing of the kind")
    else:
        store.save(whole.assign_attrs(format="another"), path)
    again = bring_up_to_date(EXPERIMENTS, tmp_path, console)["one"].result
    assert ran == PARTS
    assert again.equals(whole)
    (line,) = [line for line in console.file.getvalue().splitlines() if "computed again" in line]
    assert line.startswith(f"`{path}` must")


def test_an_interrupted_call_goes_on_where_it_stopped(tmp_path, console, ran, monkeypatch):
    here = compute.run_all

    def interrupted(parts, workers, report):
        for index, result in here(parts, workers, report):
            if parts[index].name == "two":
                raise KeyboardInterrupt
            yield index, result

    monkeypatch.setattr(compute, "run_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(EXPERIMENTS, tmp_path, console)
    assert [path.name for path in tmp_path.iterdir()] == ["one.nc"]
    ran.clear()
    monkeypatch.setattr(compute, "run_all", here)
    bring_up_to_date(EXPERIMENTS, tmp_path, console)
    assert ran == ["two"]


@pytest.mark.usefixtures("ran")
def test_a_folder_that_cannot_be_written_is_named_before_any_work(tmp_path, console, ran):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a file in a writable folder"):
        bring_up_to_date(EXPERIMENTS, tmp_path / "file", console)
    assert ran == []


# Workers are real processes: one test each for what they yield and how they end.


def test_workers_yield_every_result_and_report_shares():
    parts = [fake("one", ("moge",)), fake("two", ("gshard",)), FakeAudit("three", (0.1,), 7, 3)]
    reports = []
    results = dict(run_all(parts, 2, lambda shares: reports.append(list(shares))))
    assert sorted(results) == [0, 1, 2]
    assert [list(results[i].arm.values) for i in (0, 1)] == [["moge"], ["gshard"]]
    assert results[0].equals(parts[0].run(lambda share: None))
    assert reports[-1] == [1.0, 1.0, 1.0]
    assert all(sum(before) <= sum(after) for before, after in itertools.pairwise(reports))
    assert not multiprocessing.active_children()


def test_an_error_in_a_worker_ends_all_of_them():
    parts = [Failing("bad", (0.1,), 0, 3), *[fake(f"more {i}") for i in range(3)]]
    with pytest.raises(ValueError, match="`samples` must be at least 1; got 0"):
        list(run_all(parts, 1, lambda shares: None))
    assert not multiprocessing.active_children()


def test_workers_end_when_nobody_waits_for_them():
    results = run_all([fake("one"), Endless("two", (0.1,), 7, 3)], 2, lambda shares: None)
    assert next(results)[0] == 0
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < Endless.seconds / 2
    assert not multiprocessing.active_children()


def test_workers_end_with_a_command_that_is_killed(tmp_path):
    code = (
        "from paper_figures.workers import run_all; from tests.paper_figures.fakes import Endless\n"
        "if __name__ == '__main__': list(run_all([Endless('one', (0.1,), 7, 3)], 1, lambda shares: None))"
    )
    script = tmp_path / "script.py"  # workers import the script again, so that it must be a file
    script.write_text(code)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)}
    ) as command:
        worker = int(command.stdout.readline())
        command.kill()
    state = Path(f"/proc/{worker}/stat")
    deadline = time.monotonic() + Endless.seconds / 2
    while state.exists() and state.read_text().rsplit(")")[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the worker goes on alone"
        time.sleep(0.1)


def test_a_killed_worker_is_told_from_a_mistake():
    with pytest.raises(WorkerLost, match="ended without a result"):
        list(run_all([Killed("one", (0.1,), 7, 3)], 1, lambda shares: None))
    assert not multiprocessing.active_children()
