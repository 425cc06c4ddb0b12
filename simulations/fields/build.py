"""The setting that fields make. What is not given has the default of the class, but `training.records` is 1: the
start and the end."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from himoe_theory import Partition, _checks
from himoe_theory.objectives import OBJECTIVES, Objective
from himoe_theory.objectives.record import OBJECTIVE
from himoe_theory.plumbing.bring import HERE, Kind, Place, make, resolve
from himoe_theory.routers import ROUTER

from ..arms import ARM, Arm, arms
from ..data import DATA, KINDS
from ..experts import EXPERT, EXPERTS
from ..gates import GATE, GATES, Gate
from ..layer import Layer
from ..training import Setting, Training
from . import parts
from .known import OBJECTIVE_NAMES, SHAPE, hints_of, near, typed
from .types import Named, Value

_MOST_EXPERTS = 2**16
"""Ten times any published layer; a partition lists its experts one by one."""
Arms = Callable[..., Mapping[str, Arm]]
"""All arms by name, for a partition, experts a group, and numbers as `arms` takes them."""


def build(values: Mapping[str, Value], place: Place = HERE) -> Setting:
    """The setting that fields make. `place`: where the files of users are that they name.

    **Raises:** `ValueError`, as the classes do, for values that do not go together.
    """
    layer = below("layer", values)
    expert = {name.removeprefix("expert."): layer.pop(name) for name in list(layer) if name.startswith("expert.")}
    return Setting(
        arm_of(values, place=place),
        _make(DATA, KINDS, "clusters", below("data", values), place),
        Layer(_make(EXPERT, EXPERTS, "linear", expert, place), **layer),
        training_of(values),
    )


def training_of(values: Mapping[str, Value]) -> Training:
    """How the setting that fields make is trained."""
    return Training(**{"records": 1} | below("training", values))


def arm_of(values: Mapping[str, Value], available: Arms = arms, place: Place = HERE) -> Arm:
    """The arm that fields make, whatever it is trained in."""
    of_router = below("router", values)
    shape = {name: of_router.pop(name) for name in SHAPE if name in of_router}
    numbers = tuple(sorted(below("arms", values).items()))
    partition, per_group = _shape(**shape)
    asked = {"partition": partition, "per_group": per_group}
    name = str(values.get("arm", "hi-moe"))
    ours = _available(available, numbers, tuple(OBJECTIVES.values()), partition, per_group)
    thing = resolve(ARM, name, ours, place)
    if thing is not ours.get(name) and ARM.holds(thing) and thing.router.partition != partition and shape:
        n, m = thing.router.partition.num_experts, thing.router.partition.num_groups
        given = ", ".join(f"router.{field} = {value}" for field, value in shape.items())
        raise ValueError(f"`{name}` must be a function to be made for other sizes, it has N {n}, M {m}; got {given}.")
    arm = make(ARM, name, thing, offered=asked)
    router = arm.router
    if "kind" in of_router:
        text = str(of_router.pop("kind"))
        asked["partition"] = router.partition
        router = make(ROUTER, text, resolve(ROUTER, text, place=place), offered=asked)
    topology = dataclasses.replace(arm.topology, **below("topology", values))
    arm = dataclasses.replace(arm, router=parts.with_parts(router, of_router), gate=_gate(arm.gate, values, place))
    arm = dataclasses.replace(arm, topology=topology)
    terms = below("terms", values)
    users = {name: terms.pop(name) for name in list(terms) if OBJECTIVE_NAMES.brings(name)}
    records = {make(OBJECTIVE, name, resolve(OBJECTIVE, name, OBJECTIVES, place)): c for name, c in users.items()}
    return arm.with_terms(records, **terms)


def _gate(own: Gate, values: Mapping[str, Value], place: Place) -> Gate:
    """The gate that fields name, or the arm's own with the numbers that they set."""
    given = below("gate", values)
    if "gate" in values:
        return _make(GATE, GATES, "", {"kind": values["gate"]} | given, place)
    if not given:
        return own
    kind = next((name for name, cls in GATES.items() if type(own) is cls), None)
    if kind is None:  # a user's
        return make(GATE, type(own).__name__, own, fields=given)
    made = _make(GATE, GATES, kind, dict(given), place)  # which checks them
    return dataclasses.replace(own, **{name: getattr(made, name) for name in given})  # pyright: ignore


def below(prefix: str, values: Mapping[str, Value]) -> dict[str, Any]:
    """The fields of a prefix, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in values.items() if name.startswith(f"{prefix}.")}


@functools.lru_cache
def _shape(
    experts: int | None = None,
    groups: int | None = None,
    group_of: tuple[int, ...] | None = None,
    per_group: int | tuple[int, ...] = 1,
) -> tuple[Partition, int | tuple[int, ...]]:
    """What arms are made for."""
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
    return partition, per_group


@functools.lru_cache
def _available(
    available: Arms,
    numbers: tuple[tuple[str, float], ...],
    catalogue: tuple[Objective, ...],  # which arms take their records from
    partition: Partition,
    per_group: int | tuple[int, ...],
) -> Mapping[str, Arm]:
    return available(partition, per_group, **dict(numbers))


def _make(kind: Kind, classes: Mapping[str, type], default: str, values: dict[str, Any], place: Place) -> Any:
    name = values.pop("kind", default)
    cls = resolve(kind, name, classes, place)
    if cls is not classes.get(name):
        return make(kind, name, cls, fields=values)
    prefix = kind.name.removesuffix(".kind")
    own = {f"{prefix}.{field.name}": hint for field, hint in _typed_fields(cls)}
    found = {}
    for each, value in values.items():
        field = f"{prefix}.{each}"
        if field not in own:
            raise ValueError(f"`{field}` must be a field of {name!r}; got {value!r}, known are {near(field, own)}.")
        # Another kind may have a field of this name and another type.
        found[each] = typed(f"`{field}` of {name!r}", own[field], value)
        if isinstance(own[field], Named):
            found[each] = _make(own[field].kind, GATES, value, {}, place)
    return cls(**found)


@functools.cache
def _typed_fields(cls: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = hints_of(cls)
    return [(field, hints[field.name]) for field in dataclasses.fields(cls)]
