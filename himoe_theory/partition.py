"""Groups of experts, possibly unequal and interleaved."""

import dataclasses
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from . import _checks


@dataclasses.dataclass(frozen=True)
class Partition:
    """N experts in M groups: `group_of[e]` is the group of expert e.

    Groups may differ in size and need not be contiguous. Hashable and not a pytree: static under `jit`.

    **Raises:** `ValueError` if a group number below the largest is unused (a gap, an empty group) or is not a whole
    number.
    """

    group_of: tuple[int, ...]

    def __post_init__(self):
        if not isinstance(self.group_of, Iterable):
            raise ValueError(f"`group_of` must be the group of each expert; got {_checks.shown(self.group_of)}.")
        entries = tuple(self.group_of)
        whole = all(isinstance(g, (int, np.integer)) and not isinstance(g, bool) for g in entries)
        if not entries or not whole or set(entries) != set(range(max(entries) + 1)):
            raise ValueError(f"`group_of` must use each group 0..M-1 at least once; got group_of={entries}.")
        object.__setattr__(self, "group_of", tuple(int(g) for g in entries))

    @classmethod
    def equal(cls, num_experts: int, num_groups: int) -> "Partition":
        """Contiguous groups of equal size S = N / M, the layout of [himoe-code] and [moge]."""
        _checks.count("num_experts", num_experts)
        _checks.count("num_groups", num_groups, maximum=num_experts, of="num_experts")
        if num_experts % num_groups:
            raise ValueError(f"`num_groups` must divide `num_experts`; got {num_experts} experts, {num_groups} groups.")
        return cls(tuple(e // (num_experts // num_groups) for e in range(num_experts)))

    @property
    def num_experts(self) -> int:
        """N."""
        return len(self.group_of)

    @property
    def num_groups(self) -> int:
        """M."""
        return max(self.group_of) + 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """S_g for each group g."""
        return tuple(self.group_of.count(g) for g in range(self.num_groups))

    def ids(self) -> Int[np.ndarray, " experts"]:
        """Group of each expert, as a NumPy array."""
        return np.asarray(self.group_of, dtype=np.int32)

    def members(self, group: int) -> Int[np.ndarray, " members"]:
        """Experts of one group, in ascending order."""
        return np.flatnonzero(self.ids() == group).astype(np.int32)

    def check(self, name: str, num_experts: int) -> None:
        """`ValueError` unless an array called `name` with `num_experts` experts fits this partition."""
        if num_experts != self.num_experts:
            raise ValueError(f"partition has {self.num_experts} experts, `{name}` has {num_experts}.")

    def indicator(self) -> Float[np.ndarray, "experts groups"]:
        """1 where the expert belongs to the group."""
        return np.equal.outer(self.ids(), np.arange(self.num_groups)).astype(np.float32)

    def table(self) -> tuple[Int[np.ndarray, "groups width"], Bool[np.ndarray, "groups width"]]:
        """Members of every group as rows, padded to the widest group by the group's first member; and which are
        real."""
        rows = [self.members(g) for g in range(self.num_groups)]
        width = max(self.sizes)
        padded = np.stack([np.concatenate([row, np.full(width - len(row), row[0])]) for row in rows])
        real = np.stack([np.arange(width) < len(row) for row in rows])
        return padded.astype(np.int32), real

    def sum(self, values: Float[Array, "*batch experts"]) -> Float[Array, "*batch groups"]:
        """Sum over the experts of each group."""
        self.check("values", _last_axis(values))
        # A product with 0/1 is far cheaper than a scatter, above all when many runs are batched.
        return jnp.matmul(values, self.indicator().astype(values.dtype), precision="highest")

    def max(self, values: Float[Array, "*batch experts"]) -> Float[Array, "*batch groups"]:
        """Largest entry of each group."""
        self.check("values", _last_axis(values))
        members, _ = self.table()  # padding repeats a member, so it cannot change a maximum
        return values[..., members].max(axis=-1)

    def spread(self, values: Float[Array, "*batch groups"]) -> Float[Array, "*batch experts"]:
        """Each group's value, repeated for every expert of the group."""
        if _last_axis(values) != self.num_groups:
            raise ValueError(f"partition has {self.num_groups} groups, `values` has {values.shape[-1]}.")
        return jnp.matmul(values, self.indicator().T.astype(values.dtype), precision="highest")


def fitting(partition: Partition, name: str, num_experts: int) -> Partition:
    """`partition`, once it is one and fits an array called `name` with `num_experts` experts; else `ValueError`."""
    _checks.kind("partition", partition, Partition)
    partition.check(name, num_experts)
    return partition


def _last_axis(values: Float[Array, "..."]) -> int:
    if values.ndim == 0:
        raise ValueError("`values` must have at least one axis; got shape ().")
    return values.shape[-1]
