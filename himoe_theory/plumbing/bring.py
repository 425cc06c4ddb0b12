"""Names to objects: our own tables, what installed packages offer, and `FILE.py:NAME` from a file of the user's.

Only what is named is loaded. A file or a package brings an object of the kind that is asked for, or a function or a
class that gives one when it is called, with nothing or with what the kind offers (an arm: `partition`, `per_group`).
Packages offer theirs by entry points, `[project.entry-points."himoe.arms"]` in their pyproject.toml.
"""

import dataclasses
import functools
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .loading import Loaded, load
from .origin import brings, origin

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Kind:
    """What can be brought. `name` and `wanted` are words for messages, `group` that of entry points, `is_one` knows an
    object of the kind, and `offers` names what a function that gives one may ask for."""

    name: str
    wanted: str
    group: str
    is_one: Callable[[Any], bool]
    offers: tuple[str, ...] = ()

    def fits(self, thing: Any) -> bool:
        """Whether the object looks like one, or like a function or a class that gives one."""
        if self.is_one(thing) or isinstance(thing, type):
            return self.is_one(thing)
        needed = None if not callable(thing) else _needed(thing)
        return needed is not None and set(needed) <= set(self.offers)

    def holds(self, thing: Any) -> bool:
        """Whether the object is one itself; a class never is, though it may have all that its instances have."""
        return not isinstance(thing, type) and self.is_one(thing)

    @property
    def rule(self) -> str:
        """What must be brought, in words."""
        asked = f"of ({', '.join(self.offers)})" if self.offers else "without arguments"
        return f"{self.wanted}, or a function {asked} that gives one"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the files of users are: paths are relative to `folder`. `sources`: files by path that are not read from the
    disk, as `Loaded.files` has them."""

    folder: Path = Path()
    sources: Mapping[str, Mapping[str, bytes]] = dataclasses.field(default_factory=lambda: _NOTHING)

    def load(self, file: str) -> Loaded:
        """The module of a file. **Raises:** `ValueError`, as `loading.load`."""
        path = (self.folder / Path(file).expanduser()).absolute()
        return load(path, self.sources.get(str(path)))

    def with_sources(self, names: Sequence[str]) -> "Place":
        """With the content of the files that names of the form `FILE.py:NAME` name, as they are now.

        **Raises:** as `load`.
        """
        found = [self.load(_file_and_name(name)[0]) for name in names]
        return Place(self.folder.absolute(), {str(each.path): dict(each.files) for each in found})

    def hash_of(self, kind: Kind, name: str) -> str:
        """Of the file that a name names, or of what a package offers by it. **Raises:** as `resolve`."""
        if names_file(name):
            return self.load(_file_and_name(name)[0]).sha256
        return origin(resolve(kind, name)).sha256


HERE = Place()


def names_file(text: str) -> bool:
    """Whether a name is that of something in a file."""
    return text.endswith(".py") or ".py:" in text


def _file_and_name(text: str) -> tuple[str, str]:
    file, _, name = text.rpartition(":") if ".py:" in text else (text, "", "")
    return file, name


def resolve(kind: Kind, text: str, ours: Mapping[str, Any] = _NOTHING, place: Place = HERE) -> Any:
    """What a name stands for: an object of the kind, or what gives one (see `make`).

    **Arguments:** `ours`: this project's own, by name. **Raises:** `ValueError` in one line: no such file, a file that
    does not load, no such name in it, an object of another type, a name that nobody or that several offer.
    """
    if names_file(text):
        return _of_file(kind, text, place)
    offered = _offered(kind.group, tuple(sys.path)).get(text, ())
    packages = [_package_of(point) for point in offered]
    if text in ours and not offered:
        return ours[text]
    if text in ours or len(offered) > 1:
        both = " and ".join(sorted([*packages, *(["himoe-theory"] if text in ours else [])]))
        raise ValueError(f"`{kind.name}` must be offered once; {text!r} is by {both}. Uninstall one.")
    if not offered:
        known = ", ".join(names(kind, ours))
        raise ValueError(f"`{kind.name}` must be one of {known}, or FILE.py:NAME; got {text!r}.")
    return _of_package(kind, text, offered[0])


def names(kind: Kind, ours: Mapping[str, Any] = _NOTHING) -> list[str]:
    """All names but those in files: ours, then what packages offer, of which nothing is loaded."""
    return [*ours, *(name for name in _offered(kind.group, tuple(sys.path)) if name not in ours)]


def offered(kind: Kind) -> dict[str, str]:
    """Names that installed packages offer, each with its packages, as they call themselves. Nothing is loaded."""
    found = _offered(kind.group, tuple(sys.path))
    return {name: ", ".join(sorted(map(_package_of, points))) for name, points in found.items()}


def make(
    kind: Kind,
    text: str,
    thing: Any,
    *,
    offered: Mapping[str, Any] = _NOTHING,
    fields: Mapping[str, Any] = _NOTHING,
) -> Any:
    """The object of the kind that `resolve` has found, or that what it has found gives.

    **Arguments:** `offered`: what it may ask for. `fields`: what it must take: as arguments, or as fields of a
    dataclass. **Raises:** `ValueError` in one line: it asks for other things, fails, or gives something else.
    """
    if kind.holds(thing):
        return _replaced(text, thing, fields) if fields else thing
    parameters, needed = _parameters(thing), _needed(thing) or []
    lacking = [name for name in needed if name not in offered and name not in fields]
    if lacking:
        raise ValueError(f"`{text}` must be {kind.rule}; it asks for {', '.join(lacking)}.")
    _check_fields(text, fields, parameters)
    given = {name: value for name, value in (dict(offered) | dict(fields)).items() if name in parameters}
    try:
        found = thing(**given)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise ValueError(f"`{text}` must give {kind.wanted}; got {type(error).__name__}: {reason}.") from error
    if not kind.holds(found):
        raise ValueError(f"`{text}` must give {kind.wanted}; got {_described(found)}.")
    return found


def _of_file(kind: Kind, text: str, place: Place) -> Any:
    file, name = _file_and_name(text)
    held = vars(place.load(file).module)
    if name not in held:
        own = [each for each, value in held.items() if not each.startswith("_") and _is_own(held, value)]
        fitting = [each for each in own if kind.fits(held[each])]
        got = f"of this kind it holds {', '.join(fitting)}" if fitting else f"it holds no {kind.name}"
        rule = f"must hold `{name}`" if name else f"must be followed by :NAME of a {kind.name}"
        raise ValueError(f"`{file}` {rule}; {got}.")
    return _checked(kind, text, held[name])


def _is_own(held: Mapping[str, Any], value: Any) -> bool:
    """Whether a file has made a value: functions and classes that it imports are not its own."""
    return getattr(value, "__module__", held["__name__"]) == held["__name__"] or not callable(value)


def _of_package(kind: Kind, text: str, point: importlib.metadata.EntryPoint) -> Any:
    try:
        thing = point.load()
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        package = f"{_package_of(point)} ({point.value})"
        raise ValueError(f"`{text}` of {package} must load; got {type(error).__name__}: {reason}.") from error
    brings(point.module.partition(".")[0])
    return _checked(kind, text, thing)


def _checked(kind: Kind, text: str, thing: Any) -> Any:
    if kind.holds(thing) or callable(thing):
        return thing
    raise ValueError(f"`{text}` must be {kind.rule}; got {_described(thing)}.")


def _described(thing: Any) -> str:
    value = repr(thing)
    return f"{type(thing).__qualname__} {value}" if len(value) <= 40 and "\n" not in value else type(thing).__qualname__


@functools.lru_cache(maxsize=32)  # one entry a group, as long as no package comes or goes
def _offered(group: str, path: tuple[str, ...]) -> Mapping[str, Sequence[importlib.metadata.EntryPoint]]:
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=group):
        if point not in found.setdefault(point.name, []):  # a folder may stand twice on the path
            found[point.name].append(point)
    return found


def _package_of(point: importlib.metadata.EntryPoint) -> str:
    return "a package" if point.dist is None else point.dist.name


def _parameters(thing: Any) -> list[str]:
    try:
        return list(inspect.signature(thing).parameters)
    except (TypeError, ValueError):  # what is written in C need not say
        return []


def _needed(thing: Any) -> list[str] | None:
    """Parameters without a default; `None` if it does not say."""
    try:
        every = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return None
    plain = [each for each in every if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return [each.name for each in plain if each.default is each.empty]


def _replaced(text: str, thing: Any, fields: Mapping[str, Any]) -> Any:
    known: Sequence[dataclasses.Field[Any]] = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
    _check_fields(text, fields, [field.name for field in known])
    return dataclasses.replace(thing, **fields)  # pyright: ignore[reportArgumentType]


def _check_fields(text: str, fields: Mapping[str, Any], known: Sequence[str]) -> None:
    for name, value in fields.items():
        if name not in known:
            there = ", ".join(known) or "none"
            raise ValueError(f"`{name}` must be a field of {text}; got {value!r}, known are {there}.")
