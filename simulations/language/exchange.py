"""A model as the released code reads it: weights under nanoGPT's names, and beside them its settings as JSON."""

import hashlib
import json
from pathlib import Path

from jaxtyping import Array, Float

from ..sweep.store import write_whole
from . import weights
from .blocks import Parameters
from .model import Model
from .released import from_settings, to_settings


def settings_file(path: Path) -> Path:
    """Where the settings of a weights file are. **Raises:** `ValueError` for a file of another kind."""
    if path.suffix != ".safetensors":
        raise ValueError(f"a file of weights must end in .safetensors; got {path}.")
    return path.with_suffix(".json")


def write(
    path: Path, model: Model, parameters: Parameters, state: Float[Array, "moe_layers experts"], *, step: int
) -> dict[str, float]:
    """Both files, each whole or not at all. **Returns:** the objectives that settings cannot say.

    **Raises:** `ValueError` for a model without counterpart in the released code, or a disk that refuses.
    """
    from safetensors import SafetensorError

    settings, left = to_settings(model)
    beside = settings_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        weights.save(path, model, parameters, state, step=step)
        write_whole(beside, (json.dumps(settings, indent=1) + "\n").encode())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"`{path}` must be a file in a writable folder; got {str(error).splitlines()[0]}.") from error
    return left


def described(path: Path) -> Model | None:
    """The model that the settings beside a weights file describe; `None` where there are none.

    **Raises:** `ValueError` for settings that cannot be read or have no counterpart.
    """
    beside = settings_file(path)
    if not beside.is_file():
        return None
    try:
        settings = json.loads(beside.read_bytes())
    except ValueError as error:
        raise ValueError(f"`{beside}` must be settings as JSON; it cannot be read.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"`{beside}` must be settings as JSON, names and values; got {type(settings).__name__}.")
    try:
        return from_settings(settings)
    except ValueError as error:
        raise ValueError(f"{beside}: {error}") from error


def digest(path: Path) -> str:
    """SHA-256 of a weights file. **Raises:** `ValueError` if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"`{path}` must be a file of weights; got {error.strerror}.") from error
