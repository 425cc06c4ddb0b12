"""Draws the figures whose inputs or sources changed since they were last drawn."""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import xarray as xr

from himoe_theory.plumbing.files import read, write
from simulations import source_hash, workers

from . import style
from .catalogue import Entry
from .compute import Stored, cores

FEW = 6
"""Figures that are drawn one after another: starting processes takes as long."""
Job = tuple[Entry, list[xr.Dataset], Path]
STAMPS = ".drawn.json"
"""Beside the figures: name → digest of all that a figure was drawn from."""


def stamp(entry: Entry, stored: Mapping[str, Stored]) -> str:
    """Digest of everything that a figure is made of: result files, drawing sources, version of matplotlib."""
    digest = hashlib.sha256(f"{source_hash('paper_figures')} {importlib.metadata.version('matplotlib')}".encode())
    for name in entry.needs:
        digest.update(read(stored[name].path))
    return digest.hexdigest()


def current(entry: Entry, stored: Mapping[str, Stored], out: Path) -> bool:
    """Whether a figure is there and drawn from these results by these sources."""
    files = [out / f"{entry.stem}.{kind}" for kind in ("png", "pdf")]
    return _stamps(out).get(entry.stem) == stamp(entry, stored) and all(file.is_file() for file in files)


def draw(entries: Sequence[Entry], stored: Mapping[str, Stored], out: Path) -> list[Entry]:
    """Draws what is not current, and returns it. **Raises:** `ValueError` if the folder cannot be written."""
    outdated = [entry for entry in entries if not current(entry, stored, out)]
    jobs = [(entry, results(entry, stored), out) for entry in outdated]
    for place in _places(jobs):
        done = outdated[place]
        write(out / STAMPS, json.dumps(_stamps(out) | {done.stem: stamp(done, stored)}, indent=1) + "\n")
    return outdated


def _places(jobs: Sequence[Job]) -> Iterator[int]:
    """Draws, and yields the place of what is drawn."""
    if len(jobs) > FEW:
        yield from (place for place, _ in workers.run_all(_draw, jobs, min(cores(), 4), lambda shares: None))
    else:
        for place, job in enumerate(jobs):
            _draw(job)
            yield place


def _draw(job: Job, report: workers.Share | None = None) -> None:
    entry, data, out = job
    style.save(entry.draw(*data), out, entry.stem)


def results(entry: Entry, stored: Mapping[str, Stored]) -> list[xr.Dataset]:
    """What a figure is drawn from, in its order."""
    return [stored[name].result for name in entry.needs]


def _stamps(out: Path) -> dict[str, str]:
    try:
        found = json.loads(read(out / STAMPS))
    except (ValueError, RecursionError):  # not there, or damaged: everything is drawn again
        return {}
    return found if isinstance(found, dict) else {}
