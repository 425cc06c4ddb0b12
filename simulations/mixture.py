"""One mixture of experts, the same for the small layer and for language models: gate, router, and what stands around
the routed experts. How those are computed is the caller's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from himoe_theory import Router, Routing
from himoe_theory.controllers import Tree

from .gates import Gate, Seen
from .topology import Topology

_GATE_NOISE = 2
"""A stream of the mixture's key; capacity has number 1, policies the key itself."""

Routed = Callable[[Routing, Float[Array, "tokens dim"]], tuple[Float[Array, "tokens outputs"], Any]]
"""The routed experts: what comes back to the tokens, and whatever else the caller wants of them."""
Each = Callable[[Any, Float[Array, "tokens dim"]], Float[Array, "experts tokens outputs"]]
"""Every one of some experts on all tokens, from their parameters."""


class Mixed(NamedTuple):
    """What a mixture did: its outputs, the routing, the router's state after the forward pass, what the gate leaves for
    the next, and what `Routed` gave besides."""

    y: Float[Array, "tokens outputs"]
    routing: Routing
    state: Tree
    memory: Tree
    besides: Any


class Chooser(NamedTuple):
    """How tokens find experts: a gate and a router, and what is imposed on them from outside.

    `limits`: false for experts that no token may choose. `offset`: added to the logits of every token.
    """

    gate: Gate
    router: Router
    limits: Bool[Array, " experts"] | None = None
    offset: Float[Array, " experts"] | None = None

    def route(
        self,
        parameters: Tree,
        state: Tree,
        seen: Seen,
        key: PRNGKeyArray | None,
        *,
        scale: Float[Array, " experts"] | None = None,
        mask: Bool[Array, " tokens"] | None = None,
        training: bool,
    ) -> tuple[Routing, Tree, Tree]:
        """The routing of what the gate sees, the router's state after this forward pass, and what the gate leaves."""
        noisy = self.gate.is_random and training and key is not None
        noise = jax.random.fold_in(key, _GATE_NOISE) if noisy else None  # pyright: ignore
        logits, memory = self.gate.logits(parameters, seen._replace(key=noise))
        logits = logits if self.offset is None else logits + self.offset.astype(logits.dtype)
        given = {"scale": scale, "limits": self.limits, "mask": mask, "training": training}
        routing, state = self.router.route(key, state, logits, **given)
        return routing, state, memory


def mixture(
    chooser: Chooser,
    parameters: Tree,
    state: Tree,
    seen: Seen,
    key: PRNGKeyArray | None,
    *,
    routed: Routed,
    each: Each,
    gate: Tree = None,
    scale: Float[Array, " experts"] | None = None,
    mask: Bool[Array, " tokens"] | None = None,
    training: bool,
) -> Mixed:
    r"""$y = \sum_e w_e f_e(x) + \sum_s h_s(x) + \sum_g (\sum_{e \in g} w_e)\, a_g(x)$ with shared experts h and
    adjugates a, where there are any.

    **Arguments:** `parameters`: `gate`, and `shared` and `adjugates`, stacked, for those that there are. `routed`,
    `each`: how experts are computed. `gate`: other parameters of the gate, in later rounds.
    """
    own = parameters["gate"] if gate is None else gate
    routing, state, memory = chooser.route(own, state, seen, key, scale=scale, mask=mask, training=training)
    y, besides = routed(routing, seen.x)
    if "shared" in parameters:
        always = each(parameters["shared"], seen.x).sum(axis=0)
        y = y + (always if mask is None else jnp.where(mask[:, None], always, 0))
    if "adjugates" in parameters:
        weight = routing.partition.sum(routing.combine)
        y = y + jnp.einsum("tg,gto->to", weight.astype(y.dtype), each(parameters["adjugates"], seen.x))
    return Mixed(y, routing, state, memory, besides)


def with_widths(topology: Topology, hidden: int) -> Bool[Array, "experts hidden"] | None:
    """Which of the hidden units each routed expert has; `None` for all."""
    if not topology.widths:
        return None
    return jnp.arange(hidden, dtype=jnp.int32) < jnp.asarray(topology.widths, jnp.int32)[:, None]
