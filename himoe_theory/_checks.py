"""Checks at the boundary: one line naming the argument, the rule and the values.

Ranks and sizes are static and checked always. Values (NaN, infinity, sign) are checked where they are known, that is
outside `jit`, `vmap` and `grad`; inside a compiled program a divergence is a result, not an error.
"""

import inspect
import math
import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

LARGEST = 2**63 - 1
"""Above it no count fits what computes with it."""


def known(x: object) -> bool:
    """Whether the values of `x` can be read now (it is not being traced)."""
    return not isinstance(x, Tracer)


def shown(x: object) -> str:
    """`x` for a message: what it is, and itself where that is short."""
    if x is None or isinstance(x, bool):
        return str(x)
    if isinstance(x, int) and x.bit_length() > 100:
        return f"a whole number of {x.bit_length()} bits"
    kind = "masked array" if isinstance(x, np.ma.MaskedArray) else type(x).__name__
    if isinstance(x, np.ndarray | jax.Array):
        return f"{kind} of {x.dtype}"
    try:
        text = repr(x)
    except ValueError:  # it holds a whole number of thousands of digits
        text = ""
    if not text or len(text) > 40 or "\n" in text:
        return f"an object of type {kind}"
    return text if isinstance(x, numbers.Number | str | list | tuple) else f"{text}, of type {kind}"


def array(name: str, x: Any) -> Array:
    """`x` as an array of numbers or flags.

    **Raises:** `ValueError` for what is none: text, None, mappings, ragged nestings, objects, numbers too large; and
    for a masked array, whose mask would be lost.
    """
    if isinstance(x, jax.Array):
        return x
    if not isinstance(x, np.ma.MaskedArray) and x is not None:
        try:
            return jnp.asarray(x)
        except (TypeError, ValueError, OverflowError):
            pass
    raise ValueError(f"`{name}` must be an array of numbers, full and not masked; got {shown(x)}.")


def has_axes(name: str, shape: tuple[int, ...], axes: Sequence[str]) -> None:
    """`ValueError` unless there are as many axes, none of them empty."""
    if len(shape) != len(axes):
        raise ValueError(f"`{name}` must have axes ({', '.join(axes)}); got shape {shape}.")
    for axis, size in zip(axes, shape, strict=True):
        if size == 0:
            raise ValueError(f"`{name}` must have at least one of its {axis}; got shape {shape}.")


def matrix(name: str, x: Array, axes: Sequence[str] = ("tokens", "experts")) -> Array:
    """`x` as a finite floating array with the given axes, none of them empty."""
    x = array(name, x)
    has_axes(name, x.shape, axes)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`{name}` must be floating; got dtype {x.dtype}.")
    if known(x):
        bad = ~np.isfinite(np.asarray(x, dtype=np.float64))
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(f"`{name}` must be finite; {int(bad.sum())} of {bad.size} are not, the first at {where}.")
    return x


def not_probabilities(name: str, x: Array, mask: Array | None = None) -> None:
    """Warns, in one line, if every real row is non-negative and sums to 1: softmax of probabilities is nearly uniform.

    The tolerance is that of the metrics, which refuse the reverse: 1e-3, or four units of a 16-bit type.
    """
    if not known(x) or not known(mask) or x.shape[-1] < 2:
        return
    rows = np.asarray(x if mask is None else x[jnp.asarray(mask)], dtype=np.float64)
    tolerance = max(1e-3, 4 * float(jnp.finfo(x.dtype).eps))
    if rows.size and rows.min() >= 0 and np.abs(rows.sum(axis=-1) - 1).max() <= tolerance:
        text = f"`{name}` look like probabilities: all {len(rows)} rows are non-negative and sum to 1."
        warnings.warn(f"{text} Hand over logits, or logarithms of probabilities.", stacklevel=_outside())


def _outside() -> int:
    """Level of the stack, for the caller, that called into this package: a warning is shown once for each place."""
    frame, level, last = inspect.currentframe(), 0, 0
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] == __package__:
            last = level
        frame, level = frame.f_back, level + 1
    return last + 1


def same_shape(name: str, x: Array, reference_name: str, reference: Array) -> Array:
    """`x` as an array of the shape of `reference`."""
    x = array(name, x)
    if x.shape != reference.shape:
        raise ValueError(f"`{name}` must have the shape of `{reference_name}`, {reference.shape}; got {x.shape}.")
    return x


