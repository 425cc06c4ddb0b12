"""Routers: a score, a selection, a controller, a weighting and a capacity, with a name and a citation.

A router is data. `step` turns a batch of logits into a `Routing` and the controller's next state.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from . import _checks
from ._numerics import accumulate
from .controllers import Controller, LogitAverage, SelectionBias, Tree, Uncontrolled
from .partition import Partition
from .plumbing.bring import Kind
from .routing import Routing, from_dense, to_dense
from .scores import Keys, Score, Sigmoid, Softmax
from .selection import ByPosition, Capacity, Everything, GroupedTopK, KeepAll, Policy, Selection, TopK, largest
from .selection.capacity import rerouted
from .weights import Renormalised, SoftmaxThenMask, Weighting


class Router(eqx.Module):
    """One choice from each list. All but the numbers of controller and policy are static.

    `nulls`: the last so many experts of the partition are null experts: they are chosen and count as load, but compute
    nothing and have no weight (the others' weights are not renormalised).

    **Raises:** `ValueError` when built, if the selection does not fit the partition.
    """

    name: str = eqx.field(static=True)
    partition: Partition = eqx.field(static=True)
    selection: Selection = eqx.field(static=True)
    source: str = eqx.field(static=True)
    score: Score = eqx.field(static=True, default=Softmax())
    policy: Policy = KeepAll()
    weighting: Weighting = eqx.field(static=True, default=Renormalised())
    capacity: Capacity | None = eqx.field(static=True, default=None)
    controller: Controller = Uncontrolled()
    nulls: int = eqx.field(static=True, default=0, metadata={"described": "if changed"})

    def __check_init__(self):
        self.selection.check(self.partition)
        _checks.count("nulls", self.nulls, minimum=0, maximum=self.partition.num_experts - 1, of="experts less one")

    @property
    def routes(self) -> int:
        """The most experts that a token selects."""
        return self.selection.routes(self.partition)

    @property
    def average_routes(self) -> float:
        """Experts that a token selects on average; the most, where that depends on the keys (or on a sparse score)."""
        average = self.selection.average(self.partition)
        return float(self.routes) if average is None else average

    @property
    def least_routes(self) -> int:
        """The fewest experts that a token may keep."""
        fixed = self.selection.average(self.partition) == self.routes and not self.selection.couples_tokens
        return self.routes if fixed and not self.policy.thins and not self.score.is_sparse else 1

    @property
    def is_random(self) -> bool:
        """Whether a step needs a key."""
        return self.policy.is_random or (self.capacity is not None and self.capacity.order.is_random)

    @property
    def is_dense(self) -> bool:
        """Whether every token keeps every expert, whatever the logits: there is no choice whose load could be
        measured."""
        return self.selection.is_dense and not self.policy.thins and not self.score.is_sparse

    @property
    def couples_tokens(self) -> bool:
        """Whether what a token gets, in a state that is held, depends on others of its batch: by the score, the
        selection, or places."""
        return self.score.couples_tokens or self.selection.couples_tokens or self.capacity is not None

    @property
    def task_reaches_gate(self) -> bool:
        r"""Whether the task loss has a gradient in the logits: not where one expert's weight is renormalised to
        $\pi/\pi = 1$."""
        return not (self.routes == 1 and self.weighting.sums_to_one)

    def init(self, dtype: DTypeLike = jnp.float32) -> Tree:
        """The controller's state before the first batch."""
        return self.controller.init(self.partition.num_experts, dtype)

    def step(
        self,
        key: PRNGKeyArray | None,
        state: Tree,
        logits: Float[Array, "tokens experts"],
        *,
        scale: Float[Array, " experts"] | None = None,
        limits: Bool[Array, "*#tokens experts"] | None = None,
        mask: Bool[Array, " tokens"] | None = None,
        training: bool = True,
    ) -> tuple[Routing, Tree]:
        r"""Routes a batch that is the whole of an optimiser step. **Returns:** the routing and the next state.

        **Arguments:** as of `route`. `training`: static; the controller's state changes only if true.
        """
        routing, state = self.route(key, state, logits, scale=scale, limits=limits, mask=mask, training=training)
        return routing, (self.update(state, self.controller.tally(routing)) if training else state)

    def update(self, state: Tree, tally: Tree) -> Tree:
        """The state after an optimiser step, from the sum of `controller.tally` over all of its batches."""
        return self.controller.update(state, tally)

    def route(
        self,
        key: PRNGKeyArray | None,
        state: Tree,
        logits: Float[Array, "tokens experts"],
        *,
        scale: Float[Array, " experts"] | None = None,
        limits: Bool[Array, "*#tokens experts"] | None = None,
        mask: Bool[Array, " tokens"] | None = None,
        training: bool = True,
    ) -> tuple[Routing, Tree]:
        r"""Routes a part of a batch: the first half of a step.

        **Arguments:** `key`: for random policies and capacity orders, else `None`. `state`: from `init` or the last
        step. `logits`: s, any floating type; computed in at least float32. `scale`: learnable factor of each expert's
        weight (the released code's `router_scale`), 1 if `None`. `limits`: false for experts that may not be chosen,
        for all tokens or each. `mask`: true for real tokens, all if `None`; the others select nothing and count
        nowhere. `training`: static.
        **Returns:** the routing, and the state after this forward pass; `update` finishes the step.
        """
        logits = accumulate(_checks.matrix("logits", logits))
        self.partition.check("logits", logits.shape[1])
        tokens, num_experts = logits.shape
        mask = None if mask is None else _checks.flags("mask", mask, (tokens,))
        _checks.not_probabilities("logits", logits, mask)
        state, seen, keys = self.controller.prepare(state, logits, self.score, mask=mask, training=training)
        if limits is not None:
            shapes = (num_experts,), (1, num_experts), (tokens, num_experts)
            keys = keys.limited(_checks.flags("limits", limits, *shapes))
        choice = self.selection.choose(keys, self.partition, mask)
        selected = choice.selected if mask is None else choice.selected & mask[:, None]
        log_scores = self.score.log(seen)
        gates = self.weighting.weigh(log_scores, selected)
        if self.policy.thins:
            selected &= self._stays(gates, choice.routes, key)
        gates, slots, kept, places = self._places(key, log_scores, gates, selected, choice.routes, keys, mask)
        if scale is not None:
            gates = gates * _checks.per_expert("scale", scale, num_experts).astype(gates.dtype)
        routing = Routing(
            logits=logits,
            log_probs=self.score.log_probs(logits),
            selection_logits=seen,
            selected=selected,
            kept=kept,
            slots=jnp.where(kept, slots, -1),
            combine=jnp.where(kept, gates, 0),
            mask=mask,
            routes=choice.routes,
            partition=self.partition,
            capacity=places,
            score=self.score,
        )
        return routing, state

    def _stays(
        self,
        gates: Float[Array, "tokens experts"],
        routes: Int[Array, "tokens routes"] | None,
        key: PRNGKeyArray | None,
    ) -> Bool[Array, "tokens experts"]:
        """What the policy leaves; where a selection has no ranked view, by falling gate."""
        routes = largest((gates,), gates.shape[1]) if routes is None else routes
        return to_dense(self.policy.keep(from_dense(gates, routes), key), routes, gates.shape[1])

    def _places(
        self,
        key: PRNGKeyArray | None,
        log_scores: Float[Array, "tokens experts"],
        gates: Float[Array, "tokens experts"],
        selected: Bool[Array, "tokens experts"],
        routes: Int[Array, "tokens routes"] | None,
        keys: Keys,
        mask: Bool[Array, " tokens"] | None,
    ) -> tuple[Array, Array, Array, int | None]:
        """Gates, slots, what is kept, and places an expert (`None`: no limit), after capacity and re-routing."""
        real = jnp.arange(selected.shape[1]) < selected.shape[1] - self.nulls
        rule = self.capacity
        if rule is None:
            # Buffers are in route order whatever a token's rank: the released code numbers them so.
            return gates, ByPosition().slots(selected, routes, gates, None), selected & real, None
        tokens, experts = selected.shape
        own = None if key is None else jax.random.fold_in(key, 1)
        limit = rule.limit(self.average_routes, mask, tokens, experts)
        slots = rule.order.slots(selected, routes, gates, own)
        kept = selected & (slots < limit)
        if rule.reroute:
            slots, kept = rerouted(slots, kept, selected, keys, limit, rule.reroute)
            gates = self.weighting.weigh(log_scores, kept)
        return gates, slots, kept & real, rule.slots(self.average_routes, tokens, experts)


def from_routes(
    logits: Float[Array, "tokens experts"],
    experts: Int[Array, "tokens routes"],
    partition: Partition,
    *,
    active: Bool[Array, "tokens routes"] | None = None,
    weights: Float[Array, "tokens routes"] | None = None,
    selection_logits: Float[Array, "tokens experts"] | None = None,
    capacity: int | None = None,
    mask: Bool[Array, " tokens"] | None = None,
    score: Score | None = None,
) -> Routing:
    """The record of decisions that were taken elsewhere: each token's experts by rank.

    **Arguments:** `active`: which routes are selected, all if not given. `weights`: combine weights, equal shares of
    the routes if not given. `selection_logits`: the logits, if not given. `capacity`: places of an expert, filled by
    position. `score`: softmax, if not given. **Raises:** `ValueError` for experts that are none, or shapes that do not
    fit.
    """
    score = Softmax() if score is None else score
    logits = accumulate(_checks.matrix("logits", logits))
    tokens, num_experts = logits.shape
    partition.check("logits", num_experts)
    experts = _checks.chosen("experts", experts, tokens, num_experts)
    active = jnp.ones(experts.shape, bool) if active is None else _checks.flags("active", active, experts.shape)
    selected = to_dense(active, experts, num_experts)
    selected = selected if mask is None else selected & mask[:, None]
    slots = ByPosition().slots(selected, experts, logits, None)
    kept = selected if capacity is None else selected & (slots < capacity)
    if weights is None:
        weights = jnp.full(experts.shape, 1 / experts.shape[1], logits.dtype)
    return Routing(
        logits=logits,
        log_probs=score.log_probs(logits),
        selection_logits=logits if selection_logits is None else selection_logits,
        selected=selected,
        kept=kept,
        slots=jnp.where(kept, slots, -1),
        combine=jnp.where(kept, to_dense(weights, experts, num_experts), 0),
        mask=mask,
        routes=experts,
        partition=partition,
        capacity=capacity,
        score=score,
    )


ROUTER = Kind(
    "router.kind",
    "a Router",
    "himoe.routers",
    lambda thing: isinstance(thing, Router),
    offers=("partition", "per_group"),
)
"""What a user may bring: a router, or a function that gives one for the experts and groups that are asked for:

    def mine(partition, per_group):
        return Router("mine", partition, TopK(per_group), "mine", weighting=SoftmaxThenMask())
"""


def _of_size(num_experts: int, partition: Partition | None) -> Partition:
    """The partition given, or all experts in one group."""
    if partition is None:
        return Partition.equal(num_experts, 1)
    if partition.num_experts != num_experts:
        raise ValueError(f"`num_experts` must be that of `partition`, {partition.num_experts}; got {num_experts}.")
    return partition


def dense(partition: Partition) -> Router:
    """Every expert for every token, weighted by the softmax. **Source:** [jacobs]."""
    return Router("dense", partition, Everything(), "jacobs", weighting=SoftmaxThenMask())


def gshard(num_experts: int, k: int, *, partition: Partition | None = None, capacity: Capacity | None = None) -> Router:
    """Top-k of a softmax, weights renormalised over the selection. `partition` is only read by metrics and objectives.

    **Source:** [gshard], [switch]; [himoe-code] vanilla router.
    """
    return Router("gshard", _of_size(num_experts, partition), TopK(k), "gshard", capacity=capacity)


def switch(num_experts: int, *, partition: Partition | None = None, capacity: Capacity | None = None) -> Router:
    """Top-1 of a softmax, weighted by its probability: renormalised, the task would not reach the gate.

    **Source:** [switch].
    """
    parts = _of_size(num_experts, partition)
    return Router("switch", parts, TopK(1), "switch", weighting=SoftmaxThenMask(), capacity=capacity)


def st_moe(
    num_experts: int,
    k: int,
    policy: Policy,
    *,
    partition: Partition | None = None,
    capacity: Capacity | None = None,
    epsilon: float = 1e-9,
) -> Router:
    """Top-k with a policy that decides which later experts stay. **Source:** [st-moe]; [himoe-code] ST-MoE router."""
    parts = _of_size(num_experts, partition)
    weighting = Renormalised(epsilon)
    return Router("st-moe", parts, TopK(k), "st-moe", policy=policy, weighting=weighting, capacity=capacity)


def loss_free(
    num_experts: int,
    k: int,
    *,
    rate: float = 0.001,
    partition: Partition | None = None,
    capacity: Capacity | None = None,
    epsilon: float = 1e-20,
) -> Router:
    """Sigmoid scores, top-k of score + bias, gates from the unbiased scores. **Source:** [loss-free]; [himoe-code]."""
    return Router(
        "loss-free",
        _of_size(num_experts, partition),
        TopK(k),
        "loss-free",
        score=Sigmoid(),
        weighting=Renormalised(epsilon),
        capacity=capacity,
        controller=SelectionBias(rate),
    )


def moge(
    partition: Partition, per_group: int | tuple[int, ...], *, capacity: Capacity | None = None, epsilon: float = 1e-10
) -> Router:
    """Top-K in every group. **Source:** [moge]; [himoe-code]."""
    weighting = Renormalised(epsilon)
    return Router("moge", partition, GroupedTopK(per_group), "moge", weighting=weighting, capacity=capacity)


def himoe(
    partition: Partition,
    per_group: int | tuple[int, ...],
    *,
    tau: float = 0.01,
    beta: float = 0.9,
    temperature: float = 1.0,
    capacity: Capacity | None = None,
    epsilon: float = 1e-10,
) -> Router:
    """Top-K in every group of bias-corrected probabilities, renormalised as the released code does. **Source:**
    [himoe-code]."""
    return Router(
        "hi-moe",
        partition,
        GroupedTopK(per_group),
        "himoe-code",
        weighting=Renormalised(epsilon),
        capacity=capacity,
        controller=LogitAverage(tau, beta, temperature),
    )


def himoe_paper(
    partition: Partition,
    per_group: int | tuple[int, ...],
    *,
    tau: float = 0.01,
    beta: float = 0.9,
    temperature: float = 1.0,
    capacity: Capacity | None = None,
) -> Router:
    """Hi-MoE with the paper's combine weights: softmax, then mask, not renormalised. **Source:** [himoe] eq. (5)."""
    controller = LogitAverage(tau, beta, temperature)
    selection = GroupedTopK(per_group)
    return Router(
        "hi-moe-paper",
        partition,
        selection,
        "himoe",
        weighting=SoftmaxThenMask(),
        capacity=capacity,
        controller=controller,
    )
