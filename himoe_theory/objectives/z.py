"""The z-loss: keeps the logits' normaliser near 1."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..partition import Partition
from ._softmax import Mask, checked_logits, per_token, token_mean
from .record import of_arrays


def z_loss(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""$\frac1T \sum_t (\mathrm{logsumexp}\, s_t)^2$, range $[0, \infty)$, to be minimised; not gauge invariant.

    It pins logsumexp at 0: gaps between logits shrink where that is positive and grow where it is negative (D10).
    **Source:** [st-moe] eq. (5); [himoe-code] adds it with weight 0.001, outside [himoe] eq. (8).
    """
    return token_mean(jnp.square(jax.nn.logsumexp(checked_logits(logits, mask=mask), axis=-1)), mask)


def z_loss_grad(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, "tokens experts"]:
    r"""$\frac2T\, \mathrm{logsumexp}(s)\, \pi_e$; rows sum to $2\,\mathrm{logsumexp}/T$, not to zero."""
    logits = checked_logits(logits, mask=mask)
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return 2 * per_token(total * jax.nn.softmax(logits), mask)


def _not_negative(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return 0.0, math.inf


RECORDS = (
    of_arrays(
        "z",
        z_loss,
        z_loss_grad,
        "routing.logits",
        source="st-moe",
        label="z-loss",
        needs=frozenset({"logits"}),
        bounds=_not_negative,
        gauge_invariant=False,
    ),
)