def flags(name: str, x: Array, *shapes: tuple[int, ...]) -> Array:
    """`x` as a boolean array of one of the shapes."""
    x = jnp.asarray(x)
    if x.shape not in shapes:
        raise ValueError(f"`{name}` must have shape {' or '.join(map(str, shapes))}; got {x.shape}.")
    if x.dtype != jnp.bool_:
        raise ValueError(f"`{name}` must be boolean; got dtype {x.dtype}.")
    return x


def per_expert(name: str, x: Array, experts: int) -> Array:
    """`x` as a finite floating array of one entry an expert."""
    x = matrix(name, x, ("experts",))
    if x.shape[0] != experts:
        raise ValueError(f"`{name}` must have one entry an expert; got {x.shape[0]} for {experts} experts.")
    return x


def chosen(name: str, x: Array, tokens: int, experts: int) -> Array:
    """`x` as the experts that each of `tokens` chose: distinct whole numbers in 0..`experts`-1, at least one a
    token."""
    x = array(name, x)
    if x.ndim != 2 or x.shape[0] != tokens or x.shape[1] == 0:
        raise ValueError(f"`{name}` must have axes ({tokens} tokens, routes); got shape {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"`{name}` must be whole numbers; got dtype {x.dtype}.")
    if known(x):
        entries = np.asarray(x)
        if entries.min() < 0 or entries.max() >= experts:
            raise ValueError(f"`{name}` must be in 0..{experts - 1}; got {entries.min()}..{entries.max()}.")
        distinct(name, entries)
    return x


def distinct(name: str, picks: np.ndarray) -> None:
    """`ValueError` if a row names an expert twice."""
    ordered = np.sort(picks, axis=-1)
    twice = np.argwhere(ordered[:, 1:] == ordered[:, :-1])
    if twice.size:
        row, place = (int(i) for i in twice[0])
        raise ValueError(f"`{name}` must be distinct in each row; row {row} has {ordered[row, place]} twice.")


def real(name: str, value: Any) -> np.ndarray:
    """`value`, a real number or an array of such, in float64; `ValueError` for all else: text, None and flags too."""
    entries = None
    if isinstance(value, numbers.Real) and not isinstance(value, bool):  # fractions too
        try:
            return np.asarray(float(value))
        except OverflowError:
            pass
    elif not isinstance(value, np.ma.MaskedArray | str | bytes | bool) and value is not None:
        try:
            entries = np.asarray(value)
        except ValueError:  # ragged
            pass
    if entries is None or not (jnp.issubdtype(entries.dtype, jnp.floating) or np.issubdtype(entries.dtype, np.integer)):
        raise ValueError(f"`{name}` must be a real number or an array of them; got {shown(value)}.")
    return entries.astype(np.float64)


def coefficient(
    name: str, value: int | float | Array | np.ndarray, *, minimum: float = 0.0, maximum: float = math.inf
) -> None:
    """A finite number in [minimum, maximum]; arrays of coefficients are checked entry by entry."""
    if not known(value):
        return
    entries = real(name, value)
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
        raise ValueError(f"`{name}` must be a whole number; got {shown(value)}.")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}; got {shown(value)}.")
    maximum = LARGEST if maximum is None else maximum
    if value > maximum:
        raise ValueError(f"`{name}` must be at most {maximum}{f' ({of})' if of else ''}; got {shown(value)}.")


def function(name: str, value: object) -> None:
    """`ValueError` unless `value` can be called."""
    if not callable(value):
        raise ValueError(f"`{name}` must be a function; got {shown(value)}.")


def kind(name: str, value: object, wanted: type) -> None:
    """`ValueError` unless `value` is of the type."""
    if not isinstance(value, wanted):
        raise ValueError(f"`{name}` must be a `{wanted.__name__}`; got {shown(value)}.")


def positive(name: str, value: int | float | Array | np.ndarray) -> None:
    """Finite numbers above 0; arrays are checked entry by entry."""
    if not known(value):
        return
    entries = real(name, value)
    good = np.isfinite(entries) & (entries > 0)
    if not good.all():
        rule = "above 0" if np.isfinite(entries).all() else "finite and above 0"
        raise ValueError(f"`{name}` must be {rule}; got {_first(entries, ~good)}.")


def finite(name: str, value: int | float | Array | np.ndarray) -> None:
    """Finite numbers of either sign; arrays are checked entry by entry."""
    if not known(value):
        return
    entries = real(name, value)
    if not np.isfinite(entries).all():
        raise ValueError(f"`{name}` must be finite; got {_first(entries, ~np.isfinite(entries))}.")
