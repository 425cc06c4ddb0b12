"""What training minimises: the task loss and the objectives."""

import functools
import operator
from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from himoe_theory.objectives import Objective, View

from .data import Data
from .layer import Output


def task_loss(
    data: Data,
    prediction: Float[Array, "tokens outputs"],
    y: Float[Array, "tokens outputs"],
    weights: Float[Array, " tokens"] | None = None,
) -> Array:
    """Mean over tokens, by `weights` if given: half the squared error averaged over outputs, or cross-entropy in
    nats."""
    if weights is not None:
        square = jnp.square(prediction - y).mean(axis=1) / 2
        each = optax.softmax_cross_entropy(prediction, y) if data.task == "classification" else square
        return (weights * each).sum() / weights.sum()
    if data.task == "classification":
        return optax.softmax_cross_entropy(prediction, y).mean()
    return jnp.square(prediction - y).mean() / 2


def term_values(
    terms: Sequence[Objective], output: Output, costs: Float[Array, " experts"] | None = None
) -> dict[str, Float[Array, ""]]:
    """Unweighted objectives of a batch, by name, summed over the mixtures that tokens pass; those of neighbours over
    all but the first. **Raises:** `ValueError` for one that needs what no layer has."""
    views, above = [], None
    for step in output.steps:
        chosen = jnp.take_along_axis(step.experts, step.routing.experts[:, :, None], axis=1)
        views.append(View(step.routing, chosen, step.x, step.parameters, above, costs))
        above = step.routing
    found = {}
    for objective in terms:
        seen = views[1:] if "above" in objective.needs and len(views) > 1 else views
        found[objective.name] = functools.reduce(operator.add, [objective.value(objective.check(v)) for v in seen])
    return found
