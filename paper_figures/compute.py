"""Brings stored results up to date: loads what is there, computes what is missing, changed or damaged.

Parts of experiments run side by side in processes: half of the time goes into compiling, which uses one core. Every
result is stored as soon as it exists, so that an interrupted call goes on where it stopped.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from himoe_theory.plumbing import files
from simulations import store

from .plan import Experiment, shipped, stale
from .workers import run_all

SHIPPED = Path(__file__).parent / "evidence"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A result that is up to date, and where it is stored."""

    result: xr.Dataset
    path: Path


def path_of(experiment: Experiment, folder: Path) -> Path:
    """Where a result is stored: those that come with this package, beside its sources."""
    if shipped(experiment):
        folder = SHIPPED
    return folder / f"{experiment.name}.nc"


def bring_up_to_date(experiments: Sequence[Experiment], folder: Path, console: Console) -> dict[str, Stored]:
    """All results by name, computing those that need it, and saying in one line why.

    **Raises:** `ValueError` if something must be computed and the folder cannot be written.
    """
    found: dict[str, Stored] = {}
    missing: list[Experiment] = []
    for each in experiments:
        stored = look(each, folder)
        if isinstance(stored, Stored):
            found[each.name] = stored
        else:
            missing.append(each)
            if stored:
                say(console, f"{stored} It is computed again.")
    if missing:
        files.writable(path_of(missing[0], folder))
        found |= _compute(missing, folder, console)
    return {each.name: found[each.name] for each in experiments}


def look(experiment: Experiment, folder: Path) -> Stored | str:
    """The stored result if it is what would be computed now; otherwise why not, or nothing if there is none."""
    path = path_of(experiment, folder)
    if not path.exists():
        return ""
    try:
        result = store.read_result(path)
    except ValueError as error:
        return str(error)
    changed = stale(experiment, result)
    return f"`{path}` is out of date: {' and '.join(changed)} changed." if changed else Stored(result, path)


def say(console: Console, line: str) -> None:
    """One line as it is, however narrow the screen."""
    console.print(line, soft_wrap=True, highlight=False)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compute(experiments: Sequence[Experiment], folder: Path, console: Console) -> dict[str, Stored]:
    parts = [part for each in experiments for part in each.parts()]
    left = {each.name: len(each.parts()) for each in experiments}
    planned = {each.name: each for each in experiments}
    done: dict[str, dict[int, xr.Dataset]] = {each.name: {} for each in experiments}
    found: dict[str, Stored] = {}
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    # Speed is averaged long: programs compile, and then run, at very different paces.
    averaged = {"transient": True, "speed_estimate_period": 600}
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, **averaged) as bar:
        task = bar.add_task("", total=sum(part.cost for part in parts))

        def report(shares: Sequence[float]) -> None:
            now = sum(share * part.cost for share, part in zip(shares, parts, strict=True))
            names = sorted({part.name for share, part in zip(shares, parts, strict=True) if share < 1})
            bar.update(task, completed=now, description=f"computing {', '.join(names)}")

        for index, result in run_all(parts, min(cores(), 4), report):
            name = parts[index].name
            done[name][index] = result
            if len(done[name]) == left[name]:
                path = path_of(planned[name], folder)
                joined = planned[name].join([done[name][i] for i in sorted(done[name])])
                store.save(joined, path)
                parts_in_all = f"{left[name]} parts, " if left[name] > 1 else ""
                say(console, f"{path}: computed, {parts_in_all}{joined.attrs['seconds']:.0f} s in all")
                found[name] = Stored(joined, path)
    return found
