"""An objective's value and every form of its derivative in one compiled call, and the comparison of arrays."""

import dataclasses
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from himoe_theory import Routing, Softmax
from himoe_theory.objectives import OBJECTIVES, Objective, View
from himoe_theory.objectives.record import variable, with_variable

from .strategies import EXPERTS, PARTITIONS

OF_LOGITS = {name: objective for name, objective in OBJECTIVES.items() if objective.of != "outputs"}
OF_OUTPUTS = {name: objective for name, objective in OBJECTIVES.items() if objective.of == "outputs"}


class Evaluation(NamedTuple):
    """What one compiled call gives."""

    value: np.ndarray
    closed: np.ndarray
    """The closed form."""
    reverse: np.ndarray
    """Reverse mode."""
    along: np.ndarray
    """Forward mode, along a direction."""


def of_logits(objective: Objective, routing: Routing):
    """The objective as a function of the logits it reads, all decisions held fixed, and those logits."""

    def function(x: Float[Array, "tokens experts"]) -> Float[Array, ""]:
        return objective.value(with_variable(View(routing), objective.of, x))

    return function, variable(View(routing), objective.of)


def with_logits(objective: Objective, routing: Routing, x: np.ndarray | Array) -> Routing:
    """The same decisions with other logits, in the field that the objective reads."""
    return with_variable(View(routing), objective.of, jnp.asarray(x)).routing


def plain(objective: Objective, routing: Routing) -> Routing:
    """A fixed partition where it does not matter, so that it needs no compilation of its own.

    That it does not matter is what `test_whether_groups_matter` shows, without this function.
    """
    if objective.uses_groups:
        return routing
    return dataclasses.replace(routing, partition=PARTITIONS["one-group"], capacity=None)


@cache
def _compiled(name: str):
    objective = OBJECTIVES[name]

    def everything(routing: Routing, direction: Float[Array, "tokens experts"]):
        function, at = of_logits(objective, routing)
        value, reverse = jax.value_and_grad(function)(at)
        _, along = jax.jvp(function, (at,), (direction,))
        return Evaluation(value, objective.gradient(View(routing)), reverse, along)

    return jax.jit(everything)


def evaluate(objective: Objective, routing: Routing, direction: np.ndarray | None = None) -> Evaluation:
    """Value and derivatives of `objective`, as NumPy arrays."""
    _, at = of_logits(objective, routing)
    direction = np.ones(at.shape) if direction is None else direction
    result = _compiled(objective.name)(plain(objective, routing), jnp.asarray(direction, at.dtype))
    return Evaluation(*(np.asarray(each) for each in result))


@cache
def _compiled_value(name: str):
    objective = OBJECTIVES[name]
    return jax.jit(lambda routing: (objective.value(View(routing)), objective.gradient(View(routing))))


def value_and_closed(objective: Objective, routing: Routing) -> tuple[np.ndarray, np.ndarray]:
    """Value and closed form alone: quicker to compile where only they are needed."""
    value, closed = _compiled_value(objective.name)(plain(objective, routing))
    return np.asarray(value), np.asarray(closed)


def of_experts(outputs: Array, experts: Array) -> View:
    """What objectives of outputs read: these, and whose they are."""
    experts = jnp.asarray(experts)
    every = jnp.ones((len(experts), EXPERTS), bool)
    none, slots = every.astype(float), every.astype(experts.dtype)
    parts = (none, none, none, every, every, slots, none, None, experts)
    return View(Routing(*parts, PARTITIONS["one-group"], None, Softmax()), jnp.asarray(outputs))


def close(actual, desired, rtol: float = 1e-11) -> None:
    """Relative, entry by entry; entries that cancel are compared on the scale of the largest, or of 1e-3."""
    scale = max(float(np.abs(desired).max()), 1e-3)
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=rtol * scale)
