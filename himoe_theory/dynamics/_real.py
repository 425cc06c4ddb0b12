"""What the closed forms here take and give: a number, or an array of numbers entry by entry."""

import jax.numpy as jnp
from jaxtyping import Array, Float

Real = float | Float[Array, "..."]


def floating(x: Real) -> Float[Array, "..."]:
    """`x` as an array in its own precision; whole numbers in the default one."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
