"""A small mixture-of-experts layer: linear gate, router, experts all computed, outputs combined by the router's
weights."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from himoe_theory import Router, Routing, _checks
from himoe_theory.controllers import Tree

from .arms import Gate
from .experts import EXPERTS, Expert, Linear

Parameters = dict[str, Any]


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

    def init(self, rng: np.random.Generator, num_experts: int, dim: int, outputs: int) -> Parameters:
        """Gate `[experts, dim]`, scale `[experts]` and the experts' parameters, stacked over experts."""
        gate = self.gate_std / dim**0.5 * rng.standard_normal((num_experts, dim))
        experts = [self.expert.init(rng, dim, outputs) for _ in range(num_experts)]
        return {
            "gate": gate.astype(np.float32),
            "scale": np.ones(num_experts, np.float32),
            "experts": jax.tree.map(lambda *one: np.stack(one), *experts),
        }

    def logits(
        self, parameters: Parameters, gate: Gate, x: Float[Array, "tokens dim"], labels: Int[Array, " tokens"]
    ) -> Float[Array, "tokens experts"]:
        """$s = W x$, with W held fixed for a frozen gate; a planted gate reads the label instead."""
        weight = parameters["gate"]
        if gate == "planted":
            experts = weight.shape[0]
            return 20 * jax.nn.one_hot(labels % experts, experts, dtype=x.dtype)
        return x @ (jax.lax.stop_gradient(weight) if gate == "frozen" else weight).T

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
        logits = self.logits(parameters, gate, x, labels)
        scale = parameters["scale"] if self.learn_scale else None
        routing, state = router.step(key, state, logits, scale=scale, training=training)
        per_expert = jax.vmap(jax.vmap(self.expert.apply, in_axes=(0, None)), in_axes=(None, 0))
        experts = per_expert(parameters["experts"], x)
        return Output(jnp.einsum("te,teo->to", routing.combine, experts), routing, experts), state
