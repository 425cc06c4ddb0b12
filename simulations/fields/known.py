"""Every field of a configuration: its dotted name, type, default and meaning, and what it is a field of.

`arm`; `gate` and the fields of that gate; `topology.NAME`; `arms.NAME` (a number that arms are made with); `terms.NAME`
(an objective's coefficient, added to the arm's own); `router.experts` and `.groups`, or `.group_of` for unequal groups;
`.per_group`; `router.PART.kind` and `router.PART.FIELD` for another part, or other numbers, in the arm's router (see
`parts`). Of the small layer: `data.kind` and the fields of that data, `layer.expert.kind`, the fields of that expert
and the layer's own, and `training.*`. Of a language model: `model.*`, and `training.*` as its recipe has it.
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_type_hints

from himoe_theory import objectives
from himoe_theory.objectives.record import OBJECTIVE
from himoe_theory.plumbing.bring import Kind
from himoe_theory.routers import ROUTER

from ..arms import ARM, arms
from ..data import DATA, KINDS
from ..experts import EXPERT, EXPERTS
from ..gates import GATE, GATES, Gate
from ..layer import Layer
from ..topology import Topology
from ..training import Training
from . import parts
from .types import Named, Value, convert, free, meanings, one_line, words

LAYER, LANGUAGE = "layer", "language model"
Scope = Literal["layer", "language model"]
"""What is configured: the small layer (one run, sweeps), or a language model."""

OF_ARM, OF_SIZE = "as the arm has it", "as the size says"
_NUMBERS = {
    "load": "Load coefficient (α) of the arms that have one",
    "intra": "Intra-group coefficient",
    "inter": "Inter-group coefficient",
    "tau": "Bias correction: share of the logit average taken off",
    "beta": "Bias correction: memory of the logit average",
    "temperature": "Bias correction: temperature",
}
_SHAPE = {
    "experts": (int, 8, "N"),
    "groups": (int, 4, "M, equal groups"),
    "group_of": (tuple[int, ...], None, "The group of every expert, 0 to M-1, instead of `experts` and `groups`"),
    "per_group": (
        int | tuple[int, ...],
        1,
        "K, experts selected in each group, or one number a group; flat arms select as many in all",
    ),
}
SHAPE = tuple(_SHAPE)
"""Fields of `router` that arms are made for."""


ARM_NAMES = Named(ARM, tuple(arms()))
GATE_NAMES = Named(GATE, tuple(GATES))
OBJECTIVE_NAMES = Named(OBJECTIVE, tuple(objectives.OBJECTIVES))


@dataclasses.dataclass(frozen=True)
class Field:
    """One field. Where kinds of one thing share a name, there is one entry a kind, and `kinds` says whose it is."""

    name: str
    hint: Any
    default: Any
    """`None` if nothing is the default; `OF_ARM` and `OF_SIZE` say whose it is if it is no value."""
    meaning: str
    kinds: tuple[str, ...] = ()
    scope: Scope | None = None
    """`None`: of both."""


@functools.cache
def every() -> tuple[Field, ...]:
    """All fields, in the order in which they are explained."""
    return (*_of_arms(), *_of_layer(), *_of_language())


def _of_arms() -> list[Field]:
    defaults = inspect.signature(arms).parameters
    found = [
        Field("arm", str, "hi-moe", "Name of an arm, see `himoe-simulate arms`"),
        Field("gate", GATE_NAMES, OF_ARM, "Where logits come from"),
        *_merged("gate", GATES, hints_of, "learned"),
        *_merged("topology", {"": Topology}, get_type_hints, None),
    ]
    found += [Field(f"arms.{name}", float, defaults[name].default, said) for name, said in _NUMBERS.items()]
    found += [Field(f"terms.{name}", float, OF_ARM, _said_of(name)) for name in objective_names()]
    found += [Field(f"router.{name}", *rest) for name, rest in _SHAPE.items()]
    found.append(Field("router.kind", Named(ROUTER), OF_ARM, "Another router, from a file or a package"))
    for part, kinds in parts.PARTS.items():
        found.append(Field(f"router.{part}.kind", Literal[tuple(kinds)], OF_ARM, f"Another {part}"))
        found += _merged(f"router.{part}", kinds, parts.hints, OF_ARM)
    return found


def _of_layer() -> list[Field]:
    found = [Field("data.kind", Named(DATA, tuple(KINDS)), "clusters", "What the tokens are", (), LAYER)]
    found += _merged("data", KINDS, get_type_hints, None, LAYER)
    found += [f for f in _merged("layer", {"": Layer}, get_type_hints, None, LAYER) if f.name != "layer.expert"]
    found.append(
        Field("layer.expert.kind", Named(EXPERT, tuple(EXPERTS)), "linear", "What each expert computes", (), LAYER)
    )
    found += _merged("layer.expert", EXPERTS, get_type_hints, None, LAYER)
    return found + _merged("training", {"": Training}, get_type_hints, None, LAYER)


def _of_language() -> list[Field]:
    from ..language.config import Config  # later, so that a sweep's processes do without
    from ..language.options import RECIPES
    from ..language.recipe import Recipe
    from ..language.sizes import SIZES

    of_size = {f"model.{name}" for size in SIZES.values() for name in size}
    of_size |= {f"training.{name}" for recipe in RECIPES.values() for name in recipe}
    found = _merged("model", {"": Config}, get_type_hints, None, LANGUAGE)
    found = [field for field in found if field.name not in ("model.arm", "model.evaluation")]
    found += _merged("training", {"": Recipe}, get_type_hints, None, LANGUAGE)
    return [dataclasses.replace(f, default=OF_SIZE) if f.name in of_size else f for f in found]


def hints_of(cls: type) -> dict[str, Any]:
    """Types of a class's fields; a gate inside another goes by its name."""
    return {name: GATE_NAMES if hint is Gate else hint for name, hint in get_type_hints(cls).items()}


