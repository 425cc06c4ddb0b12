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


def checked_logits(logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
    """Finite logits in at least float32."""
    return accumulate(_checks.matrix("logits", logits))


def grouped_logits(logits: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, "tokens experts"]:
    """The same, of as many experts as the partition has."""
    logits = checked_logits(logits)
    fitting(partition, "logits", logits.shape[1])
    return logits


def checked_selection(
    selected: Bool[Array, "tokens experts"], logits: Float[Array, "tokens experts"]
) -> Bool[Array, "tokens experts"]:
    """A boolean mask of the shape of the logits."""
    selected = _checks.same_shape("selected", selected, "logits", logits)
    if selected.dtype != jnp.bool_:
        raise ValueError(f"`selected` must be boolean; got dtype {selected.dtype}.")
    return selected


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
    r"""$\ln m_g$, finite even where $m_g$ underflows."""
    top = jax.lax.stop_gradient(partition.max(logits))
    inside = jnp.log(partition.sum(jnp.exp(logits - partition.spread(top)))) + top
    return inside - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def conditional(logits: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, "tokens experts"]:
    r"""$q_{e|g} = \pi_e / m_g$: a softmax inside every group."""
    raised = jnp.exp(logits - partition.spread(jax.lax.stop_gradient(partition.max(logits))))
    return raised / partition.spread(partition.sum(raised))
