"""The few functions of the router's softmax that all objectives are made of.

T tokens, N experts in M groups; `probs[t, e]` is pi_e of token t, `m_g` the mass of group g, `q` the conditional
distribution inside a group. Everything is computed from logits, so that it stays finite when a probability underflows.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._numerics import accumulate
from ..partition import Partition, fitting

Mask = Bool[Array, " tokens"] | None
"""True for real tokens; `None` if all are."""


def checked_logits(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, "tokens experts"]:
    """Finite logits in at least float32; 0 for masked tokens, whatever is there."""
    logits = accumulate(_checks.matrix("logits", blanked("logits", logits, mask)))
    _checks.not_probabilities("logits", logits, mask)
    return logits


def grouped_logits(
    logits: Float[Array, "tokens experts"], partition: Partition, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    """The same, of as many experts as the partition has."""
    logits = checked_logits(logits, mask=mask)
    fitting(partition, "logits", logits.shape[1])
    return logits


def blanked(name: str, x: Array, mask: Mask) -> Array:
    """With 0 in the rows of masked tokens: nothing that stands there can reach a value or a gradient."""
    x = _checks.array(name, x)
    if mask is None or x.ndim == 0:
        return x
    mask = _checks.array("mask", mask)
    if mask.shape != x.shape[:1]:
        raise ValueError(f"`mask` must have one entry a token of `{name}`, {x.shape[0]}; got shape {mask.shape}.")
    if mask.dtype != jnp.bool_:
        raise ValueError(f"`mask` must be boolean, true for real tokens; got dtype {mask.dtype}.")
    return jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


def token_sum(values: Float[Array, "tokens *rest"], mask: Mask) -> Float[Array, "*rest"]:
    """Sum over the real tokens."""
    return blanked("values", values, mask).sum(axis=0)


def token_mean(values: Float[Array, "tokens *rest"], mask: Mask) -> Float[Array, "*rest"]:
    """Mean over the real tokens; 0 if there are none."""
    return values.mean(axis=0) if mask is None else token_sum(values, mask) / tokens_of(values, mask)


def per_token(gradient: Float[Array, "tokens *rest"], mask: Mask) -> Float[Array, "tokens *rest"]:
    """Each token's part of the gradient of a token mean: over the number of real tokens, 0 for the others."""
    return blanked("gradient", gradient, mask) / tokens_of(gradient, mask)


def tokens_of(values: Float[Array, "tokens *rest"], mask: Mask) -> int | Float[Array, ""]:
    """The number of real tokens to divide by: 1 if there are none."""
    return values.shape[0] if mask is None else jnp.maximum(mask.sum(dtype=jnp.int32), 1).astype(values.dtype)


def checked_selection(
    selected: Bool[Array, "tokens experts"], logits: Float[Array, "tokens experts"], mask: Mask = None
) -> Bool[Array, "tokens experts"]:
    """A boolean array of the shape of the logits; masked tokens select nothing."""
    selected = _checks.same_shape("selected", selected, "logits", logits)
    if selected.dtype != jnp.bool_:
        raise ValueError(f"`selected` must be boolean; got dtype {selected.dtype}.")
    return selected if mask is None else selected & jnp.asarray(mask)[:, None]


def pull_back(
    probs: Float[Array, "tokens experts"], slope: Float[Array, "*#tokens experts"]
) -> Float[Array, "tokens experts"]:
    r"""Gradient in the logits from the gradient in the probabilities: $\pi_e (a_e - \sum_j \pi_j a_j)$.

    Rows sum to zero: adding a constant to a token's logits changes no probability (the softmax gauge).
    """
    return probs * (slope - (probs * slope).sum(axis=-1, keepdims=True))


def group_log_mass(
    logits: Float[Array, "tokens experts"], partition: Partition
) -> Float[Array, "tokens {partition.num_groups}"]:
    r"""$\ln m_g$, finite even where $m_g$ underflows, and exact to rounding however large the logits are."""
    # From the largest one: otherwise two large numbers would be subtracted whose difference is the result.
    logits = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    top = jax.lax.stop_gradient(partition.max(logits))
    inside = jnp.log(partition.sum(jnp.exp(logits - partition.spread(top)))) + top
    return inside - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def conditional(logits: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, "tokens experts"]:
    r"""$q_{e|g} = \pi_e / m_g$: a softmax inside every group."""
    raised = jnp.exp(logits - partition.spread(jax.lax.stop_gradient(partition.max(logits))))
    return raised / partition.spread(partition.sum(raised))
