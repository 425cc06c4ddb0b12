"""Limit conventions and precision, each named once: what happens at 0, at -inf, and in bfloat16.

No other module adds a stray small number. Where a paper's code does (1e-10 and kin), that constant is an argument
called `epsilon` of the function concerned, so that the formula printed in the docstring is the one computed.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def accumulate(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """At least float32: bfloat16 and float16 are widened before any sum or exponential, wider types are kept."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def xlogx(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$x \ln x$ with $0 \ln 0 = 0$; the gradient at 0 is 0 instead of infinite. NaN stays NaN."""
    empty = x <= 0
    return jnp.where(empty, 0, x * jnp.log(jnp.where(empty, 1, x)))


def safe_divide(
    numerator: Float[Array, "..."], denominator: Float[Array, "..."], *, otherwise: float
) -> Float[Array, "..."]:
    """`numerator / denominator`, or the stated `otherwise` where the denominator is 0 (value and gradient finite)."""
    positive = denominator != 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), otherwise)


def within_range(x: Float[Array, "*shape"], axis: int | tuple[int, ...] = -1) -> Float[Array, "*shape"]:
    r"""`x` by a power of two that keeps sums, squares and quotients of it from overflow and underflow.

    For what does not depend on the scale along `axis`. The power is 1, so that nothing is rounded, unless the largest
    entry is outside $2^{\pm 48}$ in float32, $2^{\pm 384}$ in float64; no gradient flows through it.
    """
    reach = jnp.finfo(x.dtype).maxexp // 8
    largest = jax.lax.stop_gradient(jnp.abs(x).max(axis=axis, keepdims=True))
    down, up = (jnp.asarray(2.0**power, x.dtype) for power in (-5 * reach, 5 * reach))
    one = jnp.ones((), x.dtype)
    return x * jnp.where(largest > 2.0 ** (3 * reach), down, jnp.where(largest < 2.0 ** (-3 * reach), up, one))


def masked_softmax(
    logits: Float[Array, "tokens experts"], mask: Bool[Array, "tokens experts"]
) -> Float[Array, "tokens experts"]:
    """Softmax over the entries of each row where `mask` holds, 0 elsewhere. A row without any entry is all 0."""
    low = jnp.finfo(logits.dtype).min
    top = jnp.where(mask, logits, low).max(axis=-1, keepdims=True)
    # Excluded entries are replaced before the exponential: their gradient is exactly 0, never 0 * inf.
    shifted = jnp.where(mask, logits - jax.lax.stop_gradient(top), 0)
    raised = jnp.where(mask, jnp.exp(shifted), 0)
    return safe_divide(raised, raised.sum(axis=-1, keepdims=True), otherwise=0.0)


def masked_mean(x: Float[Array, "tokens *rest"], mask: Bool[Array, " tokens"] | None) -> Float[Array, "*rest"]:
    """Mean over the tokens where `mask` holds (all if it is `None`); 0 where it holds nowhere. Other tokens' entries do
    not count, whatever they are."""
    if mask is None:
        return x.mean(axis=0)
    held = mask.reshape(-1, *(1,) * (x.ndim - 1))
    total = jnp.where(held, x, 0).sum(axis=0)
    return total / jnp.maximum(mask.sum(dtype=jnp.int32), 1).astype(x.dtype)
