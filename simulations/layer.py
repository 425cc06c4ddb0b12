"""A small mixture-of-experts layer: gate, router, experts all computed, outputs combined by the router's weights."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from himoe_theory import Router, Routing, _checks
from himoe_theory.controllers import Tree

from .experts import EXPERTS, Expert, Linear
from .gates import Gate, Seen, check_needs, drawing
from .gates import Linear as LinearGate

Parameters = dict[str, Any]
_LINEAR = LinearGate()
_GATE_NOISE = 2
"""A stream of the layer's key; capacity has number 1, policies the key itself."""


class Output(NamedTuple):
    """What the layer did with a batch. `experts` holds every expert's output on every token."""

    prediction: Float[Array, "tokens outputs"]
    routing: Routing
    experts: Float[Array, "tokens experts outputs"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """Static description; parameters and the router's state are passed in."""

    expert: Expert | str = dataclasses.field(default_factory=Linear)
    """What each expert computes, or its name in `EXPERTS`."""
    gate_std: float = 0.1
    """Standard deviation of the gate's initial weights, times sqrt(dim)."""
    learn_scale: bool = False
    """Train a factor for each expert's weight, initially 1 (the released code's router_scale)."""

    at_start: ClassVar[tuple[str, ...]] = ("gate_std",)
    """Fields that only initial parameters depend on: programs of layers that differ in no other are equal."""

    def __post_init__(self):
        expert: Any = self.expert
        if isinstance(expert, str):
            if expert not in EXPERTS:
                raise ValueError(f"`expert` must be an expert or one of {', '.join(EXPERTS)}; got {expert!r}.")
            object.__setattr__(self, "expert", EXPERTS[expert]())
        elif isinstance(expert, type) or not (hasattr(expert, "init") and hasattr(expert, "apply")):
            raise ValueError(f"`expert` must be an expert, such as TwoLayer(), or its name; got {expert!r}.")
        _checks.coefficient("gate_std", self.gate_std)

    def init(
        self, rng: np.random.Generator, num_experts: int, dim: int, outputs: int, gate: Gate = _LINEAR
    ) -> Parameters:
        """The gate's own parameters, scale `[experts]` and the experts' parameters, stacked over experts; in
        `shared_gate` what the gate shares between layers, if anything.

        **Raises:** `ValueError` for a gate that needs what is not here.
        """
        draw = drawing(rng, self.gate_std / dim**0.5, num_experts * dim)
        drawn, shared = gate.init(draw, num_experts, dim), gate.shared(draw, num_experts, dim)
        experts = [self.expert.init(rng, dim, outputs) for _ in range(num_experts)]
        shown = [] if self.expert.first(experts[0]) is None else ["experts"]
        check_needs(gate, "the small layer", "labels", *shown)
        return {
            "gate": drawn,
            **({} if shared is None else {"shared_gate": shared}),
            "scale": np.ones(num_experts, np.float32),
            "experts": jax.tree.map(lambda *one: np.stack(one), *experts),
        }

    def logits(
        self,
        parameters: Parameters,
        gate: Gate,
        x: Float[Array, "tokens dim"],
        labels: Int[Array, " tokens"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "tokens experts"]:
        """s, as the gate has it. `key`: for its noise, `None` outside training."""
        seen = Seen(
            x,
            parameters["scale"].shape[0],
            labels=labels,
            key=key,
            experts=jax.vmap(self.expert.first)(parameters["experts"]),
            shared=parameters.get("shared_gate"),
        )
        return gate.logits(parameters["gate"], seen)[0]

    def apply(
        self,
        parameters: Parameters,
        router: Router,
        gate: Gate,
        state: Tree,
        x: Float[Array, "tokens dim"],
        labels: Int[Array, " tokens"],
        *,
        key: PRNGKeyArray,
        training: bool,
    ) -> tuple[Output, Tree]:
        """The layer on a batch, and the router's next state."""
        noise = jax.random.fold_in(key, _GATE_NOISE) if training and gate.is_random else None
        logits = self.logits(parameters, gate, x, labels, key=noise)
        scale = parameters["scale"] if self.learn_scale else None
        routing, state = router.step(key, state, logits, scale=scale, training=training)
        per_expert = jax.vmap(jax.vmap(self.expert.apply, in_axes=(0, None)), in_axes=(None, 0))
        experts = per_expert(parameters["experts"], x)
        return Output(jnp.einsum("te,teo->to", routing.combine, experts), routing, experts), state
