"""A small mixture-of-experts layer: gate, router, experts all computed, outputs combined by the router's weights."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from himoe_theory import Router, Routing, _checks
from himoe_theory.controllers import Tree

from .experts import EXPERTS, Expert, Linear
from .gates import Draw, Gate, Seen, check_needs, drawing
from .gates import Linear as LinearGate
from .mixture import Chooser, Mixed, mixture, with_widths
from .topology import PLAIN, Topology

Parameters = dict[str, Any]
_LINEAR = LinearGate()
_PLACES = 16
"""Streams of the layer's key from here on are those of mixtures above each other."""


class Step(NamedTuple):
    """One of the mixtures that tokens pass. `experts` holds every expert's output on every token."""

    x: Float[Array, "tokens dim"]
    routing: Routing
    experts: Float[Array, "tokens experts outputs"]
    parameters: Parameters


class Output(NamedTuple):
    """What the layer did with a batch; routing and outputs of the experts are those of the last mixture."""

    prediction: Float[Array, "tokens outputs"]
    routing: Routing
    experts: Float[Array, "tokens experts outputs"]
    steps: tuple[Step, ...] = ()


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
        self,
        rng: np.random.Generator,
        num_experts: int,
        dim: int,
        outputs: int,
        gate: Gate = _LINEAR,
        topology: Topology = PLAIN,
        groups: int = 1,
    ) -> Parameters:
        """The gate's own parameters, scale `[experts]` and the experts' parameters, stacked over experts; in
        `shared_gate` what the gate shares between layers, if anything; and what the topology adds: stacked `shared`
        experts and `adjugates`, gates of later `rounds`, the layers `below`.

        **Arguments:** `groups`: of experts. **Raises:** `ValueError` for a gate that needs what is not here, or a
        topology that does not fit.
        """
        topology.check(num_experts, getattr(self.expert, "width", None))
        if topology.rounds > 1 and dim != outputs:
            raise ValueError(f"`rounds` must have as many outputs as dimensions; got {outputs} and {dim}.")
        draw = drawing(rng, self.gate_std / dim**0.5, num_experts * dim)
        shared = gate.shared(draw, num_experts, dim)
        found = self._mixture(rng, draw, num_experts, dim, outputs, gate, topology, groups)
        shown = [] if self.expert.first(jax.tree.map(lambda leaf: leaf[0], found["experts"])) is None else ["experts"]
        check_needs(gate, "the small layer", "labels", *shown)
        below = {}
        for number in range(topology.layers - 1):
            inner = drawing(rng, self.gate_std / dim**0.5, num_experts * dim)
            below[str(number)] = self._mixture(rng, inner, num_experts, dim, dim, gate, topology, groups)
        return found | ({} if shared is None else {"shared_gate": shared}) | ({"below": below} if below else {})

    def _mixture(
        self,
        rng: np.random.Generator,
        draw: Draw,
        num_experts: int,
        dim: int,
        outputs: int,
        gate: Gate,
        topology: Topology,
        groups: int,
    ) -> Parameters:
        def stacked(expert: Expert, count: int) -> Parameters:
            return jax.tree.map(lambda *one: np.stack(one), *[expert.init(rng, dim, outputs) for _ in range(count)])

        found = {"gate": gate.init(draw, num_experts, dim)}
        found["experts"] = stacked(self.expert, 1 if topology.nested else num_experts)
        found["scale"] = np.ones(num_experts, np.float32)
        if topology.shared:
            found["shared"] = stacked(self.expert, topology.shared)
        if topology.adjugates:
            found["adjugates"] = stacked(self._adjugate(topology), groups)
        if topology.rounds > 1:
            found["rounds"] = {str(r): gate.init(draw, num_experts, dim) for r in range(1, topology.rounds)}
        return found

    def _adjugate(self, topology: Topology) -> Expert:
        return dataclasses.replace(self.expert, width=topology.adjugates)  # pyright: ignore

    def routed(self, experts: Parameters, topology: Topology) -> Parameters:
        """Parameters of every routed expert, those of units that it lacks 0."""
        units = with_widths(topology, getattr(self.expert, "width", 0))
        if units is None:
            return experts
        if topology.nested:
            experts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[0], (len(units), *leaf.shape[1:])), experts)
        return jax.vmap(self.expert.narrowed)(experts, units)

    def logits(
        self,
        parameters: Parameters,
        gate: Gate,
        x: Float[Array, "tokens dim"],
        labels: Int[Array, " tokens"],
    ) -> Float[Array, "tokens experts"]:
        """s outside training, as the gate of a plain layer has it."""
        return gate.logits(parameters["gate"], self._seen(parameters, parameters, x, labels, PLAIN))[0]

    def _seen(self, whole: Parameters, own: Parameters, x: Array, labels: Array, topology: Topology) -> Seen:
        """What the gate of a mixture sees at first; `whole`: parameters of the layer."""
        first = jax.vmap(self.expert.first)(self.routed(own["experts"], topology))
        return Seen(x, own["scale"].shape[0], labels=labels, experts=first, shared=whole.get("shared_gate"))

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
        topology: Topology = PLAIN,
        limits: Bool[Array, " experts"] | None = None,
        offset: Float[Array, " experts"] | None = None,
    ) -> tuple[Output, Tree]:
        """The layer on a batch, and the router's next state, which has a row for every mixture where there are several.

        **Arguments:** `limits`, `offset`: see `Chooser`.
        """
        chooser = Chooser(gate, router, limits, offset)
        states, steps, memory = [], [], None
        for number in range(topology.layers):
            last = number == topology.layers - 1
            own = parameters if last else parameters["below"][str(number)]
            seen, total = self._seen(parameters, own, x, labels, topology)._replace(memory=memory), None
            for turn in range(topology.rounds):
                place = len(steps)
                held = state if topology.depth == 1 else jax.tree.map(lambda leaf, at=place: leaf[at], state)
                noise = key if topology.depth == 1 else jax.random.fold_in(key, _PLACES + place)
                mixed = self._pass(chooser, own, held, seen, noise, turn, training, topology)
                steps.append(Step(seen.x, mixed.routing, mixed.besides, own))
                states.append(
                    router.update(mixed.state, router.controller.tally(mixed.routing)) if training else mixed.state
                )
                total = mixed.y if total is None else total + mixed.y
                memory = mixed.memory
                if turn < topology.rounds - 1:
                    seen = seen._replace(x=seen.x + mixed.y, memory=memory)
            x = total if last else x + total
        state = states[0] if topology.depth == 1 else jax.tree.map(lambda *rows: jnp.stack(rows), *states)
        return Output(x, steps[-1].routing, steps[-1].experts, tuple(steps)), state

    def _pass(
        self,
        chooser: Chooser,
        parameters: Parameters,
        state: Tree,
        seen: Seen,
        key: PRNGKeyArray,
        turn: int,
        training: bool,
        topology: Topology,
    ) -> Mixed:
        """One mixture, once."""

        def on_all(expert: Expert, experts: Parameters, x: Array) -> Array:
            per_expert = jax.vmap(jax.vmap(expert.apply, in_axes=(0, None)), in_axes=(None, 0))
            return per_expert(experts, x)

        def routed(routing: Routing, x: Array) -> tuple[Array, Array]:
            experts = on_all(self.expert, self.routed(parameters["experts"], topology), x)
            return jnp.einsum("te,teo->to", routing.combine, experts), experts

        def each(experts: Parameters, x: Array) -> Array:
            expert = self._adjugate(topology) if experts is parameters.get("adjugates") else self.expert
            return on_all(expert, experts, x).swapaxes(0, 1)

        return mixture(
            chooser,
            parameters,
            state,
            seen,
            key,
            routed=routed,
            each=each,
            gate=parameters["rounds"][str(turn)] if turn else None,
            scale=parameters["scale"] if self.learn_scale else None,
            training=training,
        )
