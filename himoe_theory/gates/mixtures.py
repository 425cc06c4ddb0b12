"""A mixture of Gaussians as a gate: the expert from whose components a token most probably came."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._numerics import accumulate


def mixture_logits(
    x: Float[Array, "tokens dim"],
    means: Float[Array, "experts components dim"],
    log_std: Float[Array, "experts components"],
    log_weights: Float[Array, "experts components"],
) -> Float[Array, "tokens experts"]:
    r"""$s_{te} = \log \sum_c w_{ec}\,\mathcal N(x_t;\, \mu_{ec},\, \sigma_{ec}^2 I)$, the weights normalised over all
    components of all experts.

    The logits are joint log densities: their softmax is the posterior of the expert given the token, their
    log-sum-exp over experts the log likelihood of the token. **Arguments:** `means`: mu, several components an expert.
    `log_std`: log sigma. `log_weights`: log w up to a constant. **Raises:** `ValueError` if sizes differ.
    **Source:** [ida-moe] (there on a latent of the token).
    """
    x = accumulate(_checks.matrix("x", x, ("tokens", "dim")))
    if means.ndim != 3 or means.shape[2] != x.shape[1] or not log_std.shape == log_weights.shape == means.shape[:2]:
        shapes = ", ".join(str(tuple(part.shape)) for part in (means, log_std, log_weights))
        raise ValueError(f"means, log_std and log_weights must fit {x.shape[1]} dimensions; got {shapes}.")
    _checks.has_axes("means", means.shape, ("experts", "components", "dim"))
    square = jnp.square(x[:, None, None, :] - means[None]).sum(axis=-1)
    log_prior = jax.nn.log_softmax(log_weights.ravel()).reshape(log_weights.shape)
    log_density = -square / (2 * jnp.exp(2 * log_std)) - x.shape[1] * (log_std + math.log(2 * math.pi) / 2)
    return jax.nn.logsumexp(log_prior + log_density, axis=-1)


def mixture_log_likelihood(logits: Float[Array, "tokens experts"]) -> Float[Array, ""]:
    r"""$\frac1T \sum_t \log \sum_e e^{s_{te}}$ of the logits of `mixture_logits`: the log density of a token in nats.

    What the gate of [ida-moe] is fitted by, without a gradient of the task.
    """
    return jax.nn.logsumexp(accumulate(_checks.matrix("logits", logits)), axis=-1).mean()
