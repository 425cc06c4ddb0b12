"""`Routing`: the one record that objectives, metrics and layers read; `Blend`, where experts see mixes of tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from ._numerics import accumulate
from .partition import Partition
from .scores import Score


def to_dense(
    values: Float[Array, "tokens routes"] | Bool[Array, "tokens routes"],
    experts: Int[Array, "tokens routes"],
    num_experts: int,
) -> Float[Array, "tokens experts"] | Bool[Array, "tokens experts"]:
    """Per-route values at the place of their expert, 0 (or False) elsewhere. Routes of a token name distinct
    experts."""
    chosen = experts[:, :, None] == jnp.arange(num_experts, dtype=experts.dtype)
    if values.dtype == jnp.bool_:
        return (chosen & values[:, :, None]).any(axis=1)
    return jnp.where(chosen, values[:, :, None], 0).sum(axis=1)


def from_dense(
    values: Shaped[Array, "*batch tokens experts"], experts: Int[Array, "*batch tokens routes"]
) -> Shaped[Array, "*batch tokens routes"]:
    """The entries of the chosen experts, route by route."""
    return jnp.take_along_axis(values, experts, axis=-1)


class Routing(eqx.Module):
    r"""What a router decided for T tokens and N experts, dense: any number of experts a token, of tokens an expert.

    All weights are dimensionless. A masked token (padding) selects nothing and has weight 0.

    **Fields:**

    - `logits`: $s$, as the gate computed them.
    - `log_probs`: logarithm of the router's own score, normalised over experts: of $\mathrm{softmax}(s)$, or of
      $\sigma(s)/\sum\sigma(s)$ for a sigmoid router. Objectives call its exponential probabilities.
    - `selection_logits`: the logits that selection and combine weights see, $(s - \tau \bar g)/\mathrm{Temp}$ for a
      bias-corrected router, else `logits` itself.
    - `selected`: chosen, before capacity drops (the released code computes every loss from these).
    - `kept`: the expert computes on the token: within its capacity, and no null expert.
    - `slots`: place in the expert's buffer; -1 where not kept (as [himoe-code] marks it).
    - `combine`: combine weights; 0 where not kept, the rest not renormalised.
    - `mask`: true for real tokens; `None` if all are.
    - `routes`: the ranked view where a selection has one: the expert of each route of a token, an entry of which may be
      inactive. Grouped routers order routes group by group, inside a group by rank; flat ones by rank.
    - `partition`: groups of experts (static).
    - `capacity`: slots per expert, `None` when unlimited (static).
    - `score`: whose logarithm `log_probs` is (static).
    """

    logits: Float[Array, "tokens experts"]
    log_probs: Float[Array, "tokens experts"]
    selection_logits: Float[Array, "tokens experts"]
    selected: Bool[Array, "tokens experts"]
    kept: Bool[Array, "tokens experts"]
    slots: Int[Array, "tokens experts"]
    combine: Float[Array, "tokens experts"]
    mask: Bool[Array, " tokens"] | None
    routes: Int[Array, "tokens routes"] | None
    partition: Partition = eqx.field(static=True)
    capacity: int | None = eqx.field(static=True)
    score: Score = eqx.field(static=True)

    @property
    def probs(self) -> Float[Array, "tokens experts"]:
        r"""$\pi$, the router's own score normalised over experts; at least float32."""
        return jnp.exp(self.log_probs)

    @property
    def selection_log_probs(self) -> Float[Array, "tokens experts"]:
        """Logarithm of the normalised score of `selection_logits`, at least float32."""
        return self.score.log_probs(accumulate(self.selection_logits))

    @property
    def selection_probs(self) -> Float[Array, "tokens experts"]:
        """Normalised score of `selection_logits`, at least float32."""
        return jnp.exp(self.selection_log_probs)

    @property
    def group_mass(self) -> Float[Array, "tokens groups"]:
        r"""$m_g = \sum_{e \in g} \pi_e$."""
        return self.partition.sum(self.probs)

    @property
    def counts(self) -> Int[Array, " experts"]:
        """Tokens that selected each expert, exact whatever the logits' type."""
        return self.selected.sum(axis=0, dtype=jnp.int32)

    @property
    def dropped(self) -> Int[Array, ""]:
        """Selections that no expert computes: over capacity, or null."""
        return (self.selected & ~self.kept).sum(dtype=jnp.int32)

    @property
    def experts(self) -> Int[Array, "*batch tokens routes"]:
        """The expert of each route; without a ranked view all experts, the selected ones first, best first."""
        if self.routes is not None:
            return self.routes
        keys = jnp.where(self.selected, self.selection_logits, -jnp.inf)
        return jnp.argsort(-keys, axis=-1, stable=True).astype(jnp.int32)

    @property
    def num_routes(self) -> int:
        """Experts that a token can select: the width of the ranked view, all experts without one."""
        return self.logits.shape[-1] if self.routes is None else self.routes.shape[-1]

    @property
    def active(self) -> Bool[Array, "*batch tokens routes"]:
        """Whether the route's expert is selected: false where a policy, a limit or the mask took it out."""
        return from_dense(self.selected, self.experts)

    @property
    def weights(self) -> Float[Array, "*batch tokens routes"]:
        """Combine weight of each route."""
        return from_dense(self.combine, self.experts)

    def spread(self, x: Float[Array, "tokens dim"]) -> Float[Array, "experts places dim"]:
        """Each expert's buffer of tokens, empty places 0; as many places as tokens when capacity is unlimited."""
        places = x.shape[0] if self.capacity is None else self.capacity
        holds = _one_hot(self.slots, places).astype(x.dtype)
        return jnp.einsum("tep,td->epd", holds, x, precision="highest")

    def collect(self, y: Float[Array, "experts places outputs"]) -> Float[Array, "tokens outputs"]:
        """What comes back to the tokens, $\\sum_e w_{te}\\, y_e$ at the token's place."""
        holds = _one_hot(self.slots, y.shape[1]).astype(y.dtype)
        return jnp.einsum("te,tep,epo->to", self.combine.astype(y.dtype), holds, y, precision="highest")


