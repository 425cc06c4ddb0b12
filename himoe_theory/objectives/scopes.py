r"""Whose loads a load loss sees: each sequence's, the micro-batch's, the whole batch's, or those of all layers.

Every load loss that a record has a `convention` of is $\frac{N}{T} \sum_{te} \omega_t f(h_t)_e w_{te}$; the scope gives
token t its share $h_t$. `CODE_BASES` names what released code computes: a load loss, its scope, its score.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._numerics import accumulate, safe_divide
from ..routing import Routing
from ..scores import Score, Softmax
from ._softmax import Mask, blanked, per_token, pull_back, token_mean
from .catalogue import OBJECTIVES, chosen
from .record import LoadForm, Objective


class Scope(enum.Enum):
    """The tokens that share one h."""

    SEQUENCE = "sequence"
    """Those of one sequence; the loss is the mean over sequences."""
    MICRO = "micro"
    """Those at hand, in one layer."""
    GLOBAL = "global"
    """Those of a larger batch, of which totals are given: all micro-batches, all devices, earlier batches."""
    POOLED = "pooled"
    """Those at hand, in all layers: h and P are pooled before they are multiplied. See `pooled`."""


class Sequences(eqx.Module):
    """Which sequence each token is of.

    **Fields:** `ids`: in 0..count-1, a token each; those of masked tokens count for nothing. `count`: how many
    sequences there are (static). `mean_length`: h is over the mean length of all sequences, so that long ones weigh
    more, as Megatron does with padding; else over the sequence's own length, and all that have a token weigh alike
    (static).
    """

    ids: Int[Array, " tokens"]
    count: int = eqx.field(static=True)
    mean_length: bool = eqx.field(static=True, default=False)


def equal_sequences(tokens: int, count: int) -> Sequences:
    """Tokens in order, the same number of each sequence. **Raises:** `ValueError` if they do not divide."""
    _checks.count("tokens", tokens)
    _checks.count("count", count)
    if tokens % count:
        raise ValueError(f"`count` must divide the {tokens} tokens; got {count} sequences.")
    return Sequences(jnp.arange(tokens, dtype=jnp.int32) // (tokens // count), count)


def scoped_shares(
    counted: Bool[Array, "tokens experts"] | Float[Array, "tokens experts"],
    scope: Scope = Scope.MICRO,
    *,
    per_token: bool = False,
    sequences: Sequences | None = None,
    totals: Float[Array, " experts"] | Int[Array, " experts"] | None = None,
    tokens: float | Array | None = None,
    mask: Mask = None,
) -> Float[Array, "#tokens experts"]:
    r"""h of each token, or one row for all: $h_e = n_e / \sum_j n_j$, or with `per_token` $n_e$ over the tokens.

    **Arguments:** `counted`: what each token adds to n: selections, first choices, probabilities. In the scope of all
    layers it is that of all of them, one below the other. `sequences`: for their scope. `totals`, `tokens`: n of the
    larger batch and, with `per_token`, its number of tokens, for the global scope.
    **Raises:** `ValueError` for what a scope needs and has not, or has and does not need.
    """
    _given(scope, sequences, totals, tokens, per_token)
    counted = _checks.array("counted", counted)
    _checks.has_axes("counted", counted.shape, ("tokens", "experts"))
    dtype = counted.dtype if jnp.issubdtype(counted.dtype, jnp.floating) else jnp.result_type(float)
    rows = blanked("counted", counted, mask)
    if rows.dtype == jnp.bool_:
        rows = rows.astype(jnp.int32)
    if sequences is not None:
        _checks.kind("sequences", sequences, Sequences)
        if sequences.ids.shape != rows.shape[:1]:
            got = f"{sequences.ids.shape[0]} for {rows.shape[0]} tokens"
            raise ValueError(f"`sequences` must name one of each token; got {got}.")
        n = jax.ops.segment_sum(rows, sequences.ids, sequences.count).astype(dtype)
        whole = _lengths(sequences, mask, dtype) if per_token else n.sum(axis=1)
        whole = jnp.broadcast_to(whole.mean(), whole.shape) if sequences.mean_length else whole
        return safe_divide(n, whole[:, None], otherwise=0.0)[sequences.ids]
    n = rows.sum(axis=0) if totals is None else _checks.array("totals", totals)
    if n.shape != rows.shape[1:]:
        raise ValueError(f"`totals` must have one entry an expert; got shape {n.shape} for {rows.shape[1]} experts.")
    whole = n.sum()
    if per_token:
        whole = tokens if tokens is not None else counted.shape[0] if mask is None else mask.sum(dtype=jnp.int32)
    return safe_divide(n.astype(dtype), jnp.asarray(whole).astype(dtype), otherwise=0.0)[None]


def _given(scope: Scope, sequences: object, totals: object, tokens: object, per_token: bool) -> None:
    """What belongs to the scope is there, and nothing else."""
    _checks.kind("scope", scope, Scope)
    needs = {
        "sequences": (scope is Scope.SEQUENCE, sequences),
        "totals": (scope is Scope.GLOBAL, totals),
        "tokens": (scope is Scope.GLOBAL and per_token, tokens),
    }
    for name, (needed, value) in needs.items():
        if needed != (value is not None):
            rule = "must be given" if needed else "must not be given"
            raise ValueError(f"`{name}` {rule} for the scope {scope.value}; got {_checks.shown(value)}.")


def _lengths(sequences: Sequences, mask: Mask, dtype: jnp.dtype) -> Float[Array, " sequences"]:
    real = jnp.ones(sequences.ids.shape, jnp.int32) if mask is None else mask.astype(jnp.int32)
    return jax.ops.segment_sum(real, sequences.ids, sequences.count).astype(dtype)


def _importance(sequences: Sequences | None, mask: Mask, dtype: jnp.dtype) -> float | Float[Array, "tokens 1"]:
    r"""$\omega_t$: the mean length over the token's own, so that a mean over tokens is one over sequences."""
    if sequences is None or sequences.mean_length:
        return 1.0
    lengths = _lengths(sequences, mask, dtype)
    mean = safe_divide(lengths.sum(), (lengths > 0).sum(dtype=jnp.int32).astype(dtype), otherwise=0.0)
    return safe_divide(mean, lengths, otherwise=0.0)[sequences.ids][:, None]


