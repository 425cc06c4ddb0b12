"""Gates that are made of several: in two levels, of pairs, and with a memory."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from himoe_theory import Partition, _checks
from himoe_theory.gates import Cell, pair_logits, recur, two_level_logits

from .base import Draw, Gate, Seen, Tree, full

_Logits = tuple[Float[Array, "tokens experts"], Tree]


@dataclasses.dataclass(frozen=True)
class TwoLevel(Gate):
    """A linear gate over groups and one over the experts of each: the probability of an expert is the product."""

    groups: int | tuple[int, ...] = 2
    """How many equal groups, or the group of every expert."""

    def __post_init__(self):
        if not isinstance(self.groups, tuple):
            _checks.count("groups", self.groups)

    def _partition(self, num_experts: int) -> Partition:
        if isinstance(self.groups, tuple):
            partition = Partition(self.groups)
            partition.check("gate", num_experts)
            return partition
        return Partition.equal(num_experts, self.groups)

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Rows of both levels."""
        return {"groups": draw(self._partition(num_experts).num_groups, dim), "experts": draw(num_experts, dim)}

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Log probabilities."""
        groups, experts = (
            jnp.matmul(seen.x, parameters[level].T, precision="highest") for level in ("groups", "experts")
        )
        return two_level_logits(groups, experts, self._partition(experts.shape[1])), seen.memory


@dataclasses.dataclass(frozen=True)
class Pairs(Gate):
    """Experts are pairs of a row and a column, chosen by two linear gates."""

    rows: int = 2
    """How many rows; must divide the experts."""

    def __post_init__(self):
        _checks.count("rows", self.rows)

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Rows of both gates. **Raises:** `ValueError` if experts are not so many rows times columns."""
        if num_experts % self.rows:
            raise ValueError(f"`rows` must divide the experts; got {self.rows} rows, {num_experts} experts.")
        return {"rows": draw(self.rows, dim), "columns": draw(num_experts // self.rows, dim)}

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Sums of a row's and a column's logit."""
        rows, columns = (jnp.matmul(seen.x, parameters[part].T, precision="highest") for part in ("rows", "columns"))
        return pair_logits(rows, columns), seen.memory


@dataclasses.dataclass(frozen=True)
class Recurrent(Gate):
    """Tokens are projected into a recurrent cell, whose state is the memory; logits are linear in the state.

    The cell is one for all layers, projection and rows are each layer's own.
    """

    states: int = 16
    """Numbers that the memory holds for a token."""

    def __post_init__(self):
        _checks.count("states", self.states)

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Projection and rows."""
        return {"projection": draw(self.states, dim), "rows": draw(num_experts, self.states)}

    def shared(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """The cell, drawn; biases 0."""
        n = self.states
        return {
            "inputs": draw(3 * n, n),
            "states": draw(3 * n, n),
            "bias": full(draw, 0.0, 3 * n),
            "bias_state": full(draw, 0.0, n),
        }

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """From the new state, which is the new memory."""
        inputs = jnp.matmul(seen.x, parameters["projection"].T, precision="highest")
        memory = jnp.zeros_like(inputs) if seen.memory is None else seen.memory
        memory = recur(Cell(**seen.shared), inputs, memory)
        return jnp.matmul(memory, parameters["rows"].T, precision="highest"), memory