class Blend(eqx.Module):
    r"""Soft dispatch: every slot of an expert receives a convex mix of all tokens, every token a mix of all slots.

    There are no edges to keep or drop; P slots an expert. **Fields:** `send`: what part of a slot each token makes,
    columns sum to 1. `back`: what part of a token's output each slot makes, rows sum to 1. `mask`, `partition`: as in
    `Routing`. **Source:** [soft-moe].
    """

    logits: Float[Array, "tokens experts places"]
    send: Float[Array, "tokens experts places"]
    back: Float[Array, "tokens experts places"]
    mask: Bool[Array, " tokens"] | None
    partition: Partition = eqx.field(static=True)

    @property
    def combine(self) -> Float[Array, "tokens experts"]:
        """Weight of each expert in a token's output."""
        return self.back.sum(axis=-1)

    @property
    def probs(self) -> Float[Array, "tokens experts"]:
        """The same: rows sum to 1."""
        return self.combine

    @property
    def selected(self) -> Bool[Array, "tokens experts"]:
        """Every expert, for every real token."""
        shape = self.send.shape[:2]
        return jnp.ones(shape, bool) if self.mask is None else jnp.broadcast_to(self.mask[:, None], shape)

    def spread(self, x: Float[Array, "tokens dim"]) -> Float[Array, "experts places dim"]:
        """The mix of tokens in every slot."""
        return jnp.einsum("tep,td->epd", self.send.astype(x.dtype), x, precision="highest")

    def collect(self, y: Float[Array, "experts places outputs"]) -> Float[Array, "tokens outputs"]:
        """The mix of slots for every token."""
        return jnp.einsum("tep,epo->to", self.back.astype(y.dtype), y, precision="highest")


def blend(
    logits: Float[Array, "tokens experts places"], partition: Partition, mask: Bool[Array, " tokens"] | None = None
) -> Blend:
    """Soft dispatch of slot logits: softmax over tokens to send, over all slots together to come back.

    Masked tokens are sent nowhere and get nothing. **Source:** [soft-moe] eqs. (1, 2).
    """
    logits = accumulate(logits)
    partition.check("logits", logits.shape[1])
    shown = logits if mask is None else jnp.where(mask[:, None, None], logits, -jnp.inf)
    flat = logits.reshape(logits.shape[0], -1)
    back = jax.nn.softmax(flat, axis=-1).reshape(logits.shape)
    if mask is not None:
        back = jnp.where(mask[:, None, None], back, 0)
    return Blend(logits, jax.nn.softmax(shown, axis=0), back, mask, partition)


def _one_hot(slots: Int[Array, "tokens experts"], places: int) -> Bool[Array, "tokens experts places"]:
    return slots[:, :, None] == jnp.arange(places, dtype=slots.dtype)
