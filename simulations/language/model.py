"""The language model: tokens in, loss in nats out, with every routing term and the statistics that training records."""

import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from himoe_theory import Routing, to_dense
from himoe_theory._numerics import masked_mean
from himoe_theory.controllers import Tree
from himoe_theory.objectives import Scope, View, equal_sequences, load_within, pooled

from ..gates import Seen
from ..mixture import Chooser, mixture
from ..schedules import factor, ramp
from . import parameters as tree
from .attention import attention
from .blocks import Parameters, feed_forward, norm, product
from .config import GLOBAL_LOADS, Config
from .dispatch import Experts, dispatch, narrowed
from .parameters import layer_name

# Terms that the released code grows linearly over the first steps (`himoe_warmup_iters`).
_WARMED = ("intra_group", "token_entropy")


class Aux(NamedTuple):
    """What a step did, besides its loss. L mixture-of-experts layers, N experts.

    `state`: of the routers after this forward pass; `tally`: what their controllers count of it, which adds up over
    micro-batches; one row a layer each. `cross_entropy` is the mean of `token_losses`, in nats a token. `terms`:
    objective → coefficient × value, summed over layers. `counts`: routes selected, before drops. `first_counts`: first
    choices. `dropped`: routes that no expert computed. `routing` and `hidden` (inputs of the gate): one a layer, only
    if asked for.
    """

    state: Tree
    tally: Tree
    cross_entropy: Float[Array, ""]
    token_losses: Float[Array, "batch time"]
    terms: dict[str, Float[Array, ""]]
    counts: Float[Array, "moe_layers experts"]
    first_counts: Float[Array, "moe_layers experts"]
    dropped: Float[Array, " moe_layers"]
    routing: tuple[Routing, ...] | None
    hidden: tuple[Float[Array, "tokens dim"], ...] | None


class _Layer(NamedTuple):
    """What one mixture of experts did."""

    routing: Routing
    state: Tree
    tally: Tree
    terms: dict[str, Float[Array, ""]]
    hidden: Float[Array, "tokens dim"]
    memory: Tree


