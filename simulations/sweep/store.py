"""A sweep's results on disk: one folder, written so that no crash can damage it.

    manifest.json     the design, what it was computed with, every chunk and the SHA-256 of those that are finished
    chunk-00000.npz   measurements `[runs, ...]` of one chunk, with the setting and seed of each run
    log.jsonl         when, where and how long: all that differs between two sweeps of one design
    lock              held by the one process that writes

A chunk is recorded after its file is whole: after a crash between the two, it is computed again. Manifest and chunks
are equal byte for byte however the work was cut up.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from himoe_theory.plumbing import files
from himoe_theory.plumbing.bring import Place

from ..provenance import source_hash, versions
from .compute import Arrays, Computed
from .design import Design

FORMAT = "himoe-theory sweep 3"
MANIFEST, LOG, LOCK = "manifest.json", "log.jsonl", "lock"


class Damaged(ValueError):
    """A file that is not what was written."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the store for writing, made if there is none. The system lets go when the process ends, however it ends.

    **Raises:** `ValueError` if another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`{folder}` must be a folder that can be written; got {files.reason(error)}.") from error
    rule = "must have one writer at a time; another process is writing"
    with files.locked(folder / LOCK, f"`{folder}` {rule}. Wait until it has ended."):
        files.remove_leftovers(folder)
        yield


