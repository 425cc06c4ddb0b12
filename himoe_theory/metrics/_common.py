"""What the families of metrics share: checks of flags, whole numbers and shares, and three limit conventions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._numerics import accumulate, safe_divide

ROUTED = ("tokens", "experts")


def flags(name: str, x: Array, axes: Sequence[str] = ROUTED) -> Bool[Array, "..."]:
    """`x` as a boolean array with the given axes, none of them empty."""
    x = jnp.asarray(x)
    _shape(name, x.shape, axes)
    if x.dtype != jnp.bool_:
        raise ValueError(f"`{name}` must be boolean; got dtype {x.dtype}.")
    return x


def whole(name: str, x: Array, axes: Sequence[str]) -> Int[Array, "..."]:
    """`x` as integers with the given axes, none of them empty, and no entry below 0."""
    x = jnp.asarray(x)
    _shape(name, x.shape, axes)
    _integer(name, x.dtype)
    if _checks.known(x):
        _at_least_zero(name, np.asarray(x))
    return x


def host_whole(name: str, x: Array | np.ndarray) -> Int[np.ndarray, " tokens"]:
    """As `whole` for one axis of tokens, in NumPy: labels beyond 32 bits keep their value."""
    x = np.asarray(x)
    _shape(name, x.shape, ("tokens",))
    _integer(name, x.dtype)
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


def nonnegative(name: str, x: Array, axes: Sequence[str] = ROUTED) -> Float[Array, "..."]:
    """`x` as finite entries of at least 0, in at least float32."""
    x = _checks.matrix(name, x, axes)
    if _checks.known(x):
        _at_least_zero(name, np.asarray(x, dtype=np.float64))
    return accumulate(x)


def simplex(name: str, x: Array) -> Float[Array, "tokens experts"]:
    """`x` as rows of probabilities, in at least float32.

    The tolerance tells probabilities from logits and from weights that lost mass (softmax, then mask, without
    renormalising). It is not a test of rounding: 1e-3, or four units of a 16-bit type.
    """
    wide = nonnegative(name, x)
    if _checks.known(wide):
        tolerance = max(1e-3, 4 * float(jnp.finfo(jnp.asarray(x).dtype).eps))
        sums = np.asarray(wide, dtype=np.float64).sum(axis=-1)
        token = int(np.abs(sums - 1).argmax())
        if abs(sums[token] - 1) > tolerance:
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


def _shape(name: str, shape: tuple[int, ...], axes: Sequence[str]) -> None:
    if len(shape) != len(axes):
        raise ValueError(f"`{name}` must have axes ({', '.join(axes)}); got shape {shape}.")
    for axis, size in zip(axes, shape, strict=True):
        if size == 0:
            raise ValueError(f"`{name}` must have at least one of its {axis}; got shape {shape}.")


def _integer(name: str, dtype: np.dtype) -> None:
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"`{name}` must be whole numbers; got dtype {dtype}.")


def _at_least_zero(name: str, x: np.ndarray) -> None:
    if x.min() < 0:
        raise ValueError(f"`{name}` must not be negative; its smallest entry is {x.min():g}.")
