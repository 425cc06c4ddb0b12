"""Capacity: how many tokens an expert takes, in which order places are given, and where a token goes that gets none.

An order of your own is a frozen dataclass with `slots`, as here the one that serves last tokens first:

    @dataclasses.dataclass(frozen=True)
    class Backwards(Order):
        def slots(self, selected, routes, gates, key):      # [tokens, experts]; routes or None; [tokens, experts]
            routes = None if routes is None else routes[::-1]
            return assign_slots(selected[::-1], routes)[::-1]
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .. import _checks
from ..scores import Keys
from .ranking import largest


def assign_slots(
    selected: Bool[Array, "tokens experts"], routes: Int[Array, "tokens routes"] | None = None
) -> Int[Array, "tokens experts"]:
    """Place of each selected token in the queue of its expert, from 0; -1 where not selected.

    With routes, all first routes in token order, then all second routes, and so on; without, tokens in their order.
    """
    whole = selected.astype(jnp.int32)
    if routes is None:
        place = jnp.cumsum(whole, axis=0, dtype=jnp.int32) - whole
        return jnp.where(selected, place, -1)
    experts = jnp.arange(selected.shape[1], dtype=routes.dtype)

    # Route by route: one table of tokens × experts, however many routes a token has.
    def serve(carry: tuple[Array, Array], route: Int[Array, " tokens"]) -> tuple[tuple[Array, Array], None]:
        place, waiting = carry
        chosen = (route[:, None] == experts) & selected
        queue = chosen.astype(jnp.int32)
        return (
            jnp.where(chosen, waiting + jnp.cumsum(queue, axis=0, dtype=jnp.int32) - queue, place),
            waiting + queue.sum(axis=0, dtype=jnp.int32),
        ), None

    nothing = jnp.full(selected.shape, -1, jnp.int32), jnp.zeros(selected.shape[1], jnp.int32)
    return jax.lax.scan(serve, nothing, routes.T)[0][0]


@runtime_checkable
class Order(Protocol):
    """What a capacity asks of an order. Frozen and hashable: static under `jit`."""

    def slots(
        self,
        selected: Bool[Array, "tokens experts"],
        routes: Int[Array, "tokens routes"] | None,
        gates: Float[Array, "tokens experts"],
        key: PRNGKeyArray | None,
    ) -> Int[Array, "tokens experts"]:
        """Place of each selected token in the queue of its expert, from 0; -1 where not selected."""
        ...

    @property
    def is_random(self) -> bool:
        """Whether it needs a key."""
        return False


@dataclasses.dataclass(frozen=True)
class ByPosition(Order):
    """First routes first, and among equals the earlier token. **Source:** [gshard]; [himoe-code]."""

    def slots(
        self,
        selected: Bool[Array, "tokens experts"],
        routes: Int[Array, "tokens routes"] | None,
        gates: Float[Array, "tokens experts"],
        key: PRNGKeyArray | None,
    ) -> Int[Array, "tokens experts"]:
        """See `assign_slots`."""
        return assign_slots(selected, routes)


@dataclasses.dataclass(frozen=True)
class AtRandom(Order):
    """Tokens in random order, so that drops do not fall on late positions. **Source:** [z-code]."""

    @property
    def is_random(self) -> bool:
        """True."""
        return True

    def slots(
        self,
        selected: Bool[Array, "tokens experts"],
        routes: Int[Array, "tokens routes"] | None,
        gates: Float[Array, "tokens experts"],
        key: PRNGKeyArray | None,
    ) -> Int[Array, "tokens experts"]:
        """Those of a permutation of the tokens."""
        if key is None:
            raise ValueError("`key` must be given to a router with a random capacity order; got None.")
        return _in_turn(jax.random.permutation(key, selected.shape[0]).astype(jnp.int32), selected, routes)


@dataclasses.dataclass(frozen=True)
class ByPriority(Order):
    """Tokens by their largest gate, largest first (batch priority), first routes first. **Source:** [v-moe]."""

    def slots(
        self,
        selected: Bool[Array, "tokens experts"],
        routes: Int[Array, "tokens routes"] | None,
        gates: Float[Array, "tokens experts"],
        key: PRNGKeyArray | None,
    ) -> Int[Array, "tokens experts"]:
        """Among equals the earlier token."""
        turn = jnp.argsort(-gates.max(axis=-1), stable=True).astype(jnp.int32)
        return _in_turn(turn, selected, routes)


@dataclasses.dataclass(frozen=True)
class ByGate(Order):
    """Every expert takes the tokens that give it the largest gates. **Source:** [megatron], drop policy `probs`."""

    def slots(
        self,
        selected: Bool[Array, "tokens experts"],
        routes: Int[Array, "tokens routes"] | None,
        gates: Float[Array, "tokens experts"],
        key: PRNGKeyArray | None,
    ) -> Int[Array, "tokens experts"]:
        """Among equals the earlier token."""
        turn = jnp.argsort(jnp.where(selected, -gates, jnp.inf), axis=0, stable=True)
        return jnp.where(selected, jnp.argsort(turn, axis=0).astype(jnp.int32), -1)


def _in_turn(
    turn: Int[Array, " tokens"], selected: Bool[Array, "tokens experts"], routes: Int[Array, "tokens routes"] | None
) -> Int[Array, "tokens experts"]:
    """Slots when tokens come in the order of `turn`."""
    place = assign_slots(selected[turn], None if routes is None else routes[turn])
    return jnp.zeros_like(place).at[turn].set(place)


@dataclasses.dataclass(frozen=True)
class Capacity:
    r"""$C = \lfloor R \cdot \mathrm{factor} \cdot T / N \rfloor$, plus 1 if odd and `even`, at least `minimum`.

    R is the number of experts a token selects, T the number of real tokens. `order`: who gets the places. `reroute`: so
    many times a token that got none goes on to its best expert not yet tried that has room; its weights are then those
    of where it went. **Source:** [himoe-code], where loss-free routers skip the even rule; re-routing:
    [capacity-aware].
    """

    factor: float
    """Places of all experts over the routes there are, at even load."""
    minimum: int = 4
    """Fewest places of an expert."""
    even: bool = True
    """Whether odd numbers of places get one more."""
    order: Order = ByPosition()
    """Who gets the places."""
    reroute: int = 0
    """How often a token without a place tries its best expert not yet tried that has room."""

    def __post_init__(self):
        _checks.coefficient("factor", self.factor)
        _checks.count("minimum", self.minimum)
        _checks.count("reroute", self.reroute, minimum=0)

    def slots(self, routes: int | float, tokens: int, experts: int) -> int:
        """C for T `tokens` and N `experts`."""
        # The order of the products is the released code's: with another one the floor can differ.
        places = math.floor(routes * self.factor * tokens / experts)
        if self.even:
            places += places % 2
        return max(places, self.minimum)

    def limit(self, routes: int | float, mask: Bool[Array, " tokens"] | None, tokens: int, experts: int) -> int | Array:
        """C for the real tokens alone: looked up, so that the floor is Python's."""
        if mask is None:
            return self.slots(routes, tokens, experts)
        table = [self.slots(routes, real, experts) for real in range(tokens + 1)]
        return jnp.asarray(np.asarray(table, np.int32))[mask.sum(dtype=jnp.int32)]


def rerouted(
    slots: Int[Array, "tokens experts"],
    kept: Bool[Array, "tokens experts"],
    selected: Bool[Array, "tokens experts"],
    keys: Keys,
    limit: int | Array,
    rounds: int,
) -> tuple[Int[Array, "tokens experts"], Bool[Array, "tokens experts"]]:
    """Slots and what is kept after so many rounds in which every token that lost a place tries its best expert not yet
    tried, if that has room. Earlier tokens come first; one expert a round."""
    tried = selected
    wanted = selected.sum(axis=1, dtype=jnp.int32)
    for _ in range(rounds):
        free = keys.limited(~tried & (kept.sum(axis=0, dtype=jnp.int32) < limit))
        best = largest(free.ranks, 1) == jnp.arange(kept.shape[1], dtype=jnp.int32)
        lacking = kept.sum(axis=1, dtype=jnp.int32) < wanted
        attempt = best & free.available & lacking[:, None]
        queue = attempt.astype(jnp.int32)
        place = kept.sum(axis=0, dtype=jnp.int32) + jnp.cumsum(queue, axis=0, dtype=jnp.int32) - queue
        slots = jnp.where(attempt, place, slots)
        kept, tried = kept | (attempt & (place < limit)), tried | attempt
    return slots, kept
