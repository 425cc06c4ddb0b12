"""A fixed number of experts a token: the largest keys, of all experts, of every group, or of the best groups.

Ties go to the expert of lower number, so a selection is a function of the keys alone.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from ..partition import Partition
from ..scores import Keys
from .base import Choice, Selection
from .ranking import largest


def _by_routes(routes: Int[Array, "tokens routes"], keys: Keys) -> Choice:
    chosen = routes[:, :, None] == jnp.arange(keys.values.shape[1], dtype=routes.dtype)
    return Choice(chosen.any(axis=1) & keys.available, routes)


@dataclasses.dataclass(frozen=True)
class TopK(Selection):
    """The k largest keys of a token, best first. **Source:** [shazeer] eq. (5)."""

    k: int
    """Experts a token selects."""

    def check(self, partition: Partition) -> None:
        """`ValueError` if k exceeds the number of experts."""
        _checks.count("k", self.k, maximum=partition.num_experts, of="the number of experts")

    def routes(self, partition: Partition) -> int:
        """k."""
        return self.k

    def average(self, partition: Partition) -> float:
        """k."""
        return float(self.k)

    def grouping(self, partition: Partition) -> tuple[Partition, tuple[int, ...]]:
        """All experts in one group."""
        return Partition.equal(partition.num_experts, 1), (self.k,)

    def choose(self, keys: Keys, partition: Partition, mask: Bool[Array, " tokens"] | None) -> Choice:
        """Experts by rank."""
        return _by_routes(largest(keys.ranks, self.k), keys)


@dataclasses.dataclass(frozen=True)
class GroupedTopK(Selection):
    """In every group g the K_g largest keys, group by group, best first. **Source:** [moge]; [himoe] eq. (3).

    **Arguments:** `per_group`: K for all groups, or one number a group.
    """

    per_group: int | tuple[int, ...]
    """K for all groups, or one number a group."""

    def quotas(self, partition: Partition) -> tuple[int, ...]:
        """K_g of every group."""
        return self.per_group if isinstance(self.per_group, tuple) else (self.per_group,) * partition.num_groups

    def grouping(self, partition: Partition) -> tuple[Partition, tuple[int, ...]]:
        """The groups themselves."""
        return partition, self.quotas(partition)

    def check(self, partition: Partition) -> None:
        """`ValueError` unless there is one K_g for every group, each between 1 and the group's size."""
        counts = self.quotas(partition)
        if len(counts) != partition.num_groups:
            raise ValueError(f"`per_group` must have one entry a group; got {len(counts)} for {partition.num_groups}.")
        for group, (k, size) in enumerate(zip(counts, partition.sizes, strict=True)):
            _checks.count(f"per_group[{group}]", k, maximum=size, of="the group's size")

    def routes(self, partition: Partition) -> int:
        """Over all groups."""
        return sum(self.quotas(partition))

    def average(self, partition: Partition) -> float:
        """The same."""
        return float(self.routes(partition))

    def choose(self, keys: Keys, partition: Partition, mask: Bool[Array, " tokens"] | None) -> Choice:
        """Experts, group-major, then by rank."""
        counts = self.quotas(partition)
        members, real = partition.table()
        inside = tuple(jnp.where(real, key[:, members], -jnp.inf) for key in keys.ranks)
        place = largest(inside, max(counts))  # [tokens, groups, max K]
        experts = jnp.take_along_axis(jnp.asarray(members)[None], place, axis=-1)
        ranks = np.arange(max(counts))[None, :] < np.asarray(counts)[:, None]
        return _by_routes(experts.reshape(len(keys.values), -1)[:, np.flatnonzero(ranks.reshape(-1))], keys)


@dataclasses.dataclass(frozen=True)
class GroupLimited(Selection):
    """The k largest keys inside the `groups` best groups; a group is as good as the sum of its `best` largest values.

    Experts of other groups have key -inf: a filling of 0 would let them beat kept ones of negative key. With `best` 1 a
    group is as good as its best expert. **Source:** [deepseek-v3] (`best` 2); DeepSeek-V2 has `best` 1.
    """

    k: int
    """Experts a token selects."""
    groups: int
    """Groups that are kept."""
    best: int = 2
    """Largest values of a group whose sum ranks it."""

    def check(self, partition: Partition) -> None:
        """`ValueError` if there are fewer groups, a group has fewer than `best` experts, or the kept ones fewer than
        k."""
        _checks.count("groups", self.groups, maximum=partition.num_groups, of="the number of groups")
        _checks.count("best", self.best, maximum=min(partition.sizes), of="the smallest group's size")
        held = sum(sorted(partition.sizes)[: self.groups])
        _checks.count("k", self.k, maximum=held, of=f"experts in the {self.groups} smallest groups, which may be kept")

    def routes(self, partition: Partition) -> int:
        """k."""
        return self.k

    def average(self, partition: Partition) -> float:
        """k."""
        return float(self.k)

    def choose(self, keys: Keys, partition: Partition, mask: Bool[Array, " tokens"] | None) -> Choice:
        """Experts by rank."""
        groups = largest(self._worth(keys, partition), self.groups)
        kept = (groups[:, :, None] == jnp.arange(partition.num_groups, dtype=groups.dtype)).any(axis=1)
        inner = keys.limited(kept[:, partition.ids()])
        return _by_routes(largest(inner.ranks, self.k), inner)

    def _worth(self, keys: Keys, partition: Partition) -> tuple[Float[Array, "tokens groups"], ...]:
        """What groups are ranked by: their best expert's keys, which do not saturate, or a sum of values."""
        members, real = partition.table()
        ranks = keys.ranks if self.best == 1 else (keys.values,)
        inside = tuple(jnp.where(real, key[:, members], -jnp.inf) for key in ranks)
        place = largest(inside, self.best)
        return tuple(jnp.take_along_axis(key, place, axis=-1).sum(axis=-1) for key in inside)


@dataclasses.dataclass(frozen=True)
class Everything(Selection):
    """All experts that may be chosen, in their order: the dense layer, or the support of a score with zeros."""

    def routes(self, partition: Partition) -> int:
        """N."""
        return partition.num_experts

    def average(self, partition: Partition) -> float:
        """N."""
        return float(partition.num_experts)

    @property
    def is_dense(self) -> bool:
        """True."""
        return True

    def choose(self, keys: Keys, partition: Partition, mask: Bool[Array, " tokens"] | None) -> Choice:
        """Every expert of key above -inf."""
        every = jnp.arange(keys.values.shape[1], dtype=jnp.int32)
        return Choice(keys.available, jnp.broadcast_to(every, keys.values.shape))
