"""Every objective by name, read from a `Routing`: what arms, checks, figures and contract tests go through.

`value(routing)` is to be minimised. `gradient(routing)` is its closed form in `routing.logits`, or in
`routing.selection_logits` where `of_selection` says so (multiply by 1/Temp for the raw logits).
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..routing import Routing
from . import entropy, importance, inter_group, intra_group, outputs, variance, z

# By name: in this package `load` is the function, which hides the module.
from .load import (
    load,
    load_entropy,
    load_entropy_grad,
    load_first_choice,
    load_first_choice_grad,
    load_frozen,
    load_frozen_grad,
    load_grad,
    load_per_token,
    load_per_token_grad,
    load_selected_weights,
    load_selected_weights_grad,
    p_squared,
    p_squared_grad,
)


@dataclasses.dataclass(frozen=True)
class Objective:
    """A routing objective beside its closed-form logit gradient."""

    name: str
    value: Callable[[Routing], Float[Array, ""]]
    gradient: Callable[[Routing], Float[Array, "tokens experts"]]
    source: str
    of_selection: bool = False
    """Whether its logits are `selection_logits` (bias-corrected) instead of `logits`."""
    gauge_invariant: bool = True
    """Whether adding a constant to a token's logits leaves it unchanged."""
    uses_groups: bool = False
    """Whether it depends on the partition (given the selection)."""
    token_mean: bool = True
    """Whether it is a mean of terms of single tokens, so that equal halves of a batch average to the whole."""


@dataclasses.dataclass(frozen=True)
class OutputObjective:
    """An objective of the selected experts' outputs `[tokens, routes, dim]` beside its gradient in them."""

    name: str
    value: Callable[[Float[Array, "tokens routes dim"], Int[Array, "tokens routes"]], Float[Array, ""]]
    gradient: Callable[[Float[Array, "tokens routes dim"], Int[Array, "tokens routes"]], Array]
    source: str


def _noiseless(routing: Routing) -> Array:
    return jnp.zeros_like(routing.logits)


def _k(routing: Routing) -> int:
    return min(routing.experts.shape[1], routing.partition.num_experts - 1)


