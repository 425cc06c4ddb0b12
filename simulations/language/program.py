"""The compiled parts of training: a step with accumulated gradients, and a pass over validation sequences.

With `load_scope` global and several micro-batches, a forward pass over the whole batch comes first and counts what
every expert receives; the loads of all micro-batches are then the batch's. It repeats the routers' states and random
numbers, so the counts are exactly those of the pass that follows. It costs one forward pass in addition to a forward
and a backward one: a third more arithmetic.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from himoe_theory import metrics
from himoe_theory.controllers import Tree
from himoe_theory.objectives import token_entropy

from .. import brought
from ..compiling import OWN_SUMS, WIDE, known
from ..data import Windows
from . import similarity
from .mesh import constrain, gather, on_all, place, place_batch
from .model import Aux, Model
from .recipe import Recipe

_NOISE, _EVALUATION = 0, 1
"""Streams of random numbers under a run's key."""


class State(NamedTuple):
    """All that the next step needs. `step`: steps finished, which is also the position in the data."""

    parameters: Any
    optimizer: Any
    router: Tree
    key: PRNGKeyArray
    step: Int[Array, ""]


class Step(NamedTuple):
    """What a step did. Losses and terms are means over micro-batches; counts are sums."""

    loss: Float[Array, ""]
    cross_entropy: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    finite: Bool[Array, ""]
    """If false the state is the one before, all of it."""
    terms: dict[str, Float[Array, ""]]
    counts: Float[Array, "moe_layers experts"]
    dropped: Float[Array, " moe_layers"]


