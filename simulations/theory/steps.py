"""Gradient steps of a small system, as one compiled scan, and rates of growth read from what they leave."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

Field = Callable[..., PyTree]


@functools.partial(jax.jit, static_argnames=("field", "records", "stride"))
def descend(field: Field, start: PyTree, step: Float[Array, ""], records: int, stride: int, *numbers: PyTree) -> PyTree:
    r"""Plain steps $z \leftarrow z + \eta\, f(z, \ldots)$; the states after 0, `stride`, ..., `records * stride` steps.

    **Arguments:** `field`: f, of the state and of `numbers`. `step`: $\eta$. **Returns:** the states, stacked.
    """

    def one(z: PyTree, _: None) -> tuple[PyTree, None]:
        return jax.tree.map(lambda a, b: a + step.astype(a.dtype) * b, z, field(z, *numbers)), None

    def record(z: PyTree, _: None) -> tuple[PyTree, PyTree]:
        z, _ = jax.lax.scan(one, z, length=stride)
        return z, z

    _, states = jax.lax.scan(record, start, length=records)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, states)


def fitted_rate(times: Float[np.ndarray, " records"], sizes: Float[np.ndarray, " records"]) -> float:
    """Least-squares slope of ln |size| over time. **Raises:** `ValueError` for fewer than two records."""
    if len(times) < 2:
        raise ValueError(f"`times` must have at least 2 records to take a slope from; got {len(times)}.")
    return float(np.polyfit(times, np.log(np.abs(sizes)), 1)[0])


def stepped(rates: Float[np.ndarray, "..."], step: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
    r"""$\ln(1 + \eta\rho)/\eta$: the rate of growth that plain steps of size $\eta$ make of a flow's rate $\rho$."""
    return np.log1p(step * rates) / step
