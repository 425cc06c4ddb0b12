"""What of ours has a contract by name: objectives, and routers for eight experts in four groups of two."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from .. import routers
from ..objectives import OBJECTIVES, Objective
from ..partition import Partition
from ..routers import Router
from ..selection import KeepRandomly

PER_GROUP = 1
"""Experts of a group that a token selects; flat routers select as many of all."""


def partition() -> Partition:
    """Of our routers, and what is offered to a user's function that gives one."""
    return Partition.equal(8, 4)


def _flat(make: Callable[..., Router], **fields: Any) -> Callable[[], Router]:
    return lambda: make(8, 4 * PER_GROUP, partition=partition(), **fields)


def _grouped(make: Callable[..., Router]) -> Callable[[], Router]:
    return lambda: make(partition(), PER_GROUP)


ROUTERS: Mapping[str, Callable[[], Router]] = MappingProxyType(
    {
        "dense": lambda: routers.dense(partition()),
        "gshard": _flat(routers.gshard),
        "st-moe": _flat(routers.st_moe, policy=KeepRandomly(0.2)),
        "loss-free": _flat(routers.loss_free),
        "moge": _grouped(routers.moge),
        "hi-moe": _grouped(routers.himoe),
        "hi-moe-paper": _grouped(routers.himoe_paper),
    }
)


def named(name: str) -> Objective | Router:
    """An objective or a router of ours. **Raises:** `ValueError` for an unknown name, with all that are known."""
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if name in ROUTERS:
        return ROUTERS[name]()
    known = ", ".join((*OBJECTIVES, *ROUTERS))
    raise ValueError(f"`thing` must be an Objective, a Router, or one of {known}; got {name!r}.")
