"""What the families of metrics share: checks of flags, whole numbers and shares, and three limit conventions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._numerics import accumulate, safe_divide

ROUTED = ("tokens", "experts")
Mask = Bool[Array, " tokens"] | Bool[np.ndarray, " tokens"] | None
"""Which tokens are real; all of them if not given. What the others hold changes nothing."""
EXACT = 2**24
"""Up to here float32 counts whole numbers exactly."""


def of_real_tokens(name: str, x: Array, axes: Sequence[str], mask: Mask) -> Array:
    """`x` with the given axes, tokens first and none of them empty, and 0 (or False) at tokens that are not real.

    Before any value is looked at: what a padded token holds is nobody's concern.
    """
    x = _checks.array(name, x)
    _checks.has_axes(name, x.shape, axes)
    return x if mask is None else jnp.where(_along(checked_mask(mask, x.shape[0]), x), x, jnp.zeros((), x.dtype))


def checked_mask(mask: Array | np.ndarray, tokens: int) -> Bool[Array, " tokens"]:
    """Which tokens are real: a flag for each, at least one of them true."""
    mask = _checks.array("mask", mask)
    if mask.shape != (tokens,) or mask.dtype != jnp.bool_:
        raise ValueError(f"`mask` must be a flag for each of {tokens} tokens; got {mask.dtype} of shape {mask.shape}.")
    if _checks.known(mask) and not np.asarray(mask).any():
        raise ValueError(f"`mask` must leave at least one token; it is false for all {tokens}.")
    return mask


def token_mean(values: Array, mask: Mask) -> Float[Array, "..."]:
    """Mean over the real tokens; flags and whole numbers are summed as such, and exactly."""
    if mask is None:
        total, tokens = values.sum(axis=0), values.shape[0]
    else:
        total = jnp.where(_along(mask, values), values, jnp.zeros((), values.dtype)).sum(axis=0)
        tokens = jnp.maximum(jnp.asarray(mask).sum(), 1)
    total = total if jnp.issubdtype(total.dtype, jnp.floating) else to_float(total)
    return total / jnp.asarray(tokens, total.dtype)


def joint_counts(left: Bool[Array, "tokens a"], right: Bool[Array, "tokens b"]) -> Int[Array, "a b"]:
    """How many tokens have each pair of flags: exact for any number of tokens, as a sum of products that are."""
    parts = [slice(first, first + EXACT) for first in range(0, left.shape[0], EXACT)]
    products = (jnp.matmul(to_float(left[p]).T, to_float(right[p]), precision=jax.lax.Precision.HIGHEST) for p in parts)
    return sum((product.astype(jnp.result_type(int)) for product in products), jnp.zeros((), jnp.result_type(int)))


def flags(name: str, x: Array, axes: Sequence[str] = ROUTED, mask: Mask = None) -> Bool[Array, "..."]:
    """`x` as a boolean array with the given axes, none of them empty; false at tokens that are not real."""
    x = of_real_tokens(name, x, axes, mask)
    if x.dtype != jnp.bool_:
        raise ValueError(f"`{name}` must be boolean; got dtype {x.dtype}.")
    return x


def whole(name: str, x: Array, axes: Sequence[str], mask: Mask = None) -> Int[Array, "..."]:
    """`x` as integers with the given axes, none of them empty, and no entry below 0; 0 at tokens that are not real."""
    x = of_real_tokens(name, x, axes, mask)
    _integer(name, x.dtype)
    if _checks.known(x):
        _at_least_zero(name, np.asarray(x))
    return x


def host_whole(name: str, x: Array | np.ndarray, mask: Mask = None) -> Int[np.ndarray, " real"]:
    """As `whole` for one axis of tokens, in NumPy: labels beyond 32 bits keep their value. The real tokens alone."""
    x = x if isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray) else np.asarray(_checks.array(name, x))
    _checks.has_axes(name, x.shape, ("tokens",))
    _integer(name, x.dtype)
    x = x if mask is None else x[np.asarray(checked_mask(mask, x.size))]
    _at_least_zero(name, x)
    return x


def below(name: str, x: Array | np.ndarray, bound: int | Sequence[int]) -> None:
    """`ValueError` unless each entry is below the bound, one for all or one for each place on the last axis."""
    if not _checks.known(x):
        return
    limits = np.broadcast_to(np.asarray(bound), x.shape)
    wrong = np.argwhere(np.asarray(x) >= limits)
    if wrong.size:
        first = tuple(int(i) for i in wrong[0])
        raise ValueError(f"`{name}` must be below {limits[first]}; got {x[first]} at {first}.")


def nonnegative(name: str, x: Array, axes: Sequence[str] = ROUTED, mask: Mask = None) -> Float[Array, "..."]:
    """`x` as finite entries of at least 0, in at least float32; 0 at tokens that are not real."""
    x = _checks.matrix(name, of_real_tokens(name, x, axes, mask), axes)
    if _checks.known(x):
        _at_least_zero(name, np.asarray(x, dtype=np.float64))
    return accumulate(x)


def amounts(name: str, x: Array | np.ndarray, axes: Sequence[str]) -> Float[Array, "..."]:
    """Loads, weights or counts: as `nonnegative`, and whole numbers in the default floating type."""
    if isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.integer):
        x = x.astype(np.float64)  # beforehand: jax may cut 64 bits to 32
    x = _checks.array(name, x)
    return nonnegative(name, to_float(x) if jnp.issubdtype(x.dtype, jnp.integer) else x, axes)


def simplex(name: str, x: Array, mask: Mask = None) -> Float[Array, "tokens experts"]:
    """`x` as rows of probabilities, in at least float32; rows of tokens that are not real are 0.

    The tolerance tells probabilities from logits and from weights that lost mass (softmax, then mask, without
    renormalising). It is not a test of rounding: 1e-3, or four units of a 16-bit type.
    """
    x = _checks.array(name, x)
    wide = nonnegative(name, x, ROUTED, mask)
    if _checks.known(wide):
        tolerance = max(1e-3, 4 * float(jnp.finfo(x.dtype).eps))
        sums = np.asarray(wide, dtype=np.float64).sum(axis=-1)
        off = np.abs(sums - 1) if mask is None else np.where(np.asarray(mask), np.abs(sums - 1), 0)
        token = int(off.argmax())
        if off[token] > tolerance:
            raise ValueError(f"`{name}` must have rows that sum to 1; row {token} sums to {sums[token]:g}.")
    return wide


def same_tokens(name: str, x: Array, reference_name: str, reference: Array) -> None:
    """`ValueError` unless both arrays have as many tokens."""
    if x.shape[0] != reference.shape[0]:
        raise ValueError(f"`{name}` has {x.shape[0]} tokens, `{reference_name}` has {reference.shape[0]}.")


def to_float(x: Bool[Array, "..."] | Int[Array, "..."]) -> Float[Array, "..."]:
    """Flags or counts in the default floating type: float64 where it is enabled, else float32."""
    return x.astype(jnp.result_type(float))


def root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def direction(x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Vectors of length 1 along the last axis; the zero vector stays zero, with gradient 0."""
    # Scaled by the largest entry first, so that squares neither vanish nor overflow. The direction does not depend on
    # the scale, hence no gradient flows through it.
    scale = jax.lax.stop_gradient(jnp.abs(x).max(axis=-1, keepdims=True))
    scaled = safe_divide(x, scale, otherwise=0.0)
    return safe_divide(scaled, root(jnp.square(scaled).sum(axis=-1, keepdims=True)), otherwise=0.0)


def _along(mask: Array | np.ndarray, x: Array) -> Array:
    return jnp.asarray(mask).reshape(-1, *[1] * (x.ndim - 1))


def _integer(name: str, dtype: np.dtype) -> None:
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"`{name}` must be whole numbers; got dtype {dtype}.")


def _at_least_zero(name: str, x: np.ndarray) -> None:
    if x.min() < 0:
        raise ValueError(f"`{name}` must not be negative; its smallest entry is {x.min():g}.")
