"""The parts of a router by name: what a sweep may put in place of an arm's own, and the numbers in them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from himoe_theory import (
    Above,
    AtRandom,
    ByGate,
    ByPosition,
    ByPriority,
    Capacity,
    Entmax15,
    Everything,
    ExpertChoice,
    GlobalTop,
    GroupedTopK,
    GroupLimited,
    KeepAbove,
    KeepAll,
    KeepFirst,
    KeepRandomly,
    LogitAverage,
    Mass,
    Renormalised,
    Router,
    SelectionBias,
    Sigmoid,
    Sinkhorn,
    Softmax,
    SoftmaxThenMask,
    TopK,
    Uncontrolled,
)

PARTS: Mapping[str, Mapping[str, type]] = {
    "score": {"softmax": Softmax, "sigmoid": Sigmoid, "entmax": Entmax15, "transport": Sinkhorn},
    "selection": {
        "top-k": TopK,
        "grouped-top-k": GroupedTopK,
        "group-limited": GroupLimited,
        "mass": Mass,
        "above": Above,
        "expert-choice": ExpertChoice,
        "global-top": GlobalTop,
        "everything": Everything,
    },
    "policy": {"all": KeepAll, "first": KeepFirst, "above": KeepAbove, "randomly": KeepRandomly},
    "weighting": {"renormalised": Renormalised, "softmax-then-mask": SoftmaxThenMask},
    "controller": {"none": Uncontrolled, "logit-average": LogitAverage, "selection-bias": SelectionBias},
    "capacity": {"limited": Capacity},
}
_INNER: Mapping[str, Mapping[str, type]] = {
    "order": {"position": ByPosition, "random": AtRandom, "priority": ByPriority, "gate": ByGate},
    "inner": {"softmax": Softmax, "sigmoid": Sigmoid},
}
"""Fields that are parts themselves, without numbers of their own."""
_NUMBERS: Mapping[str, Any] = {
    "per_group": int | tuple[int, ...],
    **dict.fromkeys(("k", "groups", "best", "most", "minimum", "rounds", "reroute"), int),
    **dict.fromkeys(("even", "at_least_one"), bool),
    **{name: Literal[tuple(kinds)] for name, kinds in _INNER.items()},
}
"""Types of the parts' fields; all others are numbers."""


def hints(cls: type) -> dict[str, Any]:
    """Types of a part's fields."""
    return {name: _NUMBERS.get(name, float) for name in _fields(cls)}


def named(field: str, default: Any) -> Any:
    """A field's default; of a field that is a part itself, the name of that part."""
    return next((name for name, cls in _INNER.get(field, {}).items() if default == cls()), default)


def with_parts(router: Router, values: Mapping[str, Any]) -> Router:
    """The router with the given parts and numbers, `{"controller.rate": 0.01, ...}`.

    **Raises:** `ValueError` for a field that the part does not have, or a part without a number that it needs.
    """
    changed = {}
    for part, kinds in PARTS.items():
        given = {name.split(".")[1]: value for name, value in values.items() if name.split(".")[0] == part}
        if given:
            changed[part] = _made(part, kinds, getattr(router, part), given)
    return dataclasses.replace(router, **changed) if changed else router


def _made(part: str, kinds: Mapping[str, type], own: Any, given: dict[str, Any]) -> Any:
    kind = given.pop("kind", None)
    cls = type(own) if kind is None else kinds[kind]
    if own is None and kind is None:  # no capacity: whatever is said of one makes one
        (kind, cls), *_ = kinds.items()
    name = next((name for name, one in kinds.items() if one is cls), cls.__name__)  # a user's own has no other
    fields = _fields(cls)
    for field, value in given.items():
        if field not in fields:
            there = ", ".join(f"router.{part}.{each}" for each in fields) or "none"
            raise ValueError(f"`router.{part}.{field}` must be a field of {name!r}; got {value!r}, known are {there}.")
    given = {field: _INNER[field][value]() if field in _INNER else value for field, value in given.items()}
    if isinstance(own, cls):
        return dataclasses.replace(own, **given)
    lacking = [field for field, needed in fields.items() if needed and field not in given]
    if lacking:
        raise ValueError(f"`router.{part}.{lacking[0]}` must be given for {name!r}; got {given or 'nothing'}.")
    return cls(**given)


def _fields(cls: type) -> dict[str, bool]:
    """Names of a part's fields, and whether they must be given."""
    return {field.name: _needed(field) for field in dataclasses.fields(cls)}  # pyright: ignore


def _needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING
