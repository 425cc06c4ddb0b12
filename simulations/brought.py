"""What in a configuration was brought by a user: its sources, for compile keys, fingerprints and results."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import equinox as eqx

from himoe_theory.plumbing.origin import cell_content, is_ours, origin, without_checks

PLAIN = (type(None), bool, int, float, complex, str, bytes)


def parts(x: Any) -> Iterator[Any]:
    """Whatever a configuration holds, at any depth, that is not this project's, not Python's, and no array: functions,
    classes, and objects; of a dataclass its class."""
    if type(x) in PLAIN or hasattr(x, "dtype") or _known_ours(x):
        return
    yield from _inside(x)


def _known_ours(x: Any) -> bool:
    """Objectives and other frozen records of ours come by the thousand in sweeps: each is looked through once."""
    if not dataclasses.is_dataclass(x) or isinstance(x, eqx.Module):  # modules are slow to hash
        return False
    try:
        return _ours_throughout(x)
    except TypeError:  # not hashable
        return False


@functools.lru_cache(maxsize=1024)
def _ours_throughout(x: Any) -> bool:
    return not any(True for _ in _inside(x))


def _inside(x: Any) -> Iterator[Any]:
    if isinstance(x, Mapping):
        inner: Any = x.values()
    elif isinstance(x, list | tuple | set | frozenset):
        inner = x
    elif isinstance(x, functools.partial):
        inner = (x.func, x.args, x.keywords)
    elif dataclasses.is_dataclass(x) and not isinstance(x, type):
        if not is_ours(x):
            yield type(x)
        inner = (getattr(x, field.name) for field in dataclasses.fields(x))
    elif not is_ours(x):
        yield x
        return
    elif isinstance(x, FunctionType):
        inner = closed_over(without_checks(x))
    else:
        return
    for each in inner:
        yield from parts(each)


def closed_over(function: FunctionType) -> tuple[Any, ...]:
    """The values that a function was made with."""
    return (*(function.__defaults__ or ()), *map(cell_content, function.__closure__ or ()))


def key(*configurations: Any) -> tuple[str, ...]:
    """Hashes of all that they hold that was brought: equal programs have equal ones. Empty for what is ours."""
    return tuple(origin(part).sha256 for each in configurations for part in parts(each))


def described(x: Any) -> dict[str, str | None]:
    """Name, file and hash of a function, a class or an object, as JSON values. The file's folder does not count."""
    found = origin(x)
    file = None if found.file is None else Path(found.file).name
    return {"name": found.name, "file": file, "sha256": found.sha256}


def by_name(configuration: Any) -> dict[str, dict[str, str | None]]:
    """All that it holds, described, as FILE:NAME, so that a message can say what has changed."""
    found: dict[str, dict[str, str | None]] = {}
    for part in parts(configuration):
        one = described(part)
        name = f"{one['file'] or 'typed in'}:{one['name']}"
        alike = sum(other.split(" ")[0] == name.split(" ")[0] for other in found)
        found[f"{name} ({alike + 1})" if alike else name] = one
    return found


def listed(configuration: Any) -> list[dict[str, str | None]]:
    """All of them in a configuration that has been described, each once."""
    found: list[dict[str, str | None]] = []
    if isinstance(configuration, dict):
        if "sha256" in configuration and "file" in configuration:
            found.append({name: configuration[name] for name in ("name", "file", "sha256")})
        inner = list(configuration.values())
    else:
        inner = configuration if isinstance(configuration, list) else []
    for each in inner:
        found += [one for one in listed(each) if one not in found]
    return found
