"""What is measured of a layer on its test batch, never in the training step.

One compiled function serves every arm of equal shapes: it reads the `Routing`, not the router.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from himoe_theory import Routing, metrics

from .compiling import OWN_SUMS, QUICK, compiled
from .data import Batch, Data
from .layer import Output


@compiled(OWN_SUMS, QUICK)
def measure(
    data: Data, experts: dict[str, Array], output: Output, batch: Batch, least_routes: Float[Array, ""]
) -> dict[str, Array]:
    """Measurements at one record, over leading axes of seeds and arms; see `DESCRIPTIONS` for what each is.

    **Arguments:** `data`: static. `experts`: the experts' parameters `[seeds, arms, experts, ...]`. `output`:
    `[seeds, arms, ...]`. `batch`: `[seeds, ...]`. `least_routes`: the fewest experts that a token may select.
    """
    over_arms = jax.vmap(lambda *one: _measure(data, least_routes, *one), in_axes=(0, 0, None))
    return jax.vmap(over_arms)(experts, output, batch)


def _measure(
    data: Data, least_routes: Float[Array, ""], experts: dict[str, Array], output: Output, batch: Batch
) -> dict[str, Array]:
    routing = output.routing
    partition, probs = routing.partition, routing.probs
    load, soft = metrics.hard_load(routing.selected), metrics.soft_load(probs)
    hard_table = metrics.contingency(batch.labels, routing.selected, data.num_labels)
    soft_table = metrics.contingency(batch.labels, probs, data.num_labels)
    tokens = jnp.maximum(jax.nn.one_hot(batch.labels, data.num_labels, dtype=load.dtype).sum(axis=0), 1)
    measured = {
        "hard_load": load,
        "soft_load": soft,
        "cv": metrics.coefficient_of_variation(load),
        "soft_cv": metrics.coefficient_of_variation(soft),
        "group_cv": metrics.group_cv(load, partition),
        "soft_group_cv": metrics.group_cv(soft, partition),
        "max_violation": metrics.max_violation(load),
        "collision_information": metrics.collision_information(probs),
        "gini_gain": metrics.gini_gain(probs),
        "effective_experts": metrics.effective_experts(probs),
        "effective_groups": metrics.effective_groups(probs, partition),
        "groups_touched": metrics.groups_touched(routing.selected, partition),
        "information": metrics.normalised_information(hard_table, least_routes),
        "soft_information": metrics.normalised_information(soft_table, 1),
        "redundancy": _redundancy(routing),
        "output_cosine": metrics.mean_off_diagonal(metrics.output_cosine(output.experts)),
        "output_cka": metrics.mean_off_diagonal(metrics.linear_cka(output.experts)),
        "parameter_cosine": metrics.mean_off_diagonal(metrics.parameter_cosine(_flat(experts))),
        "assignment": hard_table / tokens[:, None],
        "selected": routing.selected,
        "best_expert": _best_expert(routing),
    }
    if data.task == "classification":
        wrong = jnp.argmax(output.prediction, axis=-1).astype(jnp.int32) != batch.labels
        measured["test_error"] = wrong.astype(load.dtype).mean()
    else:
        measured["test_error"] = jnp.square(output.prediction - batch.y).mean()
    return measured


DESCRIPTIONS: dict[str, str] = {
    "test_loss": "task loss on the test batch (half the squared error, or cross-entropy in nats)",
    "test_error": "mean squared error, or share of test images classified wrong",
    "hard_load": "share of test tokens that select the expert; sums to the experts a token selects",
    "soft_load": "mean router probability of the expert",
    "cv": "coefficient of variation of the hard load over experts",
    "soft_cv": "coefficient of variation of the soft load over experts",
    "group_cv": "coefficient of variation of the hard load over groups",
    "soft_group_cv": "coefficient of variation of the soft load over groups",
    "max_violation": "largest hard load over the mean, minus 1",
    "collision_information": "I_2 = ln(E|pi|^2 / |E pi|^2), nats",
    "gini_gain": "E|pi|^2 - |E pi|^2",
    "effective_experts": "mean over tokens of exp(entropy of pi)",
    "effective_groups": "mean over tokens of exp(entropy of the group masses)",
    "groups_touched": "mean number of groups with a selected expert",
    "information": "label-expert mutual information of the selection over its largest possible value",
    "soft_information": "the same for the probabilities, over min(H(label), ln N)",
    "redundancy": "normalised total correlation of the groups' choices; NaN for arms whose groups make none",
    "output_cosine": "mean cosine between two experts' outputs",
    "output_cka": "mean linear CKA between two experts' outputs",
    "parameter_cosine": "mean cosine between two experts' parameters",
    "assignment": "share of a label's tokens that select the expert",
    "churn": "share of selected experts that changed since the last record; NaN at the first",
    "cv_floor": "root mean square CV that sampling the test tokens gives a router that uses its experts evenly",
    "frozen_error": "test error at the end of the partner whose gate is left as it was drawn",
    "planted_error": "test error at the end of the partner whose gate reads the label",
    "gain": "(frozen - own) / max(frozen - planted, 2 % of the error at the start), of test errors at the end",
    "adjusted_information": "adjusted mutual information of label and best expert, at the end",
    "matching_accuracy": "share of tokens whose best expert is the one matched to their label, at the end",
}


def _flat(experts: dict[str, Array]) -> Float[Array, "experts parameters"]:
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(experts)], axis=1)


def _best_expert(routing: Routing) -> Int[Array, " tokens"]:
    """The selected expert of largest combine weight."""
    return routing.combine.argmax(axis=1).astype(jnp.int32)


def _redundancy(routing: Routing) -> Float[Array, ""]:
    """Redundancy of the groups' first choices; NaN, undefined, if they have too many combinations to count."""
    partition = routing.partition
    if math.prod(partition.sizes) > metrics.MAX_CODES:
        return jnp.full((), jnp.nan, routing.combine.dtype)
    members, real = partition.table()
    inside = jnp.where(real, routing.selection_logits[:, members], -jnp.inf)
    return metrics.choice_redundancy(inside.argmax(axis=-1).astype(jnp.int32), partition.sizes)
