"""As many experts as a token needs: until their scores reach a mass, or all above a threshold."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool

from .. import _checks
from ..partition import Partition
from ..routing import from_dense, to_dense
from ..scores import Keys
from .base import Choice, Selection
from .ranking import largest


@dataclasses.dataclass(frozen=True)
class Mass(Selection):
    """The best experts until the sum of their values exceeds `p`, the one that crosses included; all if none does.

    **Arguments:** `p`: in [0, 1]; 0 selects the best expert. `most`: no more than so many (default: N).
    **Source:** [dynamic-top-p].
    """

    p: float
    """Sum of values that is to be exceeded, in [0, 1]."""
    most: int | None = None
    """Most experts a token selects; all if not given."""

    def __post_init__(self):
        _checks.coefficient("p", self.p, maximum=1.0)

    def check(self, partition: Partition) -> None:
        """`ValueError` if `most` exceeds the number of experts."""
        if self.most is not None:
            _checks.count("most", self.most, maximum=partition.num_experts, of="the number of experts")

    def routes(self, partition: Partition) -> int:
        """`most`, or N."""
        return partition.num_experts if self.most is None else self.most

    def choose(self, keys: Keys, partition: Partition, mask: Bool[Array, " tokens"] | None) -> Choice:
        """Experts by rank; those past the crossing are not selected."""
        routes = largest(keys.ranks, self.routes(partition))
        values = jnp.where(keys.available, keys.values, 0)
        falling = from_dense(values, routes)
        before = jnp.cumsum(falling, axis=-1) - falling
        # Of the first the sum before is an exact 0 only if nothing was rounded.
        active = (before <= self.p) | (jnp.arange(routes.shape[1]) == 0)
        return Choice(to_dense(active, routes, partition.num_experts) & keys.available, routes)


@dataclasses.dataclass(frozen=True)
class Above(Selection):
    """Every expert whose value exceeds `threshold`; a token with none gets its best one if `at_least_one`.

    **Source:** [dynmoe], whose training allows tokens without an expert.
    """

    threshold: float
    """Value that is to be exceeded."""
    at_least_one: bool = True
    """Whether a token with none gets its best expert."""

    def __post_init__(self):
        _checks.finite("threshold", self.threshold)

    def choose(self, keys: Keys, partition: Partition, mask: Bool[Array, " tokens"] | None) -> Choice:
        """No ranked view: from none to all."""
        selected = keys.values > self.threshold
        if self.at_least_one:
            best = largest(keys.ranks, 1) == jnp.arange(keys.values.shape[1], dtype=jnp.int32)
            selected |= best & ~selected.any(axis=-1, keepdims=True)
        return Choice(selected & keys.available)
