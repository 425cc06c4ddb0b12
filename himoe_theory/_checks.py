"""Checks at the boundary: one line naming the argument, the rule and the values.

Ranks and sizes are static and checked always. Values (NaN, infinity, sign) are checked where they are known, that is
outside `jit`, `vmap` and `grad`; inside a compiled program a divergence is a result, not an error.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array


def known(x: object) -> bool:
    """Whether the values of `x` can be read now (it is not being traced)."""
    return not isinstance(x, Tracer)


def matrix(name: str, x: Array, axes: Sequence[str] = ("tokens", "experts")) -> Array:
    """`x` as a finite floating array with the given axes, none of them empty."""
    x = jnp.asarray(x)
    if x.ndim != len(axes):
        raise ValueError(f"`{name}` must have axes ({', '.join(axes)}); got shape {x.shape}.")
    for axis, size in zip(axes, x.shape, strict=True):
        if size == 0:
            raise ValueError(f"`{name}` must have at least one of its {axis}; got shape {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`{name}` must be floating; got dtype {x.dtype}.")
    if known(x):
        bad = ~np.isfinite(np.asarray(x, dtype=np.float64))
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(f"`{name}` must be finite; {int(bad.sum())} of {bad.size} are not, the first at {where}.")
    return x


def same_shape(name: str, x: Array, reference_name: str, reference: Array) -> Array:
    """`x` as an array of the shape of `reference`."""
    x = jnp.asarray(x)
    if x.shape != reference.shape:
        raise ValueError(f"`{name}` must have the shape of `{reference_name}`, {reference.shape}; got {x.shape}.")
    return x


def per_expert(name: str, x: Array, experts: int) -> Array:
    """`x` as a finite floating array of one entry an expert."""
    x = matrix(name, x, ("experts",))
    if x.shape[0] != experts:
        raise ValueError(f"`{name}` must have one entry an expert; got {x.shape[0]} for {experts} experts.")
    return x


def chosen(name: str, x: Array, tokens: int, experts: int) -> Array:
    """`x` as the experts that each of `tokens` chose: whole numbers in 0..`experts`-1, at least one a token."""
    x = jnp.asarray(x)
    if x.ndim != 2 or x.shape[0] != tokens or x.shape[1] == 0:
        raise ValueError(f"`{name}` must have axes ({tokens} tokens, routes); got shape {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"`{name}` must be whole numbers; got dtype {x.dtype}.")
    if known(x):
        entries = np.asarray(x)
        if entries.min() < 0 or entries.max() >= experts:
            raise ValueError(f"`{name}` must be in 0..{experts - 1}; got {entries.min()}..{entries.max()}.")
    return x


def coefficient(
    name: str, value: float | Array | np.ndarray, *, minimum: float = 0.0, maximum: float = math.inf
) -> None:
    """A finite number in [minimum, maximum]; arrays of coefficients are checked entry by entry."""
    if not known(value):
        return
    entries = np.asarray(value, dtype=np.float64)
    good = np.isfinite(entries) & (entries >= minimum) & (entries <= maximum)
    if not good.all():
        rule = f"at least {minimum:g}" if maximum == math.inf else f"in [{minimum:g}, {maximum:g}]"
        raise ValueError(f"`{name}` must be finite and {rule}; got {_first(entries, ~good)}.")


def _first(entries: np.ndarray, bad: np.ndarray | np.bool_) -> str:
    """The first of the bad entries, and where it is."""
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{entries[where]:g} at {where}" if where else f"{entries[()]:g}"


def count(name: str, value: int, *, minimum: int = 1, maximum: int | None = None, of: str = "") -> None:
    """A whole number in [minimum, maximum]; `of` names what sets the maximum."""
    # numpy's bool is no integer, Python's is: `True` experts is a mistake.
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"`{name}` must be a whole number; got {value!r}.")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}; got {value}.")
    if maximum is not None and value > maximum:
        raise ValueError(f"`{name}` must be at most {maximum}{f' ({of})' if of else ''}; got {value}.")


def positive(name: str, value: float | Array | np.ndarray) -> None:
    """Finite numbers above 0; arrays are checked entry by entry."""
    if not known(value):
        return
    entries = np.asarray(value, dtype=np.float64)
    good = np.isfinite(entries) & (entries > 0)
    if not good.all():
        rule = "above 0" if np.isfinite(entries).all() else "finite and above 0"
        raise ValueError(f"`{name}` must be {rule}; got {_first(entries, ~good)}.")


def finite(name: str, value: float | Array | np.ndarray) -> None:
    """Finite numbers of either sign; arrays are checked entry by entry."""
    if not known(value):
        return
    entries = np.asarray(value, dtype=np.float64)
    if not np.isfinite(entries).all():
        raise ValueError(f"`{name}` must be finite; got {_first(entries, ~np.isfinite(entries))}.")