class Store:
    """An open store. Only a process that holds its lock may write."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder, self._manifest = folder, manifest

    @classmethod
    def create(cls, folder: Path, design: Design, chunks: int) -> "Store":
        """An empty store. **Raises:** `ValueError` if the folder holds anything else, or cannot be written."""
        strange = [name for name in files.names(folder) if name not in (LOCK, LOG)]
        if strange:
            raise ValueError(f"`{folder}` must be a store or empty; it has no {MANIFEST} and holds {strange[0]}.")
        empty = {chunk_name(i): None for i in range(chunks)}
        manifest = {"format": FORMAT, "design": design.to_json(), "made_by": _makers(design), "chunks": empty}
        store = cls(folder, manifest | _brought(folder, design))
        store._write_manifest()
        return store

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """A store that exists. **Raises:** `ValueError` if there is none, or its manifest is damaged."""
        path = folder / MANIFEST
        if MANIFEST not in files.names(folder):
            raise ValueError(f"`{folder}` must be a store; it has no {MANIFEST}. `himoe-simulate sweep` makes one.")
        content = files.read(path)
        try:
            manifest = json.loads(content)
            whole = manifest.pop("check") == _check(manifest)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            whole = False
        if not whole:
            cure = "Restore it from a copy, or remove the store and run the sweep again"
            raise Damaged(f"`{path}` must be as it was written; it is damaged. {cure}.")
        if manifest["format"] != FORMAT:
            raise ValueError(f"`{path}` must have format {FORMAT!r}; got {manifest['format']!r}.")
        return cls(folder, manifest)

    @property
    def design(self) -> Design:
        """What the store was made for."""
        return Design.from_json(self._manifest["design"])

    def design_with_sources(self) -> Design:
        """The same, with the files that it names: those beside the store where they were, or where they were before.

        **Raises:** `ValueError` if one is in neither place, or does not load.
        """
        design, stored = self.design, self._manifest.get("brought")
        if stored is None:
            return design
        places = [Place(self.folder / stored["from_store"]), Place(Path(stored["folder"]))]
        for place in places:
            with contextlib.suppress(ValueError):
                found = dataclasses.replace(design, place=place).with_sources()
                if not self._changed(found):
                    return found
        return dataclasses.replace(design, place=places[-1]).with_sources()

    @property
    def experts(self) -> int:
        """The most that a setting has. What users bring is not loaded to know it."""
        if "brought" in self._manifest:
            return self._manifest["brought"]["experts"]
        return max(setting.arm.router.partition.num_experts for setting in self.design.settings())

    @property
    def hashes(self) -> dict[str, str | None]:
        """SHA-256 of every chunk file by name; `None` for those that are not finished."""
        return self._manifest["chunks"]

    def check_makers(self, design: Design) -> None:
        """`ValueError` if what is installed, or what users brought to the design, would not give the numbers that are
        stored."""
        for name, now in self._changed(design):
            got = f"{_short(now)}, the store was made by {_short(self._manifest['made_by'].get(name))}"
            cure = "Go back to that version, or start a new store"
            raise ValueError(f"`{self.folder}` must be resumed by the same {name}; got {got}. {cure}.")

    def _changed(self, design: Design) -> list[tuple[str, str]]:
        """What differs from what made the store, and how it is now."""
        stored = self._manifest["made_by"]
        return [(name, now) for name, now in _makers(design).items() if stored.get(name) != now]

    def damaged(self) -> list[str]:
        """Names of chunk files that are recorded and are not what was recorded; they are struck from the record."""
        found = []
        for name, recorded in self.hashes.items():
            if recorded is not None and hashlib.sha256(self._content(name)).hexdigest() != recorded:
                found.append(name)
                self.hashes[name] = None
        return found

    def missing(self) -> list[int]:
        """Numbers of the chunks that are not recorded."""
        return [i for i, recorded in enumerate(self.hashes.values()) if recorded is None]

    def add(self, index: int, computed: Computed) -> None:
        """Writes a chunk, then records it.

        **Raises:** `ValueError` if the disk refuses; what was recorded before stays whole. Or if the chunk was made by
        other sources, versions, devices or flags of the compiler than those before it, so that last bits differ.
        """
        for name, made in computed.made_by.items():
            before = self._manifest["made_by"].setdefault(name, made)
            if before != made:
                raise ValueError(f"`{self.folder}` must have chunks of one {name}, {before}; got one of {made}.")
        name, content = chunk_name(index), _packed(computed.arrays)
        try:
            files.write(self.folder / name, content)
            self.hashes[name] = hashlib.sha256(content).hexdigest()
            self._write_manifest()
            self._log(name, computed)
        except ValueError as error:
            cure = f"What is stored is whole: make room and run `himoe-simulate resume {self.folder}`"
            why = files.reason(error.__cause__ or error)
            raise ValueError(f"`{self.folder / name}` must be written; got {why}. {cure}.") from error

    def read(self, index: int) -> Arrays:
        """A finished chunk. **Raises:** `Damaged` if it is not what was written."""
        name = chunk_name(index)
        content = self._content(name)
        if hashlib.sha256(content).hexdigest() != self.hashes[name]:
            cure = f"Run `himoe-simulate resume {self.folder}`"
            raise Damaged(f"`{self.folder / name}` must be as it was written; it is damaged. {cure}.")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return dict(stored)

    def _content(self, name: str) -> bytes:
        """Of a file; nothing if it cannot be read."""
        try:
            return files.read(self.folder / name)
        except ValueError:
            return b""

    def _write_manifest(self) -> None:
        whole = self._manifest | {"check": _check(self._manifest)}
        files.write(self.folder / MANIFEST, json.dumps(whole, indent=1, sort_keys=True) + "\n")

    def _log(self, name: str, computed: Computed) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        line = {"chunk": name, "stored": now, "seconds": round(computed.seconds, 3), "host": platform.node()}
        files.append(self.folder / LOG, json.dumps(line))


def chunk_name(index: int) -> str:
    """The file of a chunk."""
    return f"chunk-{index:05d}.npz"


def _packed(arrays: Arrays) -> bytes:
    """The same bytes for the same arrays: numpy writes no time into the archive."""
    target = io.BytesIO()
    np.savez(target, **{name: arrays[name] for name in sorted(arrays)})
    return target.getvalue()


def _makers(design: Design) -> dict[str, str]:
    """What this process has in common with those that compute; their devices are their own."""
    return {"sources": _sources()} | versions() | design.hashes_brought()


def _brought(folder: Path, design: Design) -> dict[str, Any]:
    """Where the files are that a design names, and what cannot be known without them; nothing if it names none."""
    if not design.names_brought():
        return {}
    where = design.place.folder.absolute()
    return {
        "brought": {
            "folder": str(where),
            "from_store": os.path.relpath(where, folder.absolute()),
            "experts": max(setting.arm.router.partition.num_experts for setting in design.settings()),
        }
    }


@functools.cache
def _sources() -> str:
    """Once a process: files that change later are not what it runs."""
    return source_hash()


def _check(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _short(version: str | None) -> str:
    return "none" if version is None else version[:12]
