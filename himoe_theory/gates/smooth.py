"""Selectors of smooth bits: a sparse gate that is differentiable everywhere."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._numerics import accumulate

_LEAST = 1e-30
"""Stands for a weight of 0, whose logarithm a logit cannot be."""


def smooth_step(z: Float[Array, "*shape"], width: float = 1.0) -> Float[Array, "*shape"]:
    r"""0 up to $-\gamma/2$, 1 from $\gamma/2$ on, $\frac12 + \frac{3}{2\gamma} z - \frac{2}{\gamma^3} z^3$ between.

    Continuously differentiable; the derivative is 0 on both plateaus. **Arguments:** `width`: gamma > 0.
    **Source:** [dselect-k] eq. (4).
    """
    _checks.positive("width", width)
    inside = jnp.clip(z, -width / 2, width / 2) / width
    return 0.5 + 1.5 * inside - 2 * inside**3


def bit_logits(
    bits: Float[Array, "tokens selectors bits"],
    mix: Float[Array, "tokens selectors"],
    num_experts: int,
    width: float = 1.0,
) -> Float[Array, "tokens experts"]:
    r"""$\log \sum_i \mathrm{softmax}(m)_i \prod_j S(z_{ij})^{b_{ej}} (1 - S(z_{ij}))^{1 - b_{ej}}$, where $b_{ej}$ is
    bit j of the expert's number.

    Each selector is a point in the cube of bits; at a corner it is one expert, so that at most as many experts as
    selectors have a weight once all bits are decided. Softmax gives the weights back, normalised over the experts
    there are; 1e-30 stands for a weight of 0, and its gradient is 0. **Arguments:** `bits`: z, $\lceil\log_2
    N\rceil$ a selector. `mix`: m. `width`: of the step. **Raises:** `ValueError` for another number of bits.
    **Source:** [dselect-k] eqs. (5, 6).
    """
    wanted = max(1, math.ceil(math.log2(num_experts)))
    if bits.shape[-1] != wanted:
        raise ValueError(f"`bits` must be {wanted} a selector for {num_experts} experts; got {bits.shape[-1]}.")
    on = smooth_step(accumulate(bits), width)[:, :, None, :]
    code = (np.arange(num_experts)[:, None] >> np.arange(wanted)) & 1
    selector = jnp.where(code == 1, on, 1 - on).prod(axis=-1)
    weights = jnp.einsum("tk,tke->te", jax.nn.softmax(accumulate(mix)), selector, precision="highest")
    return jnp.log(jnp.maximum(weights, _LEAST))