@dataclasses.dataclass(frozen=True)
class Program:
    """A model and how it is trained. Hashable, so equal programs compile once."""

    model: Model
    recipe: Recipe
    brought: tuple[str, ...] = dataclasses.field(init=False)
    """Hashes of what a user brought: what is redefined in place is compiled anew."""

    def __post_init__(self):
        object.__setattr__(self, "brought", brought.key(self.model.arm, self.model.evaluation))

    def begin(self, seed: int, given: tuple[Any, Tree] | None = None) -> State:
        """Initial parameters, equal for arms of equal shapes, or `given` ones with the routers' states; a fresh
        optimiser."""
        parameters, router = (self.model.init(seed), self.model.init_state()) if given is None else given
        optimizer = self.recipe.optimizer(self.model.arm.gate).init(parameters)
        step = jnp.zeros((), jnp.int32)
        return place(self.model, State(parameters, optimizer, router, jax.random.key(seed), step))

    def cut(self, windows: Windows) -> tuple[Int[Array, "micro sequences time"], Int[Array, "micro sequences time"]]:
        """Tokens and targets of a batch, micro-batch by micro-batch."""
        shape = (self.recipe.micro_batches, self.recipe.micro_batch, -1)
        tokens, targets = (place_batch(self.model, part.reshape(shape)) for part in (windows.tokens, windows.targets))
        return tokens, targets

    def advance(
        self,
        state: State,
        tokens: Int[Array, "micro sequences time"],
        targets: Int[Array, "micro sequences time"],
    ) -> tuple[State, Step]:
        """One optimiser step; where its loss or gradient is not finite, none. The state that is given is used up."""
        return _compiled_step(self.recipe.compute)(self, state, tokens, targets)

    def _advance(
        self,
        state: State,
        tokens: Int[Array, "micro sequences time"],
        targets: Int[Array, "micro sequences time"],
    ) -> tuple[State, Step]:
        gradient, router, step = self.gradient(state, tokens, targets)
        with jax.numpy_dtype_promotion("standard"):  # optax raises numbers to its integer step count
            optimizer = self.recipe.optimizer(self.model.arm.gate)
            updates, moments = optimizer.update(gradient, state.optimizer, state.parameters)
        new = (optax.apply_updates(state.parameters, updates), moments, router, state.step + 1)
        old = (state.parameters, state.optimizer, state.router, state.step)
        parameters, moments, router, count = jax.tree.map(lambda a, b: jnp.where(step.finite, a, b), new, old)
        state = constrain(self.model, State(parameters, moments, router, state.key, count))
        return state, gather(self.model, step)

    def gradient(
        self,
        state: State,
        tokens: Int[Array, "micro sequences time"],
        targets: Int[Array, "micro sequences time"],
    ) -> tuple[Any, Tree, Step]:
        """Mean gradient over micro-batches, the routers' states after the step, and what happened."""
        keys, loads = self.keys(state), self.loads(state, tokens, targets)
        differentiate = jax.value_and_grad(self.loss, has_aux=True)

        def one(router: Tree, now: tuple[Array, Array, PRNGKeyArray]) -> tuple[Tree, Tree, Any, Step]:
            (loss, aux), gradient = differentiate(state.parameters, state._replace(router=router), *now, loads)
            nothing = jnp.zeros((), loss.dtype)
            done = Step(loss, aux.cross_entropy, nothing, nothing > 0, aux.terms, aux.counts, aux.dropped)
            return aux.state, aux.tally, gradient, done

        if self.recipe.micro_batches == 1:
            router, tally, gradient, step = one(state.router, (tokens[0], targets[0], keys[0]))
        else:

            def add(carry: tuple[Tree, Any], now: tuple[Array, Array, PRNGKeyArray]):
                router, tally, gradient, done = one(carry[0], now)
                return (router, jax.tree.map(jnp.add, carry[1], gradient)), (tally, done)

            zero = jax.tree.map(jnp.zeros_like, state.parameters)
            (router, total), (tallies, each) = jax.lax.scan(add, (state.router, zero), (tokens, targets, keys))
            tally = jax.tree.map(lambda parts: parts.sum(axis=0, dtype=parts.dtype), tallies)
            gradient = jax.tree.map(lambda g: g / self.recipe.micro_batches, total)
            step = jax.tree.map(lambda x: x if x.dtype == bool else x.mean(axis=0), each)
            step = step._replace(counts=each.counts.sum(axis=0), dropped=each.dropped.sum(axis=0))
        router = self.model.update_state(router, tally, state.step)
        norm = optax.tree.norm(gradient)
        return gradient, router, step._replace(gradient_norm=norm, finite=jnp.isfinite(step.loss) & jnp.isfinite(norm))

    def keys(self, state: State) -> Key[Array, " micro"]:
        """A key for each micro-batch of the coming step."""
        noise = jax.random.fold_in(jax.random.fold_in(state.key, _NOISE), state.step)
        return jax.random.split(noise, self.recipe.micro_batches)

    def loss(
        self,
        parameters: Any,
        state: State,
        tokens: Int[Array, "sequences time"],
        targets: Int[Array, "sequences time"],
        key: PRNGKeyArray,
        loads: Float[Array, "moe_layers experts"] | None,
        *,
        records: bool = False,
    ) -> tuple[Float[Array, ""], Aux]:
        """Training loss of a micro-batch: `parameters` in place of the state's."""
        return self.model.loss(
            parameters,
            state.router,
            tokens,
            targets,
            key=key,
            step=state.step,
            training=True,
            compute=self.recipe.dtype,
            loads=loads,
            records=records,
        )

    def loads(
        self,
        state: State,
        tokens: Int[Array, "micro sequences time"],
        targets: Int[Array, "micro sequences time"],
    ) -> Float[Array, "moe_layers experts"] | None:
        """Dispatch counts of the whole batch for the global scope; `None` where the micro-batch's own serve."""
        if self.model.load_scope != "global" or self.recipe.micro_batches == 1 or not self.model.moe_layers:
            return None

        def count(router: Tree, now: tuple[Array, Array, PRNGKeyArray]) -> tuple[Tree, Array]:
            _, aux = self.loss(state.parameters, state._replace(router=router), *now, loads=None)
            return aux.state, aux.first_counts if "load_first_choice" in self.model.arm.terms else aux.counts

        _, counts = jax.lax.scan(count, state.router, (tokens, targets, self.keys(state)))
        return counts.sum(axis=0)

    def evaluate(self, state: State, held_out: Windows, num_domains: int) -> dict[str, np.ndarray]:
        """Losses by domain and router measurements by layer, on validation sequences, outside training.

        **Returns:** `domain_loss`: sum of the losses, in nats, of the tokens of a domain; `domain_tokens`; and what
        `_measure` and `similarity` say of every mixture-of-experts layer. **Arguments:** `held_out`: all of it is used,
        in parts of a micro-batch, the last of what is left.
        """
        size = self.recipe.micro_batch
        tokens, targets = (
            [on_all(self.model, part[i : i + size]) for i in range(0, len(part), size)]
            for part in (held_out.tokens, held_out.targets)
        )
        found = [self._forward(state, *now) for now in zip(tokens, targets, strict=True)]
        losses = np.concatenate([np.asarray(losses) for losses, _, _ in found]).ravel()
        of_targets = held_out.target_domains.ravel()
        measured = {
            "domain_loss": np.bincount(of_targets, losses, minlength=num_domains),
            "domain_tokens": np.bincount(of_targets, minlength=num_domains),
        }
        if self.model.moe_layers:
            logits, selected = (jnp.concatenate([part[i] for part in found], axis=1) for i in (1, 2))
            labels = on_all(self.model, held_out.domains.ravel())
            measured |= jax.device_get(_measure(self.model, num_domains, logits, selected, labels))
            alike, outputs, first = jax.device_get(self._compare(state, tokens[0]))
            measured |= alike | {"silhouette": similarity.silhouettes(outputs, first)}
        return measured

    @functools.partial(jax.jit, static_argnums=0)
    def _compare(
        self, state: State, tokens: Int[Array, "sequences time"]
    ) -> tuple[dict[str, Array], Float[Array, "moe_layers tokens dim"], Int[Array, "moe_layers tokens"]]:
        """How alike experts are; outputs of the tokens' first experts, and which these are."""
        aux = self._evaluated(state, tokens, tokens)
        alike, outputs = similarity.compare(self.model, state.parameters, aux.routing, aux.hidden, self.recipe.dtype)
        first = jnp.stack([routing.experts[: outputs.shape[1], 0] for routing in aux.routing])
        return gather(self.model, (alike, outputs, first))

    @functools.partial(jax.jit, static_argnums=0)
    def _forward(
        self, state: State, tokens: Int[Array, "sequences time"], targets: Int[Array, "sequences time"]
    ) -> tuple[Array, Array | None, Array | None]:
        """Losses of the tokens; gate logits and selections `[moe_layers, tokens, experts]`."""
        aux = self._evaluated(state, tokens, targets)
        if not aux.routing:
            return gather(self.model, aux.token_losses), None, None
        logits = jnp.stack([routing.logits for routing in aux.routing])
        selected = jnp.stack([routing.selected for routing in aux.routing])
        return gather(self.model, (aux.token_losses, logits, selected))

    def _evaluated(
        self, state: State, tokens: Int[Array, "sequences time"], targets: Int[Array, "sequences time"]
    ) -> Aux:
        """A forward pass outside training, with the routings and the gates' inputs."""
        _, aux = self.model.loss(
            state.parameters,
            state.router,
            tokens,
            targets,
            key=jax.random.fold_in(state.key, _EVALUATION),
            step=state.step,
            training=False,
            compute=self.recipe.dtype,
            records=True,
        )
        return aux


