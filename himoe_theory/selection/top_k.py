"""Which experts a token goes to. Each rule maps ranking keys `[tokens, experts]` to the experts `[tokens, routes]`.

Ties go to the expert of lower number, so a selection is a function of the keys alone.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _checks
from ..partition import Partition


def _signless_zero(keys: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
    """Keys with -0 as 0: `top_k` ranks -0 below 0, so two zeros would not tie."""
    return jnp.where(keys == 0, 0, keys)


# Measured on a CPU (8 seeds x 4 settings x 256 tokens): for 8 experts counting is 8 times faster than `lax.top_k`, for
# 64 experts 5 times slower.
_COUNT_UP_TO = 16


def largest(keys: Float[Array, "*batch width"], k: int) -> Int[Array, "*batch {k}"]:
    """Places of the k largest entries of the last axis, best first, the lower place first among equals."""
    width = keys.shape[-1]
    if width > _COUNT_UP_TO:
        return jax.lax.top_k(keys, k)[1]
    place = jnp.arange(width, dtype=jnp.int32)
    mine, other = keys[..., :, None], keys[..., None, :]
    ahead = (other > mine) | ((other == mine) & (place < place[:, None]))
    rank = ahead.sum(axis=-1, dtype=jnp.int32)
    holds = rank[..., None, :] == jnp.arange(k, dtype=jnp.int32)[:, None]
    return jnp.where(holds, place, 0).sum(axis=-1, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class TopK:
    """The k largest keys of a token, best first. **Source:** [shazeer] eq. (5)."""

    k: int

    def check(self, partition: Partition) -> None:
        """`ValueError` if k exceeds the number of experts."""
        _checks.count("k", self.k, maximum=partition.num_experts, of="the number of experts")

    def routes(self, partition: Partition) -> int:
        """Experts a token selects."""
        return self.k

    def choose(self, keys: Float[Array, "tokens experts"], partition: Partition) -> Int[Array, "tokens routes"]:
        """Experts by rank."""
        return jax.lax.top_k(_signless_zero(keys), self.k)[1]


@dataclasses.dataclass(frozen=True)
class GroupedTopK:
    """In every group g the K_g largest keys, group by group, best first. **Source:** [moge]; [himoe] eq. (3).

    **Arguments:** `per_group`: K for all groups, or one number a group.
    """

    per_group: int | tuple[int, ...]

    def counts(self, partition: Partition) -> tuple[int, ...]:
        """K_g of every group."""
        if isinstance(self.per_group, tuple):
            return self.per_group
        return (self.per_group,) * partition.num_groups

    def check(self, partition: Partition) -> None:
        """`ValueError` unless there is one K_g for every group, each between 1 and the group's size."""
        counts = self.counts(partition)
        if len(counts) != partition.num_groups:
            raise ValueError(f"`per_group` must have one entry a group; got {len(counts)} for {partition.num_groups}.")
        for group, (k, size) in enumerate(zip(counts, partition.sizes, strict=True)):
            _checks.count(f"per_group[{group}]", k, maximum=size, of="the group's size")

    def routes(self, partition: Partition) -> int:
        """Experts a token selects, over all groups."""
        return sum(self.counts(partition))

    def choose(self, keys: Float[Array, "tokens experts"], partition: Partition) -> Int[Array, "tokens routes"]:
        """Experts, group-major, then by rank."""
        counts = self.counts(partition)
        members, real = partition.table()
        inside = jnp.where(real, _signless_zero(keys)[:, members], -jnp.inf)
        place = largest(inside, max(counts))  # [tokens, groups, max K]
        experts = jnp.take_along_axis(jnp.asarray(members)[None], place, axis=-1)
        ranks = np.arange(max(counts))[None, :] < np.asarray(counts)[:, None]
        return experts.reshape(keys.shape[0], -1)[:, np.flatnonzero(ranks.reshape(-1))]


@dataclasses.dataclass(frozen=True)
class Everything:
    """All experts, in their order: the dense layer."""

    def check(self, partition: Partition) -> None:
        """Always fits."""

    def routes(self, partition: Partition) -> int:
        """N."""
        return partition.num_experts

    def choose(self, keys: Float[Array, "tokens experts"], partition: Partition) -> Int[Array, "tokens routes"]:
        """0..N-1 for every token."""
        return jnp.broadcast_to(jnp.arange(keys.shape[1], dtype=jnp.int32), keys.shape)


Selection = TopK | GroupedTopK | Everything
