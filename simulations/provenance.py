"""Where a result comes from: configuration, seeds, versions, device, dtype and commit, as attributes of the data
set."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from himoe_theory.plumbing.origin import is_ours

from . import brought
from .arms import Arm
from .data import Data
from .gates import Gate, name_of
from .layer import Layer
from .store import FORMAT
from .training import Training

_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "equinox", "himoe-theory")


def describe(x: Any) -> Any:
    """A frozen configuration as plain JSON values, with the class's name under `kind`.

    What is no value, such as a function, is described by its name, its file and the hash of all that defines it; so is
    the class of what a user brings, under `source`. Fields whose metadata say `described`: `False` are left out, and so
    are those that say `if changed` where they have their default: what was stored before there was such a field stands.
    """
    if isinstance(x, Gate) and name_of(x) is not None:
        return name_of(x)
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        shown = [f.name for f in dataclasses.fields(x) if _is_shown(f, getattr(x, f.name))]
        found = {"kind": type(x).__name__} | {name: describe(getattr(x, name)) for name in shown}
        hidden = [getattr(x, f.name) for f in dataclasses.fields(x) if f.name not in shown]
        users = brought.by_name(hidden)
        found |= {"brought": users} if users else {}
        return found if is_ours(x) else found | {"source": brought.described(type(x))}
    if isinstance(x, (list, tuple)):
        return [describe(item) for item in x]
    if hasattr(x, "items"):
        return {str(k): describe(v) for k, v in x.items()}
    if type(x) in brought.PLAIN or hasattr(x, "dtype"):
        return x
    return {"kind": "function" if callable(x) else type(x).__name__} | brought.described(x)


def _is_shown(field: dataclasses.Field[Any], value: Any) -> bool:
    how = field.metadata.get("described", True)
    if how != "if changed":
        return bool(how)
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return value != default


def configuration(
    arms: Sequence[Arm], data: Data, layer: Layer, training: Training, seeds: Sequence[int]
) -> dict[str, Any]:
    """Everything that determines a result, as JSON values."""
    return {
        "arms": [describe(arm) for arm in arms],
        "data": describe(data),
        "layer": describe(layer),
        "training": describe(training),
        "seeds": [int(s) for s in seeds],
    }


def difference(stored: Any, given: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Dotted name, stored and given value of the first field in which two JSON values differ."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in [*stored, *(key for key in given if key not in stored)]:
            inner = f"{name}.{key}" if name else key
            found = difference(stored.get(key), given.get(key), inner)
            if found is not None:
                return found
        return None
    return None if stored == given else (name, stored, given)


def short(value: Any) -> str:
    """A JSON value for a message of one line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def source_hash(*packages: str) -> str:
    """SHA-256 over the Python files of some packages of this project, in the order of their paths.

    If none is named, of those that results of simulations depend on: himoe_theory and simulations.
    """
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in packages or ("himoe_theory", "simulations"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def made_by() -> dict[str, str]:
    """What the last bits of a result depend on besides its configuration: sources, versions, device and compiling."""
    devices = jax.local_devices()
    kind = processor() if devices[0].platform == "cpu" else devices[0].device_kind
    # How many devices a host is cut into is part of `device`.
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    flags += ["unoptimised"] if jax.config.read("jax_disable_most_optimizations") else []
    how = {"device": f"{kind} x {len(devices)}", "compiled": " ".join(sorted(flags)) or "as usual"}
    return {"sources": source_hash()} | versions() | how


def processor(root: Path = Path("/")) -> str:
    """The processor's name, as the system lists it."""
    listed = root / "proc/cpuinfo"
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def commit() -> str:
    """The checkout's commit, with `+changes` if the sources differ from it; `unknown` outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def provenance(
    arms: Sequence[Arm], data: Data, layer: Layer, training: Training, seeds: Sequence[int], seconds: float
) -> dict[str, str | float]:
    """Attributes stored with a result of `simulate`."""
    return attributes(configuration(arms, data, layer, training, seeds), seconds)


def attributes(configuration: dict[str, Any], seconds: float, dtype: str = "float32") -> dict[str, str | float]:
    """Attributes stored with any result, `configuration` being what determines it."""
    return {
        "format": FORMAT,
        "configuration": json.dumps(configuration, sort_keys=True),
        "versions": json.dumps(versions(), sort_keys=True),
        "brought": json.dumps(brought.listed(configuration)),
        "sources": source_hash(),
        "commit": commit(),
        "device": jax.devices()[0].device_kind,
        "dtype": dtype,
        "seconds": seconds,
    }
