"""Gates by direction, by distance, by density and by bits."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from himoe_theory import _checks, cosine_logits, distance_logits
from himoe_theory.gates import bit_logits, code_logits, mixture_logits

from .base import Draw, Gate, Seen, Tree, full

_Logits = tuple[Float[Array, "tokens experts"], Tree]


@dataclasses.dataclass(frozen=True)
class Cosine(Gate):
    """$s = \\cos(P x, w_e)/\\tau$ with a learned temperature."""

    temperature: float = 0.1
    """Of the cosine at the start; its logarithm is trained."""
    width: int = 0
    """Dimensions of the sphere, to which P projects; 0 for the token's own, without P."""

    def __post_init__(self):
        _checks.positive("temperature", self.temperature)
        _checks.count("width", self.width, minimum=0)

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Rows w, the logarithm of the temperature, and the projection if there is one."""
        rows = {"rows": draw(num_experts, self.width or dim)}
        projection = {"projection": draw(dim, self.width)} if self.width else {}
        return {**projection, **rows, "log_temperature": full(draw, math.log(self.temperature))}

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Cosines over the temperature; the length of x does not count."""
        x = seen.x
        if self.width:
            x = jnp.matmul(x, parameters["projection"], precision="highest")
        return cosine_logits(x, parameters["rows"], temperature=jnp.exp(parameters["log_temperature"])), seen.memory


@dataclasses.dataclass(frozen=True)
class Laplace(Gate):
    """$s = -\\|x - w_e\\|$."""

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Centres w."""
        return {"centres": draw(num_experts, dim)}

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Distances, negative."""
        return distance_logits(seen.x, parameters["centres"]), seen.memory


@dataclasses.dataclass(frozen=True)
class Codebook(Gate):
    """$s = -\\|x - c_e\\|^2/\\tau$: the nearest code has the largest."""

    temperature: float = 1.0
    """Fixed; of no account to which expert is the first."""

    def __post_init__(self):
        _checks.positive("temperature", self.temperature)

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Codes c."""
        return {"codes": draw(num_experts, dim)}

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Squared distances, negative, over the temperature."""
        return code_logits(seen.x, parameters["codes"]) / self.temperature, seen.memory


@dataclasses.dataclass(frozen=True)
class Gaussians(Gate):
    """Log of the joint density of token and expert under a mixture of Gaussians, several an expert."""

    components: int = 2
    """Of every expert."""

    def __post_init__(self):
        _checks.count("components", self.components)

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Means drawn, standard deviations 1, weights equal."""
        count = num_experts, self.components
        return {
            "means": draw(*count, dim),
            "log_std": full(draw, 0.0, *count),
            "log_weights": full(draw, 0.0, *count),
        }

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Their softmax is the posterior of the expert."""
        parts = parameters["means"], parameters["log_std"], parameters["log_weights"]
        return mixture_logits(seen.x, *parts), seen.memory


@dataclasses.dataclass(frozen=True)
class SmoothBits(Gate):
    """Selectors that spell the number of an expert in smooth bits, mixed by a softmax; no more experts than selectors
    have a weight once all bits are decided."""

    selectors: int = 2
    """The most experts of a token in the end."""
    width: float = 1.0
    """Of the smooth step; beyond half of it a bit is decided and has no gradient."""

    def __post_init__(self):
        _checks.count("selectors", self.selectors)
        _checks.positive("width", self.width)

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Rows for every bit of every selector, and rows for their mix."""
        bits = max(1, math.ceil(math.log2(num_experts)))
        return {"bits": draw(self.selectors, bits, dim), "mix": draw(self.selectors, dim)}

    def logits(self, parameters: Tree, seen: Seen) -> _Logits:
        """Logarithms of the mixed weights."""
        bits = jnp.einsum("td,kbd->tkb", seen.x, parameters["bits"], precision="highest")
        mix = jnp.matmul(seen.x, parameters["mix"].T, precision="highest")
        return bit_logits(bits, mix, seen.num_experts, self.width), seen.memory
