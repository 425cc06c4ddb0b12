"""Schedules: functions of the step, each a factor of one number of an arm.

`Arm(..., terms={"intra_group_global": 0.1}, schedules={"terms.intra_group_global": ramp(300)})` grows a coefficient to
0.1. Where the number itself is 1 the function gives it: `KeepFirst(1.0)` with `{"router.policy.count": steps((0, 8),
(500, 1))}` keeps 8 experts at first. Optax's schedules are such functions, too. What can be scheduled: `terms.NAME`, a
coefficient; `router.PART.NAME`, a number of policy or controller; `updates.NAME`, the optimiser's update of the
parameters of that name (`gate`, `experts`: 0 holds them); `training.learning_rate`.
"""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from himoe_theory import Router, _checks

Schedule = Callable[[Any], Any]
"""Number of steps that are done -> factor; may be traced."""
Named = tuple[tuple[str, Schedule], ...]


@dataclasses.dataclass(frozen=True)
class Steps:
    """Constant between steps: `values` are (first step, factor)."""

    values: tuple[tuple[int, float | int], ...]

    def __post_init__(self):
        starts = [start for start, _ in self.values]
        if not starts or starts[0] != 0 or any(a >= b for a, b in itertools.pairwise(starts)):
            raise ValueError(f"`steps` must begin at 0 and rise; got {', '.join(map(str, starts)) or 'none'}.")

    def __call__(self, step: Int[Array, ""] | int) -> Float[Array, ""]:
        """The factor at a step."""
        starts, factors = zip(*self.values, strict=True)
        begun = (jnp.asarray(starts, jnp.int32) <= step).sum(dtype=jnp.int32)
        return jnp.asarray(factors, jnp.float32)[begun - 1]


@dataclasses.dataclass(frozen=True)
class Ramp:
    """From 0 to 1 in equal parts over so many steps, then 1."""

    steps: int

    def __post_init__(self):
        _checks.count("steps", self.steps)

    def __call__(self, step: Int[Array, ""] | int) -> Float[Array, ""]:
        """The factor at a step."""
        return jnp.minimum(jnp.asarray(step, jnp.float32) / self.steps, 1)


def steps(*values: tuple[int, float | int]) -> Steps:
    """`steps((0, 8), (500, 1))`: 8 from step 0 on, 1 from step 500 on."""
    return Steps(values)


def ramp(over: int) -> Ramp:
    """From 0 to 1 over so many steps."""
    return Ramp(over)


def named(schedules: Mapping[str, Schedule]) -> Named:
    """In the order of their names: hashable, for programs."""
    return tuple(sorted(schedules.items(), key=operator.itemgetter(0)))


def check(schedules: Mapping[str, Schedule], router: Router, terms: Sequence[str]) -> None:
    """**Raises:** `ValueError` for a name that is not that of a number, or what is no hashable function."""
    known = [f"terms.{name}" for name in terms] + [f"router.{leaf}" for leaf in _leaves(router)]
    known.append("training.learning_rate")
    for name, function in schedules.items():
        if name not in known and not name.startswith("updates."):
            raise ValueError(
                f"`schedules` must name a number; got {name!r}, known are {', '.join(known)}, updates.NAME."
            )
        if not callable(function) or not isinstance(function, Hashable):
            raise ValueError(f"`schedules[{name}]` must be a function of the step; got {function!r}.")


def _leaves(router: Router) -> list[str]:
    paths = jax.tree_util.tree_leaves_with_path(router)
    return [".".join(key.name for key in path) for path, _ in paths]  # pyright: ignore


def factor(function: Schedule, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """A schedule's value in float32."""
    with jax.numpy_dtype_promotion("standard"):  # optax mixes its types
        return jnp.asarray(function(step), jnp.float32)


def router_at(router: Router, schedules: Named, step: Int[Array, ""] | int) -> Router:
    """The router with its numbers at a step."""
    for name, function in schedules:
        if name.startswith("router."):
            find = operator.attrgetter(name.removeprefix("router."))
            now = factor(function, step)
            router = eqx.tree_at(find, router, replace_fn=lambda leaf, now=now: leaf * now)
    return router


def below(prefix: str, schedules: Named) -> dict[str, Schedule]:
    """Those whose names begin so, without it."""
    return {name.removeprefix(prefix): function for name, function in schedules if name.startswith(prefix)}
