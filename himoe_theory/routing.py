"""`Routing`: the one record that objectives, metrics and layers read."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._numerics import accumulate
from .partition import Partition


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
    values: Float[Array, "tokens experts"] | Bool[Array, "tokens experts"], experts: Int[Array, "tokens routes"]
) -> Float[Array, "tokens routes"] | Bool[Array, "tokens routes"]:
    """The entries of the chosen experts, route by route."""
    return jnp.take_along_axis(values, experts, axis=-1)


class Routing(eqx.Module):
    r"""What a router decided for T tokens, N experts and R routes a token.

    A route is one choice of an expert. Grouped routers order routes group by group, inside a group by rank; flat
    routers by rank. All weights are dimensionless.

    **Fields:**

    - `logits`: $s$, as the router computed them.
    - `selection_logits`: the logits that selection and combine weights see, $(s - \tau \bar g)/\mathrm{Temp}$ for a
      bias-corrected router, else `logits` itself.
    - `experts`: the expert of each route.
    - `active`: false where a policy (ST-MoE) discarded the route.
    - `kept`: active and within the capacity of its expert.
    - `slots`: place in the expert's buffer, route-major order; -1 where not kept (as [himoe-code] marks it).
    - `weights`: combine weights; 0 where not kept, the rest not renormalised.
    - `partition`: groups of experts (static).
    - `capacity`: slots per expert, `None` when unlimited (static).
    """

    logits: Float[Array, "tokens experts"]
    selection_logits: Float[Array, "tokens experts"]
    experts: Int[Array, "tokens routes"]
    active: Bool[Array, "tokens routes"]
    kept: Bool[Array, "tokens routes"]
    slots: Int[Array, "tokens routes"]
    weights: Float[Array, "tokens routes"]
    partition: Partition = eqx.field(static=True)
    capacity: int | None = eqx.field(static=True)

    @property
    def probs(self) -> Float[Array, "tokens experts"]:
        r"""$\pi = \mathrm{softmax}(s)$ of the raw logits, at least float32."""
        return jax.nn.softmax(accumulate(self.logits))

    @property
    def selection_probs(self) -> Float[Array, "tokens experts"]:
        """Softmax of `selection_logits`, at least float32."""
        return jax.nn.softmax(accumulate(self.selection_logits))

    @property
    def group_mass(self) -> Float[Array, "tokens groups"]:
        r"""$m_g = \sum_{e \in g} \pi_e$."""
        return self.partition.sum(self.probs)

    @property
    def selected(self) -> Bool[Array, "tokens experts"]:
        """Experts chosen by each token before capacity drops (the released code computes every loss from these)."""
        return to_dense(self.active, self.experts, self.partition.num_experts)

    @property
    def dispatched(self) -> Bool[Array, "tokens experts"]:
        """Experts that receive the token after drops."""
        return to_dense(self.kept, self.experts, self.partition.num_experts)

    @property
    def combine(self) -> Float[Array, "tokens experts"]:
        """Combine weights at the place of their expert."""
        return to_dense(self.weights, self.experts, self.partition.num_experts)
