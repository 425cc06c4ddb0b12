"""Fields of a configuration by dotted name: which there are, what type each has, and the setting that they make.

`arm`; `gate`; `terms.NAME` (an objective's coefficient, added to the arm's own); `router.experts` and `.groups`, or
`.group_of` for unequal groups; `.per_group`; `router.PART.kind` and `router.PART.FIELD` for another part, or other
numbers, in the arm's router (see `parts`); `data.kind` and the fields of that data; `layer.expert.kind`, the fields of
that expert and the layer's own; `training.*`. What is not given has the default of the class, but `training.records`
is 1: the start and the end.
"""

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from himoe_theory import Partition, _checks
from himoe_theory.objectives import OBJECTIVES, OUTPUT_OBJECTIVES

from ..arms import Arm, Gate, arms, choose
from ..data import KINDS
from ..experts import EXPERTS
from ..layer import Layer
from ..training import Setting, Training
from . import parts

Value = bool | int | float | str | tuple[Any, ...]
_MOST_EXPERTS = 2**16
"""Ten times any published layer; a partition lists its experts one by one."""
SHAPE = {"experts": int, "groups": int, "group_of": tuple[int, ...], "per_group": int | tuple[int, ...]}
"""Fields of `router` that arms are made for."""


@functools.cache
def known() -> Mapping[str, Any]:
    """Every field's name and type."""
    found: dict[str, Any] = {"arm": str, "gate": Gate}
    found |= {f"terms.{name}": float for name in sorted([*OBJECTIVES, *OUTPUT_OBJECTIVES])}
    found |= {f"router.{name}": hint for name, hint in SHAPE.items()}
    for name, hint in parts.known().items():
        found[f"router.{name}"] = Literal[tuple(hint)] if name.endswith(".kind") else hint
    found |= {"data.kind": Literal[tuple(KINDS)]} | _hints("data", *KINDS.values())
    found |= _hints("layer", Layer)
    del found["layer.expert"]  # a class of its own
    found |= {"layer.expert.kind": Literal[tuple(EXPERTS)]} | _hints("layer.expert", *EXPERTS.values())
    return types.MappingProxyType(found | _hints("training", Training))


@functools.cache
def _hints(prefix: str, *classes: type) -> dict[str, Any]:
    """What the classes' fields may be: where several have a field of one name, what any of them takes."""
    found: dict[str, Any] = {}
    for one in classes:
        hints = get_type_hints(one)
        for field in dataclasses.fields(one):
            name, hint = f"{prefix}.{field.name}", hints[field.name]
            found[name] = found[name] | hint if name in found else hint
    return found


def check(where: str, name: str, value: Any) -> Value:
    """The value as the field's type has it. `where` says in which table it was found.

    **Raises:** `ValueError` for an unknown field or a value of another type.
    """
    fields = known()
    if name not in fields:
        head = name.split(".")[0]
        near = [field for field in fields if field.split(".")[0] == head] or list(fields)
        raise ValueError(f"`{name}` in [{where}] must be a field; got {value!r}, known are {', '.join(near)}.")
    try:
        return _convert(fields[name], value)
    except TypeError:
        raise ValueError(f"`{name}` in [{where}] must be {_words(fields[name])}; got {value!r}.") from None


def _convert(hint: Any, value: Any) -> Value:
    """`TypeError` if the value is not of this type; whole numbers pass for numbers, lists for tuples."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for one in arguments:
            try:
                return _convert(one, value)
            except TypeError:
                continue
    elif origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            of = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
            if len(of) == len(value):
                return tuple(_convert(one, item) for one, item in zip(of, value, strict=True))
    elif hint is float and type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:  # a whole number beyond the largest float
            raise TypeError from None
    elif hint in (int, bool, str) and type(value) is hint:
        return value
    raise TypeError


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in arguments if one is not types.NoneType)
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        number = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"a list of {number}{'whole ' if arguments[0] is int else ''}numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}[hint]


def build(values: Mapping[str, Value]) -> Setting:
    """The setting that fields make. **Raises:** `ValueError`, as the classes do, for values that do not go together."""
    of_router = _below("router", values)
    shape = {name: of_router.pop(name) for name in SHAPE if name in of_router}
    (arm,) = choose([str(values.get("arm", "hi-moe"))], _available(**shape))
    gate: Any = values.get("gate", arm.gate)
    arm = dataclasses.replace(arm, router=parts.with_parts(arm.router, of_router), gate=gate)
    layer = _below("layer", values)
    expert = {name.removeprefix("expert."): layer.pop(name) for name in list(layer) if name.startswith("expert.")}
    return Setting(
        arm.with_terms(**_below("terms", values)),
        _make("data", KINDS, "clusters", _below("data", values)),
        Layer(_make("layer.expert", EXPERTS, "linear", expert), **layer),
        Training(**{"records": 1} | _below("training", values)),
    )


@functools.lru_cache
def _available(
    experts: int | None = None,
    groups: int | None = None,
    group_of: tuple[int, ...] | None = None,
    per_group: int | tuple[int, ...] = 1,
) -> Mapping[str, Arm]:
    if experts is not None:
        _checks.count("router.experts", experts, maximum=_MOST_EXPERTS)
    if group_of is None:
        partition = Partition.equal(8 if experts is None else experts, 4 if groups is None else groups)
    elif experts is not None or groups is not None:
        raise ValueError(
            f"`router.group_of` must be given without `router.experts` and `.groups`; got {experts} and {groups}."
        )
    else:
        partition = Partition(group_of)
    return arms(partition, per_group)


def _below(prefix: str, values: Mapping[str, Value]) -> dict[str, Any]:
    return {name[len(prefix) + 1 :]: value for name, value in values.items() if name.startswith(f"{prefix}.")}


def _make(prefix: str, classes: Mapping[str, type], default: str, values: dict[str, Any]) -> Any:
    kind = values.pop("kind", default)
    own = _hints(prefix, classes[kind])
    found = {}
    for name, value in values.items():
        field = f"{prefix}.{name}"
        if field not in own:
            raise ValueError(f"`{field}` must be a field of {kind!r}; got {value!r}, known are {', '.join(own)}.")
        try:  # another kind may have a field of this name and another type
            found[name] = _convert(own[field], value)
        except TypeError:
            raise ValueError(f"`{field}` of {kind!r} must be {_words(own[field])}; got {value!r}.") from None
    return classes[kind](**found)