def step_options(compute: str) -> dict[str, bool | int | str]:
    """How XLA compiles training steps for a processor, by the type of the factors of products.

    In float32 its own sums and products take a twelfth less time than YNNPACK's, which alone has bfloat16 ones.
    """
    return known(OWN_SUMS, WIDE) if compute == "float32" else {}


@functools.cache
def _compiled_step(compute: str) -> Callable[..., tuple[State, Step]]:
    options = step_options(compute)
    return jax.jit(Program._advance, static_argnums=0, donate_argnums=1, compiler_options=options)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measure(
    model: Model,
    num_domains: int,
    logits: Float[Array, "moe_layers tokens experts"],
    selected: Bool[Array, "moe_layers tokens experts"],
    domains: Int[Array, " tokens"],
) -> dict[str, Array]:
    partition = model.arm.router.partition

    def of_layer(logits: Array, selected: Array) -> dict[str, Array]:
        probs = jax.nn.softmax(logits)
        return {
            "assignment": metrics.contingency(domains, selected, num_domains).astype(jnp.float32),
            "soft_load": metrics.soft_load(probs),
            "effective_groups": metrics.effective_groups(probs, partition),
            "effective_experts": metrics.effective_experts(probs),
            "groups_touched": metrics.groups_touched(selected, partition).astype(jnp.float32),
            "router_entropy": token_entropy(logits),
            "collision_information": metrics.collision_information(probs),
        }

    return gather(model, jax.vmap(of_layer)(logits, selected))
