"""Experts: one expert on one token each; the layer batches them."""

import dataclasses
from collections.abc import Hashable
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from himoe_theory import _checks
from himoe_theory.plumbing.bring import Kind

Parameters = dict[str, Float[Array, "..."] | Float[np.ndarray, "..."]]
First = Float[Array, "dim width"] | Float[np.ndarray, "dim width"]


@runtime_checkable
class Expert(Protocol):
    """One expert on one token; subclass it and write `init` and `apply`. Frozen and hashable: static under `jit`.

    @dataclasses.dataclass(frozen=True)
    class Scaled(Expert):
        def init(self, rng, dim, outputs):
            return {"factor": rng.standard_normal((dim, outputs)).astype("float32")}
        def apply(self, parameters, x):
            return x @ parameters["factor"]
    """

    at_start: ClassVar[tuple[str, ...]] = ()
    """Fields that only initial parameters depend on: programs of experts that differ in no other are equal."""
    is_linear: ClassVar[bool] = False
    """Whether the output is the token times the parameter `weight`, so that training may go by closed form."""

    def init(self, rng: np.random.Generator, dim: int, outputs: int) -> Parameters:
        """Initial parameters of one expert, float32 arrays by name."""
        ...

    def apply(self, parameters: Parameters, x: Float[Array, " dim"]) -> Float[Array, " outputs"]:
        """The expert's output on one token."""
        ...

    def first(self, parameters: Parameters) -> First | None:
        """The map that it applies to a token first, whose activation's length some gates read; `None` for none."""
        return None

    def narrowed(self, parameters: Parameters, units: Bool[Array, " width"]) -> Parameters:
        """The parameters with those of hidden units that are left out set to 0. **Raises:** `ValueError` for an expert
        without hidden units."""
        raise ValueError(f"`expert` must have hidden units to be narrowed, such as TwoLayer; got {self}.")


def _normal(rng: np.random.Generator, std: float, *shape: int) -> Float[np.ndarray, "..."]:
    return (std * rng.standard_normal(shape)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Linear(Expert):
    """$f(x) = A x$."""

    init_std: float = 0.1
    """Standard deviation of the initial weights, times sqrt(dim); small, so that experts start nearly alike (D6)."""

    at_start: ClassVar[tuple[str, ...]] = ("init_std",)
    is_linear: ClassVar[bool] = True

    def __post_init__(self):
        _checks.coefficient("init_std", self.init_std)

    def init(self, rng: np.random.Generator, dim: int, outputs: int) -> Parameters:
        """Normal entries of standard deviation `init_std` / sqrt(dim)."""
        return {"weight": _normal(rng, self.init_std / dim**0.5, dim, outputs)}

    def apply(self, parameters: Parameters, x: Float[Array, " dim"]) -> Float[Array, " outputs"]:
        """The expert's output on one token."""
        return x @ parameters["weight"]

    def first(self, parameters: Parameters) -> First:
        """A."""
        return parameters["weight"]  # pyright: ignore


@dataclasses.dataclass(frozen=True)
class TwoLayer(Expert):
    """$f(x) = B\\,\\mathrm{gelu}(A x + a) + b$ with `width` hidden units."""

    width: int = 32
    """Hidden units."""

    at_start: ClassVar[tuple[str, ...]] = ()
    is_linear: ClassVar[bool] = False

    def __post_init__(self):
        _checks.count("width", self.width)

    def init(self, rng: np.random.Generator, dim: int, outputs: int) -> Parameters:
        """Normal weights of variance 1 / fan-in, zero biases."""
        return {
            "in": _normal(rng, dim**-0.5, dim, self.width),
            "in_bias": np.zeros(self.width, np.float32),
            "out": _normal(rng, self.width**-0.5, self.width, outputs),
            "out_bias": np.zeros(outputs, np.float32),
        }

    def apply(self, parameters: Parameters, x: Float[Array, " dim"]) -> Float[Array, " outputs"]:
        """The expert's output on one token."""
        hidden = jax.nn.gelu(x @ parameters["in"] + parameters["in_bias"])
        return hidden @ parameters["out"] + parameters["out_bias"]

    def first(self, parameters: Parameters) -> First:
        """A."""
        return parameters["in"]  # pyright: ignore

    def narrowed(self, parameters: Parameters, units: Bool[Array, " width"]) -> Parameters:
        """With 0 in both maps, so that neither the output nor the length of the activation knows the unit."""
        inner = {name: jnp.where(units, parameters[name], 0) for name in ("in", "in_bias")}
        return {**parameters, **inner, "out": jnp.where(units[:, None], parameters["out"], 0)}


@dataclasses.dataclass(frozen=True)
class Cubic(Expert):
    """$f(x)_o = \\sum_j (w_{oj} \\cdot x)^3$ with `filters` filters an output (Chen et al., 2208.02813)."""

    filters: int = 8
    """Filters an output."""

    at_start: ClassVar[tuple[str, ...]] = ()
    is_linear: ClassVar[bool] = False

    def __post_init__(self):
        _checks.count("filters", self.filters)

    def init(self, rng: np.random.Generator, dim: int, outputs: int) -> Parameters:
        """Normal entries of variance 1/dim, scaled down: a cube of order-one sums would start out huge."""
        return {"weight": _normal(rng, 0.5 * dim**-0.5, outputs, self.filters, dim)}

    def apply(self, parameters: Parameters, x: Float[Array, " dim"]) -> Float[Array, " outputs"]:
        """The expert's output on one token."""
        return ((parameters["weight"] @ x) ** 3).sum(axis=-1)

    def first(self, parameters: Parameters) -> First:
        """The filters of all outputs."""
        weight = parameters["weight"]
        return weight.reshape(-1, weight.shape[-1]).T  # pyright: ignore


EXPERTS: dict[str, type[Linear] | type[TwoLayer] | type[Cubic]] = {
    "linear": Linear,
    "two-layer": TwoLayer,
    "cubic": Cubic,
}

EXPERT = Kind(
    "layer.expert.kind",
    "a frozen Expert",
    "himoe.experts",
    lambda thing: isinstance(thing, Expert) and isinstance(thing, Hashable),
)
"""What a user may bring: an expert, or a class, whose fields are then set as those of ours are."""
