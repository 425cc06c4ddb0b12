"""How a language model is trained: optimiser, schedule, batch, precision, and how often it is measured."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from himoe_theory import _checks

from ..gates import Gate, Linear

_LINEAR = Linear()
Compute = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """AdamW with linear warm-up and cosine decay, clipped by the global norm; values are nanoGPT's."""

    steps: int = 1000
    """Optimiser steps."""
    batch: int = 16
    """Sequences a step."""
    micro_batches: int = 1
    """Parts into which a batch is cut, whose gradients are averaged."""
    learning_rate: float = 1e-3
    """After `warmup` steps."""
    final_share: float = 0.1
    """The learning rate at the end, as a share of the highest."""
    warmup: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """Of matrices only, times the learning rate."""
    beta1: float = 0.9
    """Adam's memory of the gradient."""
    beta2: float = 0.95
    """Adam's memory of its square."""
    clip: float = 1.0
    """The gradient's largest norm."""
    compute: Compute = "float32"
    """Type of the factors of matrix products; routers, norms, losses and sums stay in float32."""
    records: int = 20
    """Measurements on validation text, at most so many besides the first."""
    held_out: int = 64
    """Sequences of validation text that are measured."""

    def __post_init__(self):
        for name in ("steps", "batch", "records", "held_out"):
            _checks.count(name, getattr(self, name), maximum=2**31 - 1, of="counted in 32 bits")
        _checks.count("micro_batches", self.micro_batches, maximum=self.batch, of="batch")
        if self.batch % self.micro_batches:
            raise ValueError(
                f"`micro_batches` must divide `batch`; got {self.micro_batches} micro-batches, {self.batch} sequences."
            )
        _checks.count("warmup", self.warmup, minimum=0, maximum=self.steps - 1, of="steps - 1")
        for name in ("learning_rate", "clip"):
            _checks.positive(name, getattr(self, name))
        for name in ("final_share", "beta1", "beta2"):
            _checks.coefficient(name, getattr(self, name), maximum=1.0)
        _checks.coefficient("weight_decay", self.weight_decay)
        if self.compute not in ("float32", "bfloat16"):
            raise ValueError(f"`compute` must be float32 or bfloat16; got {self.compute!r}.")

    @property
    def micro_batch(self) -> int:
        """Sequences of one forward and backward pass."""
        return self.batch // self.micro_batches

    @property
    def dtype(self) -> DTypeLike:
        """Type of the factors of matrix products."""
        return jnp.bfloat16 if self.compute == "bfloat16" else jnp.float32

    @property
    def record_steps(self) -> tuple[int, ...]:
        """Numbers of finished steps at which the model is measured: 0, equal distances, and the last."""
        distance = -(-self.steps // self.records)
        return (*range(0, self.steps, distance), self.steps)

    def rate(self) -> optax.Schedule:
        """Learning rate of step 0, 1, ...: never 0, greatest at step `warmup`."""
        return optax.warmup_cosine_decay_schedule(
            init_value=self.learning_rate / (self.warmup + 1),
            peak_value=self.learning_rate,
            warmup_steps=self.warmup,
            decay_steps=self.steps,
            end_value=self.final_share * self.learning_rate,
        )

    def optimizer(self, gate: Gate = _LINEAR) -> optax.GradientTransformation:
        """The optax optimiser; a gate that does not learn does not decay either."""
        adamw = optax.adamw(
            self.rate(),
            b1=self.beta1,
            b2=self.beta2,
            weight_decay=self.weight_decay,
            mask=lambda parameters: decays(parameters, gate),
        )
        return optax.chain(optax.clip_by_global_norm(self.clip), adamw)


def decays(parameters: Any, gate: Gate = _LINEAR) -> Any:
    """Which parameters are matrices, by name: stacked over experts, a bias has two axes and is none."""

    def is_matrix(path: tuple[Any, ...], leaf: Any) -> bool:
        keys = [str(key.key) for key in path]
        if "gate" in keys:  # of whatever names
            return gate.learns and leaf.ndim > 1
        return not (keys[-1] in ("bias", "scale") or any("norm" in key for key in keys))

    return jax.tree_util.tree_map_with_path(is_matrix, parameters)
