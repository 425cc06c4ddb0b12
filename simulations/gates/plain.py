"""The linear gate, and gates without parameters: the planted one, and fixed maps from ids."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from himoe_theory import _checks
from himoe_theory.gates import hashed, norm_logits, table_logits

from .base import Draw, Gate, Seen, Tree

_Logits = tuple[Float[Array, "tokens experts"], Tree]


@dataclasses.dataclass(frozen=True)
class Linear(Gate):
    """$s = x W^T$."""

    @property
    def is_linear(self) -> bool:
        """It is."""
        return True

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """W, one array."""
        return draw(num_experts, dim)

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Tokens times rows."""
        return jnp.matmul(seen.x, parameters.T, precision="highest"), seen.memory


@dataclasses.dataclass(frozen=True)
class _WithoutParameters(Gate):
    """Has nothing to learn."""

    learns: ClassVar[bool] = False

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """An empty tree."""
        return {}


@dataclasses.dataclass(frozen=True)
class Planted(_WithoutParameters):
    """The expert whose number is the token's label, modulo the experts."""

    height: float = 20.0
    """Logit of that expert; the others' are 0."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __post_init__(self):
        _checks.positive("height", self.height)

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """`height` at the label."""
        assert seen.labels is not None  # `check_needs` has asked
        expert = seen.labels % seen.num_experts
        return self.height * jax.nn.one_hot(expert, seen.num_experts, dtype=seen.x.dtype), seen.memory


@dataclasses.dataclass(frozen=True)
class Table(_WithoutParameters):
    """The expert that a fixed map has for the token's id, the same whatever the context."""

    table: tuple[int, ...] = ()
    """The expert of every id; if not given, an even map at random."""
    vocabulary: int = 65536
    """Ids that the map at random has; larger ones begin again."""
    seed: int = 0
    """Of the map at random."""
    height: float = 20.0
    """Logit of that expert; the others' are 0."""

    needs: ClassVar[frozenset[str]] = frozenset({"ids"})

    def __post_init__(self):
        _checks.positive("height", self.height)
        _checks.count("vocabulary", self.vocabulary)
        _checks.count("seed", self.seed, minimum=0)
        for expert in self.table:
            _checks.count("table", expert, minimum=0)

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """An empty tree. **Raises:** `ValueError` for an expert that there is not."""
        if self.table and max(self.table) >= num_experts:
            raise ValueError(f"`table` must name experts below {num_experts}; got {max(self.table)}.")
        return super().init(draw, num_experts, dim)

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """`height` at the id's expert."""
        assert seen.ids is not None  # `check_needs` has asked
        table = np.asarray(self.table or hashed(self.vocabulary, seen.num_experts, self.seed), np.int32)
        logits = table_logits(seen.ids % table.size, table, seen.num_experts, height=self.height)
        return logits.astype(seen.x.dtype), seen.memory


@dataclasses.dataclass(frozen=True)
class ExpertNorm(_WithoutParameters):
    """The length of each expert's own first activation: experts choose themselves, and learn to."""

    learns: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"experts"})

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Norms, with a gradient in the experts."""
        assert seen.experts is not None  # `check_needs` has asked
        return norm_logits(seen.x, seen.experts), seen.memory
