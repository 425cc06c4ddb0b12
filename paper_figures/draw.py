"""Draws the figures whose inputs or sources changed since they were last drawn."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from proofs_checks.files import write

from . import style
from .catalogue import Entry
from .compute import Stored
from .plan import sources

STAMPS = ".drawn.json"
"""Beside the figures: name → digest of all that a figure was drawn from."""


def stamp(entry: Entry, stored: Mapping[str, Stored]) -> str:
    """Digest of everything that a figure is made of: result files, drawing sources, version of matplotlib."""
    digest = hashlib.sha256(f"{sources('paper_figures')} {importlib.metadata.version('matplotlib')}".encode())
    for name in entry.needs:
        digest.update(stored[name].path.read_bytes())
    return digest.hexdigest()


def current(entry: Entry, stored: Mapping[str, Stored], out: Path) -> bool:
    """Whether a figure is there and drawn from these results by these sources."""
    files = [out / f"{entry.stem}.{kind}" for kind in ("png", "pdf")]
    return _stamps(out).get(entry.stem) == stamp(entry, stored) and all(file.is_file() for file in files)


def draw(entries: Sequence[Entry], stored: Mapping[str, Stored], out: Path) -> list[Entry]:
    """Draws what is not current, and returns it. **Raises:** `ValueError` if the folder cannot be written."""
    drawn = []
    for entry in entries:
        if not current(entry, stored, out):
            style.save(entry.draw(*results(entry, stored)), out, entry.stem)
            write(out / STAMPS, json.dumps(_stamps(out) | {entry.stem: stamp(entry, stored)}, indent=1) + "\n")
            drawn.append(entry)
    return drawn


def results(entry: Entry, stored: Mapping[str, Stored]) -> list[xr.Dataset]:
    """What a figure is drawn from, in its order."""
    return [stored[name].result for name in entry.needs]


def _stamps(out: Path) -> dict[str, str]:
    try:
        found = json.loads((out / STAMPS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or damaged: everything is drawn again
        return {}
    return found if isinstance(found, dict) else {}
