"""Capacity: how many tokens an expert takes, and in which order places are given."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from .. import _checks


@dataclasses.dataclass(frozen=True)
class Capacity:
    r"""$C = \lfloor R \cdot \mathrm{factor} \cdot T / N \rfloor$, plus 1 if odd and `even`, at least `minimum`.

    R is the number of experts a token selects. **Source:** [himoe-code]; loss-free routers there skip the even rule.
    """

    factor: float
    minimum: int = 4
    even: bool = True

    def __post_init__(self):
        _checks.coefficient("factor", self.factor)
        _checks.count("minimum", self.minimum)

    def slots(self, routes: int, tokens: int, experts: int) -> int:
        """C for T `tokens` and N `experts`."""
        # The order of the products is the released code's: with another one the floor can differ.
        places = math.floor(routes * self.factor * tokens / experts)
        if self.even:
            places += places % 2
        return max(places, self.minimum)


def assign_slots(
    experts: Int[Array, "tokens routes"], active: Bool[Array, "tokens routes"], num_experts: int
) -> Int[Array, "tokens routes"]:
    """Place of each route in its expert's queue: all first routes in token order, then all second routes, and so on.

    Inactive routes take no place; the number returned for them is that of the next free one.
    """
    tokens, routes = experts.shape
    chosen = (experts.T[:, :, None] == jnp.arange(num_experts, dtype=experts.dtype)) & active.T[:, :, None]
    queue = chosen.reshape(routes * tokens, num_experts).astype(jnp.int32)
    before = jnp.cumsum(queue, axis=0) - queue
    place = jnp.take_along_axis(before, experts.T.reshape(-1, 1), axis=1)
    return place.reshape(routes, tokens).T
