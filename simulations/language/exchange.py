"""A model as the released code reads it: weights under nanoGPT's names, and beside them its settings as JSON.

The settings hold the SHA-256 of the weights and of themselves, under a name that no setting has. Files of others hold
none, and are read as they are.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from himoe_theory.controllers import Tree
from himoe_theory.plumbing import files

from . import weights
from .blocks import Parameters
from .model import Model
from .released import from_settings, to_settings

HASHES = "sha256"


def settings_file(path: Path) -> Path:
    """Where the settings of a weights file are. **Raises:** `ValueError` for a file of another kind."""
    if path.suffix != ".safetensors":
        raise ValueError(f"a file of weights must end in .safetensors; got {path}.")
    return path.with_suffix(".json")


def write(
    path: Path,
    model: Model,
    parameters: Parameters,
    state: Tree,
    *,
    step: int,
    replace: bool = True,
) -> dict[str, float]:
    """Both files, each whole or not at all. **Returns:** the objectives that settings cannot say.

    **Raises:** `ValueError` for a model without counterpart in the released code, a disk that refuses, or files that
    are there, if not `replace`.
    """
    settings, left = to_settings(model)
    beside = settings_file(path)
    for file in (path, beside):
        files.writable(file, replace=replace)
    weights.save(path, model, parameters, state, step=step)
    settings |= {HASHES: {"weights": _hash(path), "settings": _check(settings)}}
    files.write(beside, json.dumps(settings, indent=1) + "\n")
    return left


def described(path: Path) -> Model | None:
    """The model that the settings beside a weights file describe; `None` where there are none.

    **Raises:** `ValueError` for settings that cannot be read or have no counterpart, or if they hold other hashes than
    those of these settings and weights.
    """
    settings = _settings(path)
    if settings is None:
        return None
    try:
        return from_settings(settings)
    except ValueError as error:
        raise ValueError(f"{settings_file(path)}: {error}") from error


def digest(path: Path) -> str:
    """SHA-256 of a weights file. **Raises:** `ValueError` if there is none, or as `described` does."""
    _settings(path)
    return _hash(path)


def _settings(path: Path) -> dict[str, Any] | None:
    """What stands beside weights, if hashes stand there, they are right."""
    beside = settings_file(path)
    if not os.path.lexists(beside):
        return None
    try:
        settings = json.loads(files.read(beside).decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"`{beside}` must be settings as JSON; it cannot be read.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"`{beside}` must be settings as JSON, names and values; got {type(settings).__name__}.")
    hashes = settings.pop(HASHES, None)
    if hashes is not None and hashes != {"weights": _hash(path), "settings": _check(settings)}:
        rule = f"must be as they were exported, with the SHA-256 that {beside} holds"
        raise ValueError(f"`{path}` and its settings {rule}; they are not. Export them again.")
    return settings


def _check(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"`{path}` must be a file of weights; got {error.strerror}.") from error
