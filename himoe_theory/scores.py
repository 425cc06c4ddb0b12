"""Scores: how logits become the numbers that selection ranks and combine weights are made of.

A score gives its value and its logarithm; the logarithm stays finite where the value underflows.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks
from ._numerics import accumulate, safe_divide


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


def cosine_logits(
    tokens: Float[Array, "tokens dim"],
    rows: Float[Array, "experts dim"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[Array, "tokens experts"]:
    r"""Logits on the sphere, $s_{te} = \cos(x_t, w_e)/\tau$.

    Range $[-1/\tau, 1/\tau]$; the cosine with a zero vector is 0, with gradient 0. Lengths of tokens and rows do not
    matter. **Arguments:** `tokens`: x, after the projection if there is one. `rows`: w. `temperature`: $\tau$ > 0.
    **Raises:** `ValueError` if the dimensions differ. **Source:** [xmoe], the router on the sphere.
    """
    x, w = _same_space(tokens, rows)
    _checks.positive("temperature", temperature)
    product = jnp.matmul(_unit(x), _unit(w).T, precision=jax.lax.Precision.HIGHEST)
    return product / temperature


def distance_logits(
    tokens: Float[Array, "tokens dim"], centres: Float[Array, "experts dim"]
) -> Float[Array, "tokens experts"]:
    r"""Logits of the Laplace gate, $s_{te} = -\|x_t - w_e\|$.

    Range $(-\infty, 0]$; the gradient at a centre, where the distance has a corner, is 0. Add a bias by hand where the
    gate has one. **Arguments:** `tokens`: x. `centres`: w. **Raises:** `ValueError` if the dimensions differ.
    **Source:** [fusemoe] Laplace gate; [hmoe].
    """
    x, w = _same_space(tokens, centres)
    return -_length(x[:, None, :] - w[None, :, :])


def _same_space(
    tokens: Float[Array, "tokens dim"], rows: Float[Array, "experts dim"]
) -> tuple[Float[Array, "tokens dim"], Float[Array, "experts dim"]]:
    x = accumulate(_checks.matrix("tokens", tokens, ("tokens", "dim")))
    w = accumulate(_checks.matrix("experts", rows, ("experts", "dim")))
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"tokens have {x.shape[1]} dimensions, experts have {w.shape[1]}.")
    return x, w


def _length(x: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
    square = jnp.square(x).sum(axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _unit(x: Float[Array, "count dim"]) -> Float[Array, "count dim"]:
    return safe_divide(x, _length(x)[:, None], otherwise=0.0)