def _parts(
    term: str | Objective, routing: Routing, scope: Scope, given: Mapping[str, Any]
) -> tuple[LoadForm, Array, Array]:
    r"""Form, $N \omega_t f(h_t)$ as a constant, and w."""
    objective = chosen(term)
    if objective.convention is None:
        raise ValueError(f"`term` must be a load loss, whose share can be of another scope; got {objective.name}.")
    form, mask = objective.convention.form, routing.mask
    routing = dataclasses.replace(
        routing,
        log_probs=accumulate(blanked("log_probs", routing.log_probs, mask)),
        selected=blanked("selected", routing.selected, mask),
    )
    weights = form.weights(routing)
    share = scoped_shares(form.counted(routing), scope, per_token=form.per_token, mask=mask, **given).astype(
        weights.dtype
    )
    slope = form.slope(share) * _importance(given.get("sequences"), mask, weights.dtype)
    return form, jax.lax.stop_gradient(weights.shape[1] * slope), weights


def load_within(term: str | Objective, routing: Routing, scope: Scope = Scope.MICRO, **given: Any) -> Float[Array, ""]:
    r"""A load loss with h of another scope; its gradient is that of its convention: no gradient through hard counts.

    With h given from outside, P is still that of the tokens at hand, so that gradients of equal parts of a batch
    average to the whole batch's. For the scope of all layers give the routing that `pooled` makes.

    **Arguments:** `term`: a load loss, record or name. `given`: `sequences`, `totals`, `tokens`, as of `scoped_shares`.
    **Raises:** `ValueError` for another objective, or what `scoped_shares` refuses. **Source:** [himoe-theory].
    """
    form, slope, weights = _parts(term, routing, scope, given)
    value = token_mean((slope * weights).sum(axis=1), routing.mask)
    return value + (form.gradient - 1) * (value - jax.lax.stop_gradient(value))


