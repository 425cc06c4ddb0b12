"""Fields as text: `FIELD=VALUE` and `NAME=COEFFICIENT`, as a command line has them."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .known import LAYER, OBJECTIVE_NAMES, Scope, check, free_below, known, objective_names, typed
from .types import Value


def read(
    sets: Sequence[str],
    terms: Sequence[str] = (),
    scope: Scope = LAYER,
    kinds: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Value]:
    """The fields that `--set FIELD=VALUE` and `--term NAME=COEFFICIENT` give, each at most once.

    A value is one of TOML; what is none stands for itself, so that strings need no quotes. `kinds`: fields that other
    options give, by which a user may bring a class with fields of its own. **Raises:** `ValueError`.
    """
    found: dict[str, Value] = {}
    texts = _pairs("set", "FIELD=VALUE", sets)
    of_users = free_below(dict(kinds) | dict(texts), scope)
    for name, text in texts:
        found[name] = check("--set", name, value_of(name, text, scope), of_users, scope)
    for text, coefficient in _pairs("term", "NAME=COEFFICIENT", terms):
        field = f"terms.{objective(text)}"
        if field in found:
            raise ValueError(f"`{field}` must be given once; got {found[field]!r} and {coefficient}.")
        found[field] = check("--term", field, value_of(field, coefficient, scope), scope=scope)
    return found


def objective(name: str) -> str:
    """The objective that a text names. **Raises:** `ValueError` with those that look like it, or all."""
    every = objective_names()
    if name not in every and not OBJECTIVE_NAMES.brings(name):
        alike = difflib.get_close_matches(name, every, n=4) or [each for each in every if name in each] or every
        raise ValueError(f"`term` must name an objective; got {name!r}, known are {', '.join(alike)}.")
    return name


def value_of(name: str, text: str, scope: Scope = LAYER) -> Any:
    """A TOML value; for a field that takes strings, and for what is no TOML, the text itself."""
    try:
        read = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    if len(read) != 1:  # of several lines
        return text
    return text if known(scope).get(name) is str and not isinstance(read["value"], str) else read["value"]


def _pairs(option: str, form: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Names and values; the last = counts for a name that may hold one, the first for a value that may."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.rpartition("=") if option == "term" else text.partition("=")
        if not equals:
            raise ValueError(f"`{option}` must be {form}; got {text!r}.")
        name = name.strip()
        if name in found:
            raise ValueError(f"`{option}` must give a name once; got {name}={found[name]} and {text}.")
        found[name] = value.strip()
    return list(found.items())


def given(options: Any, names: Mapping[str, str], sets: Mapping[str, Value], scope: Scope = LAYER) -> dict[str, Value]:
    """The fields that are set, and those that the options of a command stand for: those that are not at their default.

    **Arguments:** `options`: a dataclass. `names`: the field of an option. **Raises:** `ValueError` for an option that
    its field does not take, a field that is given by an option as well, or an arm.
    """
    found: dict[str, Value] = {}
    if "arm" in sets:
        raise ValueError(f"`set` must leave the arm to `--arm`; got arm={sets['arm']}.")
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for option, field in names.items():
        value = getattr(options, option)
        if value == defaults[option]:
            continue
        if field in sets:
            flag = f"--{option.replace('_', '-')}"
            raise ValueError(f"`{field}` must be given once; got {sets[field]!r} and {flag} {value!r}.")
        found[field] = typed(f"`{option}`", known(scope)[field], value)
    return found | sets
