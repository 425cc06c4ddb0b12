"""Gates around a gate: not trained, with noise, or one for all layers."""

import dataclasses

import jax
from jaxtyping import Array, Float

from himoe_theory import _checks
from himoe_theory.gates import jittered

from .base import Draw, Gate, Seen, Tree
from .plain import Linear

_Logits = tuple[Float[Array, "tokens experts"], Tree]


@dataclasses.dataclass(frozen=True)
class _Around(Gate):
    """As the gate inside."""

    inner: Gate = dataclasses.field(default_factory=Linear)
    """The gate inside."""

    @property
    def learns(self) -> bool:
        """As inside."""
        return self.inner.learns

    @property
    def is_linear(self) -> bool:
        """As inside."""
        return self.inner.is_linear

    @property
    def needs(self) -> frozenset[str]:
        """As inside."""
        return self.inner.needs

    @property
    def is_random(self) -> bool:
        """As inside."""
        return self.inner.is_random

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """As inside."""
        return self.inner.init(draw, num_experts, dim)

    def shared(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """As inside."""
        return self.inner.shared(draw, num_experts, dim)

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """As inside."""
        return self.inner.logits(parameters, seen)


@dataclasses.dataclass(frozen=True)
class Frozen(_Around):
    """A gate left at its random start, what layers share included; experts that it reads are not trained by it."""

    @property
    def learns(self) -> bool:
        """It does not."""
        return False

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Without a gradient in its parameters; in the tokens there is one."""
        own, shared, experts = jax.lax.stop_gradient((parameters, seen.shared, seen.experts))
        return self.inner.logits(own, seen._replace(shared=shared, experts=experts))


@dataclasses.dataclass(frozen=True)
class Jittered(_Around):
    """In training a gate sees each entry of a token times a number of its own, uniform on (1 - epsilon, 1 + epsilon);
    experts see the token."""

    epsilon: float = 0.01
    """Largest relative noise."""

    def __post_init__(self):
        _checks.coefficient("epsilon", self.epsilon)

    @property
    def is_linear(self) -> bool:
        """Not in the token."""
        return False

    @property
    def is_random(self) -> bool:
        """It is."""
        return True

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Of the token with noise; outside training of the token."""
        if seen.key is not None:
            own, inner = jax.random.split(seen.key)
            seen = seen._replace(x=jittered(own, seen.x, self.epsilon), key=inner)
        return self.inner.logits(parameters, seen)


@dataclasses.dataclass(frozen=True)
class Shared(_Around):
    """One gate for all layers; experts stay each layer's own."""

    @property
    def is_linear(self) -> bool:
        """Its rows are not the layer's own."""
        return False

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Nothing of its own."""
        return {}

    def shared(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """All that the gate inside has."""
        of_all = self.inner.shared(draw, num_experts, dim)
        return {"own": self.inner.init(draw, num_experts, dim)} | ({} if of_all is None else {"shared": of_all})

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """With the same parameters in every layer."""
        return self.inner.logits(seen.shared["own"], seen._replace(shared=seen.shared.get("shared")))
