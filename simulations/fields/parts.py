"""The parts of a router by name: what a sweep may put in place of an arm's own, and the numbers in them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from himoe_theory import (
    Capacity,
    Everything,
    GroupedTopK,
    KeepAbove,
    KeepAll,
    KeepFirst,
    KeepRandomly,
    LogitAverage,
    Renormalised,
    Router,
    SelectionBias,
    Sigmoid,
    Softmax,
    SoftmaxThenMask,
    TopK,
    Uncontrolled,
)

PARTS: Mapping[str, Mapping[str, type]] = {
    "score": {"softmax": Softmax, "sigmoid": Sigmoid},
    "selection": {"top-k": TopK, "grouped-top-k": GroupedTopK, "everything": Everything},
    "policy": {"all": KeepAll, "first": KeepFirst, "above": KeepAbove, "randomly": KeepRandomly},
    "weighting": {"renormalised": Renormalised, "softmax-then-mask": SoftmaxThenMask},
    "controller": {"none": Uncontrolled, "logit-average": LogitAverage, "selection-bias": SelectionBias},
    "capacity": {"limited": Capacity},
}
_NUMBERS: Mapping[str, Any] = {"k": int, "per_group": int | tuple[int, ...], "minimum": int, "even": bool}
"""Types of the parts' fields; all others are numbers."""


def hints(cls: type) -> dict[str, Any]:
    """Types of a part's fields."""
    return {name: _NUMBERS.get(name, float) for name in _fields(cls)}


def with_parts(router: Router, values: Mapping[str, Any]) -> Router:
    """The router with the given parts and numbers, `{"controller.rate": 0.01, ...}`.

    **Raises:** `ValueError` for a field that the part does not have, or a part without a number that it needs.
    """
    changed = {}
    for part, kinds in PARTS.items():
        given = {name.split(".")[1]: value for name, value in values.items() if name.split(".")[0] == part}
        if given:
            changed[part] = _made(part, kinds, getattr(router, part), given)
    return dataclasses.replace(router, **changed)


def _made(part: str, kinds: Mapping[str, type], own: Any, given: dict[str, Any]) -> Any:
    kind = given.pop("kind", None)
    cls = type(own) if kind is None else kinds[kind]
    if own is None and kind is None:  # no capacity: whatever is said of one makes one
        (kind, cls), *_ = kinds.items()
    name = next(name for name, one in kinds.items() if one is cls)
    fields = _fields(cls)
    for field, value in given.items():
        if field not in fields:
            there = ", ".join(f"router.{part}.{each}" for each in fields) or "none"
            raise ValueError(f"`router.{part}.{field}` must be a field of {name!r}; got {value!r}, known are {there}.")
    if isinstance(own, cls):
        return dataclasses.replace(own, **given)
    lacking = [field for field, needed in fields.items() if needed and field not in given]
    if lacking:
        raise ValueError(f"`router.{part}.{lacking[0]}` must be given for {name!r}; got {given or 'nothing'}.")
    return cls(**given)


def _fields(cls: type) -> dict[str, bool]:
    """Names of a part's fields, and whether they must be given."""
    return {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(cls)}  # pyright: ignore
