r"""What a router asks of a selection, and what a selection answers.

A selection of your own subclasses `Selection` and writes `choose`. As an example, every expert within a factor of the
token's best:

    @dataclasses.dataclass(frozen=True)
    class Near(Selection):
        factor: float
        def choose(self, keys, partition, mask):        # keys: Keys of [tokens, experts]; mask: [tokens] or None
            best = keys.values.max(axis=-1, keepdims=True)
            return Choice(keys.values >= self.factor * best)
"""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int

from ..partition import Partition
from ..scores import Keys


class Choice(NamedTuple):
    """`selected`: any number of experts a token, of tokens an expert. `routes`: the experts of each token by rank,
    where every token has at most R."""

    selected: Bool[Array, "tokens experts"]
    routes: Int[Array, "tokens routes"] | None = None


@runtime_checkable
class Selection(Protocol):
    """Frozen and hashable: static under `jit`."""

    def choose(self, keys: Keys, partition: Partition, mask: Bool[Array, " tokens"] | None) -> Choice:
        """The selection. Masked tokens may be chosen where a rule looks at one token at a time: the router takes them
        out; a rule that looks at the whole batch must pass them over."""
        ...

    def check(self, partition: Partition) -> None:
        """`ValueError` if it does not fit the partition."""

    def routes(self, partition: Partition) -> int:
        """The most experts that a token selects."""
        return partition.num_experts

    def average(self, partition: Partition) -> float | None:
        """Experts that a token selects on average, `None` if that depends on the keys."""
        return None

    def quotas(self, partition: Partition) -> tuple[int, ...] | None:
        """Experts that every token selects in each group, `None` unless the rule fixes them."""
        return None

    def grouping(self, partition: Partition) -> tuple[Partition, tuple[int, ...]] | None:
        """Groups in each of which every token selects so many of the largest keys, if that is all the rule does."""
        return None

    @property
    def is_dense(self) -> bool:
        """Whether every token selects every expert."""
        return False

    @property
    def couples_tokens(self) -> bool:
        """Whether what one token selects depends on others."""
        return False


def ranked(rule: Selection, keys: Float[Array, "tokens experts"], partition: Partition) -> Int[Array, "tokens routes"]:
    """The experts that a rule with a ranked view chooses by plain numbers. **Raises:** `ValueError` without one."""
    routes = rule.choose(Keys(keys, keys, (keys,)), partition, None).routes
    if routes is None:
        raise ValueError(f"`rule` must have a ranked view; {rule} selects any number of experts a token.")
    return routes