def objective_names() -> list[str]:
    """Names that coefficients may have."""
    return sorted(objectives.OBJECTIVES)


def _said_of(name: str) -> str:
    """What the function of an objective says of itself."""
    record = objectives.OBJECTIVES[name]
    text = getattr(record.functions[0], "__doc__", None) or ""
    first = one_line(text.split("\n\n")[0].split("**")[0])
    return f"Coefficient of {name}" + (f" [{record.source}]" if record.source else "") + (f": {first}" if first else "")


def _merged(
    prefix: str, classes: Mapping[str, type], hints: Any, default: str | None, scope: Scope | None = None
) -> list[Field]:
    """Fields of classes; equal ones of several kinds are one. `default`: for fields that have none."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for kind, cls in classes.items():
        types_of, said = hints(cls), meanings(cls)
        for field in dataclasses.fields(cls):
            own = default if field.default is dataclasses.MISSING else parts.named(field.name, field.default)
            key = (f"{prefix}.{field.name}", types_of[field.name], own, said[field.name])
            found.setdefault(key, []).append(kind)
    return [Field(*key, tuple(kind for kind in kinds if kind), scope) for key, kinds in found.items()]


@functools.cache
def known(scope: Scope = LAYER) -> Mapping[str, Any]:
    """Names and types of a scope's fields: where several kinds have a field of one name, what any of them takes."""
    found: dict[str, Any] = {}
    for field in (*_of_arms(), *(_of_layer() if scope == LAYER else _of_language())):
        found[field.name] = found[field.name] | field.hint if field.name in found else field.hint
    return types.MappingProxyType(found)


def check(where: str, name: str, value: Any, free_below: Iterable[str] = (), scope: Scope = LAYER) -> Value:
    """The value as the field's type has it. `where` says in which table it was found.

    **Arguments:** `free_below`: see the function of that name. **Raises:** `ValueError` for an unknown field or a value
    of another type.
    """
    fields = known(scope)
    if name not in fields and OBJECTIVE_NAMES.brings(name.removeprefix("terms.")) and name.startswith("terms."):
        return typed(f"`{name}` in {where}", float, value)
    if name not in fields and name.startswith(tuple(free_below)):
        try:
            return free(value)
        except TypeError:
            raise ValueError(f"`{name}` in {where} must be a number, a string or a list; got {value!r}.") from None
    if name not in fields:
        raise ValueError(f"`{name}` in {where} must be a field; got {value!r}, known are {near(name, fields)}.")
    return typed(f"`{name}` in {where}", fields[name], value)


def free_below(values: Mapping[str, Any], scope: Scope = LAYER) -> tuple[str, ...]:
    """Prefixes of fields that only the user's own class knows, as something brought may be of that kind.

    **Arguments:** `values`: of fields; a list stands for all that a field is given in turn.
    """
    of_parts = tuple(f"router.{part}." for part in parts.PARTS)
    below = {"arm": ("terms.", *of_parts), "router.kind": of_parts}
    below |= {"gate": ("gate.",), "data.kind": ("data.",), "layer.expert.kind": ("layer.expert.",)}
    found = []
    for name, prefixes in below.items():
        hint, given = _naming(scope).get(name), values.get(name)
        if hint is not None and any(map(hint.brings, given if isinstance(given, (list, tuple)) else [given])):
            found += prefixes
    return tuple(found)


def _naming(scope: Scope = LAYER) -> dict[str, Named]:
    """Fields that name what users may bring."""
    return {"arm": ARM_NAMES} | {name: hint for name, hint in known(scope).items() if isinstance(hint, Named)}


def brought_by(values: Mapping[str, Sequence[Any]]) -> dict[str, Kind]:
    """What fields name that is not ours, by name. `values`: all that each field is given."""
    hints = _naming()
    named = [(hints[name], value) for name, given in values.items() if name in hints for value in given]
    named += [(OBJECTIVE_NAMES, name.removeprefix("terms.")) for name in values if name.startswith("terms.")]
    return {value: hint.kind for hint, value in named if hint.brings(value)}


def typed(called: str, hint: Any, value: Any) -> Value:
    """The value as the type has it. **Raises:** `ValueError` that begins with what the value is `called`."""
    try:
        return convert(hint, value)
    except TypeError:
        raise ValueError(f"{called} must be {words(hint)}; got {value!r}.") from None


def near(name: str, fields: Iterable[str]) -> str:
    """Those of the name's first part, or all first parts."""
    heads = {field: field.split(".")[0] for field in fields}
    of_head = [field for field, head in heads.items() if head == name.split(".")[0]]
    return ", ".join(of_head or dict.fromkeys(head if head == field else f"{head}.*" for field, head in heads.items()))
