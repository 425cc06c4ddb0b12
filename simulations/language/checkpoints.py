"""Checkpoints: one folder a step, whole or absent, and refused if a byte of it has changed.

    00000200/
      state/            arrays, written by orbax
      manifest.json     step, configuration, and the SHA-256 of every file

A checkpoint is written under another name and renamed when it is complete, so that a crash while saving leaves those
before it as they were. The newest `KEPT` stay.
"""

import contextlib
import functools
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from himoe_theory.plumbing import files

from .. import provenance
from ..sweep.store import Damaged
from . import hosts

FORMAT = "himoe-theory checkpoint 1"
KEPT = 2
MANIFEST = "manifest.json"
_STEP = "[0-9]{8}|[1-9][0-9]{8,17}"


def steps_of(folder: Path) -> list[int]:
    """Steps that have a checkpoint, ascending. **Raises:** `ValueError` if the folder cannot be read."""
    return sorted(int(name) for name in files.names(folder) if re.fullmatch(_STEP, name))


def path_of(folder: Path, step: int) -> Path:
    """The folder of a checkpoint."""
    return folder / f"{step:08d}"


def save(folder: Path, step: int, tree: Any, configuration: Mapping[str, Any]) -> None:
    """Writes a checkpoint whole or not at all, and removes all but the newest `KEPT`. All processes of a run call it.

    **Arguments:** `tree`: any pytree of arrays, those of JAX and NumPy. `configuration`: JSON values; see `check`.
    **Raises:** `ValueError` if the disk refuses.
    """
    import orbax.checkpoint as ocp  # here, as it takes half a second that other commands need not wait

    final = path_of(folder, step)
    part = folder / f".{final.name}.part"
    try:
        if hosts.leads():
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in _parts(folder):
                files.remove(leftover)
        hosts.wait("checkpoint begun")
        with _quiet(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
            writer.save((part / "state").resolve(), _stored(tree))
        if hosts.leads():
            _complete(folder, part, {"format": FORMAT, "step": step, "configuration": configuration})
        hosts.wait("checkpoint complete")
    except Exception as error:  # tensorstore has errors of its own for a full disk
        cure = "Earlier checkpoints are whole: make room and resume"
        why = files.reason(error.__cause__ if isinstance(error, ValueError) and error.__cause__ else error)
        raise ValueError(f"`{final}` must be written; got {why}. {cure}.") from error


def _complete(folder: Path, part: Path, manifest: dict[str, Any]) -> None:
    """Gives a part that is whole its manifest and its name, and removes what it replaces."""
    final = path_of(folder, manifest["step"])
    manifest |= {"files": _hashes(part)}
    files.write(part / MANIFEST, json.dumps(manifest | {"check": _check(manifest)}, indent=1) + "\n")
    if final.exists():  # from before the run went back to an earlier one
        final.rename(folder / f".{final.name}.old.part")
    part.rename(final)
    files.sync(folder)
    for stale in [path_of(folder, s) for s in steps_of(folder)[:-KEPT]] + _parts(folder):
        files.remove(stale)


def _parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


def check(folder: Path, step: int, configuration: Mapping[str, Any], *, free: Sequence[tuple[str, ...]] = ()) -> None:
    """Whether a checkpoint is as it was written and was made with this configuration.

    **Arguments:** `free`: fields that may differ, each by the names on the way to it. **Raises:** `Damaged`, naming the
    file and the checkpoint before; `ValueError`, naming the first field that differs.
    """
    path = path_of(folder, step)
    if not path.is_dir():
        found = ", ".join(map(str, steps_of(folder))) or "none"
        raise ValueError(f"`{path}` must be a checkpoint; there is none. Steps with one: {found}.")
    manifest = _manifest(folder, step)
    now = _hashes(path)
    for name, recorded in manifest["files"].items():
        if now.get(name) != recorded:
            raise _damaged(folder, step, name)
    given = json.loads(json.dumps(configuration))
    for *outer, name in free:
        stored, own = (functools.reduce(dict.__getitem__, outer, each) for each in (manifest["configuration"], given))
        own[name] = stored.get(name)
    differs = provenance.difference(manifest["configuration"], given)
    if differs is not None:
        name, stored, now_given = differs
        raise ValueError(
            f"`{name}` must be as in {path} to resume, {provenance.short(stored)}; got {provenance.short(now_given)}. "
            "Give it as it was, or start a new run elsewhere."
        )


def restore(folder: Path, step: int, template: Any) -> Any:
    """The tree of a checkpoint that `check` has passed.

    **Arguments:** `template`: a tree of the same structure, shapes, types and shardings; its values do not matter.
    """
    import orbax.checkpoint as ocp

    def wanted(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    expected = {name: wanted(leaf) for name, leaf in _stored(template).items()}
    with _quiet(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        found = reader.restore((path_of(folder, step) / "state").resolve(), args=ocp.args.StandardRestore(expected))
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    return structure.unflatten([found.get(_name(path), leaf) for path, leaf in leaves])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax advises on its own speed through absl's log, and prints there what it also raises."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _stored(tree: Any) -> dict[str, Any]:
    """Leaves by name, without empty arrays, which orbax does not take."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if leaf.size}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _manifest(folder: Path, step: int) -> dict[str, Any]:
    try:
        manifest = files.read_json(path_of(folder, step) / MANIFEST)
        whole = manifest.pop("check") == _check(manifest)
    except (ValueError, KeyError, AttributeError, TypeError):
        whole = False
    if not whole:
        raise _damaged(folder, step, MANIFEST)
    if manifest["format"] != FORMAT:
        raise ValueError(f"`{path_of(folder, step)}` must have format {FORMAT!r}; got {manifest['format']!r}.")
    return manifest


def _damaged(folder: Path, step: int, file: str) -> Damaged:
    before = [s for s in steps_of(folder) if s < step]
    cure = f"resume from the one before with `--from-step {before[-1]}`" if before else "there is none before it"
    return Damaged(f"`{path_of(folder, step)}` must be as it was written; {file} is damaged: {cure}.")


def _hashes(folder: Path) -> dict[str, str]:
    held = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): _hash(path) for path in held}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
