"""Scores: how logits become the numbers that selection ranks and combine weights are made of.

A score gives its value and its logarithm; the logarithm stays finite where the value underflows.
"""

import dataclasses

import jax
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Softmax:
    r"""$\pi = \mathrm{softmax}(s)$: experts compete. **Source:** [shazeer], [gshard]."""

    def value(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """In (0, 1), rows sum to 1."""
        return jax.nn.softmax(logits)

    def log(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """Natural logarithm of the value."""
        return jax.nn.log_softmax(logits)


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    r"""$\sigma(s)$: every expert on its own. **Source:** [loss-free] eq. (1) with G sigmoid; [deepseek-v3]."""

    def value(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """In (0, 1)."""
        return jax.nn.sigmoid(logits)

    def log(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """Natural logarithm of the value."""
        return jax.nn.log_sigmoid(logits)


Score = Softmax | Sigmoid
