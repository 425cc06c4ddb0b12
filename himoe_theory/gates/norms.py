"""Experts that choose themselves: by the length of their own activation."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._numerics import accumulate


def norm_logits(
    x: Float[Array, "tokens dim"], maps: Float[Array, "experts dim width"]
) -> Float[Array, "tokens experts"]:
    r"""$s_{te} = \|x_t A_e\|_2$ with the experts' own first maps A: there is no router.

    Range $[0, \infty)$; the gradient where an activation is 0 is 0. **Arguments:** `maps`: A, or a first factor of low
    rank. **Raises:** `ValueError` if the dimensions differ. **Source:** [aoe].
    """
    x = accumulate(_checks.matrix("x", x, ("tokens", "dim")))
    _checks.has_axes("maps", maps.shape, ("experts", "dim", "width"))
    if maps.shape[1] != x.shape[1]:
        raise ValueError(f"tokens have {x.shape[1]} dimensions, maps of experts have {maps.shape[1]}.")
    # |x A|^2 = x (A A^T) x^T needs dim^2 numbers an expert; the plain form is as cheap where the width is small.
    square = jnp.square(jnp.einsum("td,edw->tew", x, accumulate(maps), precision="highest")).sum(axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