def load_within_grad(
    term: str | Objective, routing: Routing, scope: Scope = Scope.MICRO, **given: Any
) -> Float[Array, "tokens experts"]:
    r"""In the logits; for a softmax $\frac{N}{T} \omega_t w_e (f_e - \langle f, w \rangle)$, twice that where h = P is
    full."""
    form, slope, weights = _parts(term, routing, scope, given)
    gradient = form.gradient * per_token(pull_back(weights, slope), routing.mask)
    return routing.score.pull_back(accumulate(blanked("logits", routing.logits, routing.mask)), gradient)


def pooled(routings: Sequence[Routing]) -> Routing:
    """The layers' routings one below the other, as of one batch of all their tokens: every objective of it is pooled
    over layers. **Raises:** `ValueError` for none, or layers whose routers differ."""
    if len({jax.tree.structure(routing) for routing in routings}) != 1:
        raise ValueError(f"`routings` must be of layers alike, at least one; got {len(routings)} that are not.")
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *routings)


@dataclasses.dataclass(frozen=True)
class CodeBase:
    """What a code base calls its load loss. `score`: whose probabilities it reads, the router's own if not given.
    `mean_length`: as of `Sequences`."""

    term: str
    scope: Scope
    source: str
    score: Score | None = None
    mean_length: bool = False

    @property
    def objective(self) -> Objective:
        """The load loss."""
        return OBJECTIVES[self.term]

    def read(self, routing: Routing) -> Routing:
        """The routing with the probabilities that the loss reads."""
        if self.score is None:
            return routing
        log_probs = self.score.log_probs(accumulate(blanked("logits", routing.logits, routing.mask)))
        return dataclasses.replace(routing, log_probs=log_probs, score=self.score)

    def value(self, routing: Routing, **given: Any) -> Float[Array, ""]:
        """The loss, without its coefficient; `given` as of `load_within`."""
        return load_within(self.term, self.read(routing), self.scope, **given)

    def gradient(self, routing: Routing, **given: Any) -> Float[Array, "tokens experts"]:
        """Closed form, in the logits; `given` as of `load_within`."""
        return load_within_grad(self.term, self.read(routing), self.scope, **given)


CODE_BASES: Mapping[str, CodeBase] = {
    "switch": CodeBase("load", Scope.MICRO, "switch"),
    "st_moe": CodeBase("load_first_choice", Scope.MICRO, "st-moe"),
    "v_moe": CodeBase("load_first_choice", Scope.MICRO, "v-moe", Softmax()),
    "tutel": CodeBase("load_first_choice", Scope.MICRO, "tutel"),
    "megatron_aux_loss": CodeBase("load_top_k", Scope.MICRO, "megatron"),
    "megatron_seq_aux_loss": CodeBase("load_top_k", Scope.SEQUENCE, "megatron", mean_length=True),
    "megatron_global_aux_loss": CodeBase("load_top_k", Scope.GLOBAL, "megatron"),
    "deepseek_v2": CodeBase("load", Scope.SEQUENCE, "deepseek-v2"),
    "deepseek_v3": CodeBase("load_top_k", Scope.SEQUENCE, "deepseek-v3"),
    "transformers": CodeBase("load_top_k_per_token", Scope.POOLED, "transformers", Softmax()),
    "olmo_core": CodeBase("load", Scope.MICRO, "olmo-core"),
    "maxtext": CodeBase("load_per_token", Scope.MICRO, "maxtext"),
    "libmoe_entropy": CodeBase("load_entropy", Scope.MICRO, "libmoe"),
    "himoe_flat": CodeBase("load_selected_weights", Scope.MICRO, "himoe-code"),
    "himoe_grouped": CodeBase("load_per_token", Scope.MICRO, "himoe-code"),
}
"""Who computes what. Megatron, DeepSeek-V3 and Transformers count plain top-k of the probabilities, whatever the router
selected; Transformers' are a softmax whatever the router's score. V-MoE's is a loss of each group of tokens."""