class Model(Config):
    """`Config`, with parameters, state and loss. Static and hashable; equal models share compiled programs.

    A training step is `jax.value_and_grad(model.loss, has_aux=True)(parameters, state, tokens, targets, ...)`.
    """

    def init(self, seed: int) -> Parameters:
        """Initial parameters, float32."""
        return tree.init(self, seed)

    def shapes(self) -> Parameters:
        """The parameters' shapes, nothing allocated."""
        return tree.shapes(self)

    def init_state(self) -> Tree:
        """The routers' states before the first step, one row a mixture."""
        return tree.init_state(self)

    def update_state(self, state: Tree, tally: Tree, step: Int[Array, ""] | int | None = None) -> Tree:
        """The routers' states after an optimiser step, from the tallies of all its micro-batches together."""
        rows = len(self.moe_layers)
        return jax.vmap(self.router(True, step).update, axis_size=rows)(state, tally) if rows else state

    def logits(
        self,
        parameters: Parameters,
        state: Tree,
        tokens: Int[Array, "batch time"],
        *,
        key: PRNGKeyArray | None = None,
        training: bool = False,
        compute: DTypeLike = jnp.float32,
    ) -> Float[Array, "batch time vocabulary"]:
        """Scores of the next token, before the softmax."""
        x, _ = self._trunk(parameters, state, tokens, key, None, training, compute, None, None)
        return self._head(parameters, x, compute)

    def loss(
        self,
        parameters: Parameters,
        state: Tree,
        tokens: Int[Array, "batch time"],
        targets: Int[Array, "batch time"],
        *,
        key: PRNGKeyArray | None = None,
        step: Int[Array, ""] | int = 0,
        training: bool = True,
        compute: DTypeLike = jnp.float32,
        loads: Float[Array, "moe_layers experts"] | None = None,
        mask: Bool[Array, "batch time"] | None = None,
        records: bool = False,
    ) -> tuple[Float[Array, ""], Aux]:
        r"""Mean cross-entropy in nats plus $\sum_{\mathrm{layers}} \sum_{\mathrm{terms}}$ coefficient × value.

        **Arguments:** `key`: for random policies, else `None`. `step`: for schedules. `training`, `compute`,
        `records`: static; the routers' states change only in training. `loads`: for the global scope, dispatch counts
        of the whole batch (`counts`, or `first_counts` for `load_first_choice`), of any scale: h is their share; `None`
        takes the batch at hand. `mask`: true for real tokens, all if `None`; the others, padding behind the text, have
        no loss, are not routed and count nowhere.
        """
        if loads is not None and self.load_scope != "global":
            raise ValueError(f"`loads` are for `load_scope` global; this model's is {self.load_scope}.")
        x, layers = self._trunk(parameters, state, tokens, key, step, training, compute, loads, mask)
        token_losses = self._cross_entropy(self._head(parameters, x, compute), targets)
        cross_entropy = token_losses.mean() if mask is None else masked_mean(token_losses.ravel(), mask.ravel())
        terms = {name: jnp.asarray(0.0, token_losses.dtype) for name in self.arm.terms}
        for layer in layers:
            terms = {name: value + layer.terms[name] for name, value in terms.items()}
        routings = [layer.routing for layer in layers]
        if self.load_scope == "pooled" and routings:
            together = pooled(routings)
            terms |= {
                name: c * self._scheduled(name, load_within(self.arm.objectives[name], together, Scope.POOLED), step)
                for name, c in self.loads
            }
        aux = Aux(
            state=self._stacked([layer.state for layer in layers], state),
            tally=self._stacked([layer.tally for layer in layers], ()),
            cross_entropy=cross_entropy,
            token_losses=token_losses,
            terms=terms,
            counts=self._rows([r.counts for r in routings]),
            first_counts=self._rows(
                [to_dense(r.active[:, :1], r.experts[:, :1], self.experts).sum(axis=0) for r in routings]
            ),
            dropped=self._rows([r.dropped for r in routings], ()),
            routing=tuple(routings) if records else None,
            hidden=tuple(layer.hidden for layer in layers) if records else None,
        )
        return cross_entropy + sum(terms.values()), aux

    @staticmethod
    def _stacked(rows: list[Tree], empty: Tree) -> Tree:
        """One row a mixture of experts in every leaf."""
        return jax.tree.map(lambda *one: jnp.stack(one), *rows) if rows else empty

    def _rows(self, rows: list[Array], shape: tuple[int, ...] | None = None) -> Float[Array, "moe_layers ..."]:
        """One row a mixture-of-experts layer, of shape (N,) unless given; none gives an array without rows."""
        empty = jnp.zeros((0, *((self.experts,) if shape is None else shape)), jnp.float32)
        return jnp.stack([row.astype(jnp.float32) for row in rows]) if rows else empty

    @staticmethod
    def _cross_entropy(
        logits: Float[Array, "batch time vocabulary"], targets: Int[Array, "batch time"]
    ) -> Float[Array, "batch time"]:
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - chosen

    def _head(
        self, parameters: Parameters, x: Float[Array, "batch time dim"], compute: DTypeLike
    ) -> Float[Array, "batch time vocabulary"]:
        x = norm(self, parameters["norm"], x)
        weight = parameters["head"] if self.style == "olmoe" else parameters["embedding"]["token"].T
        return product(x.reshape(-1, self.dim), weight, compute).reshape(*x.shape[:-1], self.vocabulary)

    def _trunk(self, parameters, state, tokens, key, step, training, compute, loads, mask):
        """The residual stream after the last block, and what each mixture of experts did."""
        if tokens.shape[1] > self.context:
            raise ValueError(f"`tokens` must be at most {self.context} long (`context`); got {tokens.shape[1]}.")
        x = parameters["embedding"]["token"][tokens]
        if self.style == "nanogpt":
            x = x + parameters["embedding"]["position"][: tokens.shape[1]]
        layers: list[_Layer] = []
        seen = self.seen(parameters, tokens)
        real = None if mask is None else mask.ravel()
        for number in range(self.layers):
            p = parameters["layers"][layer_name(number)]
            x = x + attention(self, p["attention"], norm(self, p["attention"]["norm"], x), compute)
            network = p.get("moe") or p["mlp"]
            inner = norm(self, network["norm"], x).reshape(-1, self.dim)
            if "moe" in p:
                row, above = len(layers), layers[-1].routing if layers else None
                own = None if key is None else jax.random.fold_in(key, row)
                share = None if loads is None else loads[row]
                given = {"totals": share} if share is not None else self._sequences(tokens.shape)
                held = jax.tree.map(operator.itemgetter(row), state)
                seen = seen._replace(x=inner)
                y, layer = self._mixture(network, held, seen, own, step, training, compute, given, real, above)
                layers.append(layer)
                seen = seen._replace(memory=layer.memory)
            else:
                y = feed_forward(self, network, inner, compute)
            x = x + y.reshape(x.shape)
        return x, layers

    def seen(self, parameters: Parameters, tokens: Int[Array, "batch time"]) -> Seen:
        """What all gates see; the tokens' states are still to come."""
        nothing = jnp.zeros((tokens.size, self.dim), jnp.float32)
        return Seen(nothing, self.experts, ids=tokens.ravel(), shared=parameters.get("gate"))

    def route(
        self,
        p: Parameters,
        state: Tree,
        seen: Seen,
        key: PRNGKeyArray | None,
        training: bool,
        mask: Bool[Array, " tokens"] | None = None,
    ) -> tuple[Routing, Tree, Tree]:
        """A mixture's routing of what its gate sees, the router's state after this forward pass, and what the gate
        leaves for the next layer's.

        The gate is computed in float32, whatever the compute type.
        """
        seen = seen._replace(experts=p["in"]["weight"])
        given = {"scale": p.get("scale"), "mask": mask, "training": training}
        return self.chooser(training).route(p["gate"], state, seen, key, **given)

    def chooser(self, training: bool, step: Int[Array, ""] | int | None = None) -> Chooser:
        """Gate and router, in training or outside."""
        return Chooser(self.arm.gate, self.router(training, step))

    def _mixture(self, p, state, seen, key, step, training, compute, loads, mask, above) -> tuple[Array, _Layer]:
        """One mixture of experts."""

        def routed(routing: Routing, x: Array) -> tuple[Array, Array | None]:
            wanted = self.wants_outputs and step is not None
            return dispatch(Experts(self, narrowed(self, p), compute), x, routing, with_outputs=wanted)

        def each(experts: Parameters, x: Array) -> Array:
            count = experts["in"]["weight"].shape[0]
            return Experts(self, experts, compute).apply(jnp.broadcast_to(x, (count, *x.shape)))

        seen = seen._replace(experts=p["in"]["weight"])
        given = {"scale": p.get("scale"), "mask": mask, "training": training}
        mixed = mixture(self.chooser(training, step), p, state, seen, key, routed=routed, each=each, **given)
        routing, terms = mixed.routing, {}
        if step is not None:
            terms = self.terms(View(routing, mixed.besides, seen.x, p, above, self.arm.topology.costs), step, loads)
        tally = self.arm.router.controller.tally(routing)
        return mixed.y, _Layer(routing, mixed.state, tally, terms, seen.x, mixed.memory)

    @property
    def loads(self) -> tuple[tuple[str, float], ...]:
        """Terms, with their coefficients, of which h can be another scope's."""
        return tuple((name, c) for name, c in self.arm.terms.items() if self.arm.objectives[name].convention)

    def _sequences(self, shape: tuple[int, ...]) -> Mapping[str, Any]:
        """What the scope of sequences needs; nothing for others."""
        return {"sequences": equal_sequences(math.prod(shape), shape[0])} if self.load_scope == "sequence" else {}

    def _scheduled(self, name: str, value: Float[Array, ""], step: Int[Array, ""] | int) -> Float[Array, ""]:
        """An objective's value times the factors of its coefficient: the released code's warm-up, and the arm's own."""
        own = self.arm.schedules.get(f"terms.{name}")
        found = [ramp(self.intra_warmup)] if self.intra_warmup and name.startswith(_WARMED) else []
        for schedule in found if own is None else [*found, own]:
            value = value * factor(schedule, step).astype(value.dtype)
        return value

    def terms(
        self, view: View, step: Int[Array, ""] | int, given: Mapping[str, Any] | None = None
    ) -> Mapping[str, Float[Array, ""]]:
        """Weighted objectives of one layer; loads that are pooled over layers are 0. `given`: sequences, or totals of
        dispatches, for the loads of which h is another scope's."""
        values, loads = {}, dict(self.loads)
        for name, coefficient in self.arm.terms.items():
            objective = self.arm.objectives[name]
            if self.load_scope == "pooled" and name in loads:
                value = jnp.zeros((), view.routing.log_probs.dtype)
            elif given and name in (GLOBAL_LOADS if "totals" in given else loads):
                value = load_within(
                    objective, view.routing, Scope(self.load_scope), **given, **self._tokens(name, given)
                )
            else:
                value = objective.value(objective.check(view))
            values[name] = coefficient * self._scheduled(name, value, step)
        return values

    def _tokens(self, name: str, given: Mapping[str, Any]) -> Mapping[str, Array]:
        """Of how many tokens the totals are, where a load divides by that."""
        convention = self.arm.objectives[name].convention
        if "totals" not in given or convention is None or not convention.form.per_token:
            return {}
        return {"tokens": given["totals"].sum() / (GLOBAL_LOADS[name] or self.routes)}
