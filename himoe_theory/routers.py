"""Routers: a score, a selection, a controller, a weighting and a capacity, with a name and a citation.

A router is data. `step` turns a batch of logits into a `Routing` and the controller's next state.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from . import _checks
from ._numerics import accumulate
from .controllers import Controller, LogitAverage, SelectionBias, Uncontrolled
from .partition import Partition
from .routing import Routing, from_dense
from .scores import Score, Sigmoid, Softmax
from .selection import Capacity, Everything, GroupedTopK, KeepAll, Policy, Selection, TopK, assign_slots
from .weights import Renormalised, SoftmaxThenMask, Weighting


class Router(eqx.Module):
    """One choice from each list. All but the controller's numbers are static.

    **Raises:** `ValueError` when built, if the selection does not fit the partition.
    """

    name: str = eqx.field(static=True)
    partition: Partition = eqx.field(static=True)
    selection: Selection = eqx.field(static=True)
    source: str = eqx.field(static=True)
    score: Score = eqx.field(static=True, default=Softmax())
    policy: Policy = eqx.field(static=True, default=KeepAll())
    weighting: Weighting = eqx.field(static=True, default=Renormalised())
    capacity: Capacity | None = eqx.field(static=True, default=None)
    controller: Controller = Uncontrolled()

    def __check_init__(self):
        self.selection.check(self.partition)

    @property
    def routes(self) -> int:
        """Experts a token selects."""
        return self.selection.routes(self.partition)

    @property
    def least_routes(self) -> int:
        """The fewest experts that a token may keep: the policy may leave only the first."""
        return self.routes if isinstance(self.policy, KeepAll) else 1

    def init(self, dtype: DTypeLike = jnp.float32) -> Float[Array, " experts"]:
        """The controller's state before the first batch: zeros."""
        return jnp.zeros(self.partition.num_experts, dtype)

    def step(
        self,
        key: PRNGKeyArray | None,
        state: Float[Array, " experts"],
        logits: Float[Array, "tokens experts"],
        *,
        scale: Float[Array, " experts"] | None = None,
        training: bool = True,
    ) -> tuple[Routing, Float[Array, " experts"]]:
        r"""Routes a batch.

        **Arguments:** `key`: for random policies, else `None`. `state`: from `init` or the last step. `logits`: s, any
        floating type; computed in at least float32. `scale`: learnable factor of each expert's weight (the released
        code's `router_scale`), 1 if `None`. `training`: static; the controller's state changes only if true.
        **Returns:** the routing and the next state.
        """
        logits = accumulate(_checks.matrix("logits", logits))
        self.partition.check("logits", logits.shape[1])
        tokens, num_experts = logits.shape
        state = _checks.per_expert("state", state, num_experts)
        state, selection_logits, keys = self.controller.prepare(state, logits, self.score, training)
        experts = self.selection.choose(keys, self.partition)
        gates = self.weighting.weigh(from_dense(self.score.log(selection_logits), experts))
        active = self.policy.keep(gates, key)
        slots = assign_slots(experts, active, num_experts)
        places = None if self.capacity is None else self.capacity.slots(self.routes, tokens, num_experts)
        kept = active if places is None else active & (slots < places)
        if scale is not None:
            gates = gates * _checks.per_expert("scale", scale, num_experts).astype(gates.dtype)[experts]
        routing = Routing(
            logits=logits,
            selection_logits=selection_logits,
            experts=experts,
            active=active,
            kept=kept,
            slots=jnp.where(kept, slots, -1),
            weights=jnp.where(kept, gates, 0),
            partition=self.partition,
            capacity=places,
        )
        if training:
            state = self.controller.update(state, routing.selected.astype(state.dtype).sum(axis=0))
        return routing, state


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
