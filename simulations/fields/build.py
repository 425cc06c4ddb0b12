"""The setting that fields make. What is not given has the default of the class, but `training.records` is 1: the
start and the end."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from himoe_theory import Partition, _checks
from himoe_theory.objectives import OBJECTIVES, Objective

from ..arms import Arm, arms, choose
from ..data import KINDS
from ..experts import EXPERTS
from ..layer import Layer
from ..training import Setting, Training
from . import parts
from .known import SHAPE, near, typed
from .types import Value

_MOST_EXPERTS = 2**16
"""Ten times any published layer; a partition lists its experts one by one."""
Arms = Callable[..., Mapping[str, Arm]]
"""All arms by name, for a partition, experts a group, and numbers as `arms` takes them."""


def build(values: Mapping[str, Value]) -> Setting:
    """The setting that fields make. **Raises:** `ValueError`, as the classes do, for values that do not go together."""
    layer = below("layer", values)
    expert = {name.removeprefix("expert."): layer.pop(name) for name in list(layer) if name.startswith("expert.")}
    return Setting(
        arm_of(values),
        _make("data", KINDS, "clusters", below("data", values)),
        Layer(_make("layer.expert", EXPERTS, "linear", expert), **layer),
        Training(**{"records": 1} | below("training", values)),
    )


def arm_of(values: Mapping[str, Value], available: Arms = arms) -> Arm:
    """The arm that fields make, whatever it is trained in."""
    of_router = below("router", values)
    shape = {name: of_router.pop(name) for name in SHAPE if name in of_router}
    numbers = tuple(sorted(below("arms", values).items()))
    (arm,) = choose(
        [str(values.get("arm", "hi-moe"))], _available(available, numbers, tuple(OBJECTIVES.values()), **shape)
    )
    gate: Any = values.get("gate", arm.gate)
    arm = dataclasses.replace(arm, router=parts.with_parts(arm.router, of_router), gate=gate)
    return arm.with_terms(**below("terms", values))


def below(prefix: str, values: Mapping[str, Value]) -> dict[str, Any]:
    """The fields of a prefix, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in values.items() if name.startswith(f"{prefix}.")}


@functools.lru_cache
def _available(
    available: Arms,
    numbers: tuple[tuple[str, float], ...],
    catalogue: tuple[Objective, ...],  # which arms take their records from
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
    return available(partition, per_group, **dict(numbers))


def _make(prefix: str, classes: Mapping[str, type], default: str, values: dict[str, Any]) -> Any:
    kind = values.pop("kind", default)
    own = {f"{prefix}.{field.name}": hint for field, hint in _typed_fields(classes[kind])}
    found = {}
    for name, value in values.items():
        field = f"{prefix}.{name}"
        if field not in own:
            raise ValueError(f"`{field}` must be a field of {kind!r}; got {value!r}, known are {near(field, own)}.")
        # Another kind may have a field of this name and another type.
        found[name] = typed(f"`{field}` of {kind!r}", own[field], value)
    return classes[kind](**found)


@functools.cache
def _typed_fields(cls: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = get_type_hints(cls)
    return [(field, hints[field.name]) for field in dataclasses.fields(cls)]
