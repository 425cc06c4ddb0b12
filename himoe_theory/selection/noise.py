"""Selection with noise: how probable each expert is before the noise is drawn."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._numerics import accumulate


def uniform_noise_top1(logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
    r"""Probability that expert e has the largest of $h_j + r_j$, with $r_j$ independent and uniform on (0, 1).

    $$p_e = \int_0^1 \prod_{j \ne e} \min(1, \max(0, h_e - h_j + r))\, dr$$

    Rows sum to 1; 0 for an expert more than 1 below the largest. Exact up to rounding: between its corners the
    integrand is a polynomial, which Gauss-Legendre nodes integrate exactly. **Arguments:** `logits`: h.
    **Source:** [chen], the router's noise.
    """
    h = accumulate(_checks.matrix("logits", logits))
    experts = h.shape[1]
    ahead = h[:, :, None] - h[:, None, :]  # [tokens, e, j]
    # e itself gives the corners 0 and 1, the ends of the range.
    corners = jnp.sort(jnp.clip(jnp.concatenate([-ahead, 1 - ahead], axis=-1), 0, 1), axis=-1)
    nodes, weights = np.polynomial.legendre.leggauss(max(1, math.ceil(experts / 2)))
    start, width = corners[..., :-1, None], jnp.diff(corners, axis=-1)[..., None]
    r = start + width * jnp.asarray((nodes + 1) / 2, h.dtype)  # [tokens, e, pieces, nodes]
    below = jnp.clip(ahead[:, :, None, None, :] + r[..., None], 0, 1)
    others = jnp.where(jnp.eye(experts, dtype=bool)[:, None, None, :], 1, below).prod(axis=-1)
    return (width * jnp.asarray(weights / 2, h.dtype) * others).sum(axis=(-2, -1))