_ALL = (
    Objective(
        "load",
        lambda r: load(r.logits, r.selected),
        lambda r: load_grad(r.logits, r.selected),
        "switch",
        token_mean=False,
    ),
    Objective(
        "load_per_token",
        lambda r: load_per_token(r.logits, r.selected),
        lambda r: load_per_token_grad(r.logits, r.selected),
        "himoe-code",
        token_mean=False,
    ),
    Objective(
        "load_selected_weights",
        lambda r: load_selected_weights(r.logits, r.selected),
        lambda r: load_selected_weights_grad(r.logits, r.selected),
        "himoe-code",
        token_mean=False,
    ),
    Objective(
        "load_first_choice",
        lambda r: load_first_choice(r.logits, r.experts),
        lambda r: load_first_choice_grad(r.logits, r.experts),
        "st-moe",
        token_mean=False,
    ),
    Objective(
        "load_frozen",
        lambda r: load_frozen(r.logits),
        lambda r: load_frozen_grad(r.logits),
        "himoe-theory",
        token_mean=False,
    ),
    Objective(
        "p_squared",
        lambda r: p_squared(r.logits),
        lambda r: p_squared_grad(r.logits),
        "dsc",
        token_mean=False,
    ),
    Objective(
        "load_entropy",
        lambda r: load_entropy(r.logits),
        lambda r: load_entropy_grad(r.logits),
        "libmoe",
        token_mean=False,
    ),
    Objective(
        "inter_group_selected",
        lambda r: inter_group.inter_group_selected(r.selection_logits, r.selected),
        lambda r: inter_group.inter_group_selected_grad(r.selection_logits, r.selected),
        "himoe",
        of_selection=True,
    ),
    Objective(
        "inter_group_sparse",
        lambda r: inter_group.inter_group_sparse(r.selection_logits, r.selected, r.partition),
        lambda r: inter_group.inter_group_sparse_grad(r.selection_logits, r.selected, r.partition),
        "himoe-code",
        of_selection=True,
        uses_groups=True,
    ),
    Objective(
        "inter_group_dense",
        lambda r: inter_group.inter_group_dense(r.logits, r.partition),
        lambda r: inter_group.inter_group_dense_grad(r.logits, r.partition),
        "himoe-code",
        uses_groups=True,
    ),
    Objective(
        "intra_group_global",
        lambda r: intra_group.intra_group_global(r.logits),
        lambda r: intra_group.intra_group_global_grad(r.logits),
        "himoe",
    ),
    Objective(
        "intra_group_global_selection",
        lambda r: intra_group.intra_group_global(r.selection_logits),
        lambda r: intra_group.intra_group_global_grad(r.selection_logits),
        "himoe-code",
        of_selection=True,
    ),
    Objective(
        "intra_group_conditional",
        lambda r: intra_group.intra_group_conditional(r.logits, r.partition),
        lambda r: intra_group.intra_group_conditional_grad(r.logits, r.partition),
        "himoe-code",
        uses_groups=True,
    ),
    Objective(
        "intra_group_conditional_selection",
        lambda r: intra_group.intra_group_conditional(r.selection_logits, r.partition),
        lambda r: intra_group.intra_group_conditional_grad(r.selection_logits, r.partition),
        "himoe-code",
        of_selection=True,
        uses_groups=True,
    ),
    Objective(
        "token_entropy",
        lambda r: entropy.token_entropy(r.logits),
        lambda r: entropy.token_entropy_grad(r.logits),
        "himoe-code",
    ),
    Objective(
        "group_neg_entropy",
        lambda r: entropy.group_neg_entropy(r.logits, r.partition),
        lambda r: entropy.group_neg_entropy_grad(r.logits, r.partition),
        "himoe-code",
        uses_groups=True,
    ),
    Objective("z", lambda r: z.z_loss(r.logits), lambda r: z.z_loss_grad(r.logits), "st-moe", gauge_invariant=False),
    Objective(
        "variance_across_tokens",
        lambda r: variance.variance_across_tokens(r.logits, r.selected),
        lambda r: variance.variance_across_tokens_grad(r.logits, r.selected),
        "guo",
        token_mean=False,
    ),
    Objective(
        "variance_across_experts",
        lambda r: variance.variance_across_experts(r.logits),
        lambda r: variance.variance_across_experts_grad(r.logits),
        "guo-code",
    ),
    Objective(
        "importance_cv_squared",
        lambda r: importance.importance_cv_squared(r.logits, r.selected),
        lambda r: importance.importance_cv_squared_grad(r.logits, r.selected),
        "shazeer",
        token_mean=False,
    ),
    Objective(
        "load_cv_squared",
        lambda r: importance.load_cv_squared(r.logits, _noiseless(r), k=_k(r), noise_std=1.0),
        lambda r: importance.load_cv_squared_grad(r.logits, _noiseless(r), k=_k(r), noise_std=1.0),
        "shazeer",
        token_mean=False,
    ),
)

OBJECTIVES: Mapping[str, Objective] = {objective.name: objective for objective in _ALL}

OUTPUT_OBJECTIVES: Mapping[str, OutputObjective] = {
    objective.name: objective
    for objective in (
        OutputObjective(
            "orthogonality_paper",
            lambda x, experts: outputs.orthogonality_paper(x),
            lambda x, experts: outputs.orthogonality_paper_grad(x),
            "guo",
        ),
        OutputObjective(
            "orthogonality_span",
            lambda x, experts: outputs.orthogonality_span(x),
            lambda x, experts: outputs.orthogonality_span_grad(x),
            "guo-code",
        ),
        OutputObjective(
            "orthogonality_released", outputs.orthogonality_released, outputs.orthogonality_released_grad, "guo-code"
        ),
    )
}
