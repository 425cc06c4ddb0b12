"""Parts of a block: linear maps, norms, activations. Sums and norms in float32, products in the compute type."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from himoe_theory._numerics import accumulate

from .config import Config

Parameters = dict[str, Any]


def linear(p: Parameters, x: Float[Array, "*batch inputs"], compute: DTypeLike) -> Float[Array, "*batch outputs"]:
    """$xW + b$ with W (inputs, outputs): factors in the compute type, sums at least in float32."""
    y = product(x.reshape(-1, x.shape[-1]), p["weight"], compute).reshape(*x.shape[:-1], -1)
    return y + p["bias"] if "bias" in p else y


def product(
    x: Float[Array, "rows inner"], w: Float[Array, "inner columns"], compute: DTypeLike
) -> Float[Array, "rows columns"]:
    """$xw$, factors rounded to the compute type, in the sum and in both gradients; summed at least in float32."""
    kind = jnp.dtype(compute)
    return _rounded_product(x, w, kind) if kind.itemsize < 4 else dot(x, w, kind)


def wide(kind: jnp.dtype) -> jnp.dtype:
    """The type of sums of products whose factors have type `kind`: at least float32."""
    return jnp.dtype(jnp.float32) if kind.itemsize < 4 else kind


def dot(
    x: Float[Array, "*batch rows inner"], w: Float[Array, "*batch inner columns"], kind: jnp.dtype
) -> Float[Array, "*batch rows columns"]:
    """$xw$ in the plain layout: in bfloat16 a processor has fast products for no other, and only to float32."""
    return _plain(jnp.matmul(x.astype(kind), w.astype(kind), preferred_element_type=wide(kind)), kind)


def transposed(x: Float[Array, "*batch rows columns"], kind: jnp.dtype) -> Float[Array, "*batch columns rows"]:
    """$x^\\top$ in type `kind`, a factor for `dot`."""
    return _plain(x.astype(kind).swapaxes(-1, -2), kind)


def _plain(x: Float[Array, "*shape"], kind: jnp.dtype) -> Float[Array, "*shape"]:
    """The array row by row in memory before anything else happens, for products in types below float32 on a CPU.

    XLA would make a transposition before or after a product part of it, and such products are then computed in float32,
    three times slower, or not at all.
    """
    if kind.itemsize >= 4:
        return x
    rows = Layout(tuple(range(x.ndim)))
    return jax.lax.platform_dependent(x, cpu=lambda x: with_layout_constraint(x, rows), default=lambda x: x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rounded_product(x: Array, w: Array, kind: jnp.dtype) -> Array:
    return dot(x, w, kind)


def _rounded_forward(x: Array, w: Array, kind: jnp.dtype):
    return dot(x, w, kind), (x.astype(kind), w.astype(kind))


def _rounded_backward(kind: jnp.dtype, saved: tuple[Array, Array], g: Array):
    # Written down, because the derivative of a product to float32 would mix the two types.
    x, w = saved
    return dot(g, transposed(w, kind), kind), dot(transposed(x, kind), g, kind)


_rounded_product.defvjp(_rounded_forward, _rounded_backward)


def norm(config: Config, p: Parameters, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """LayerNorm (nanogpt) or RMSNorm (olmoe) over the last axis, at least float32."""
    x = accumulate(x)
    if config.style == "nanogpt":
        x = x - x.mean(axis=-1, keepdims=True)
    y = x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + config.norm_epsilon) * p["weight"]
    return y + p["bias"] if "bias" in p else y


def activate(config: Config, x: Float[Array, "*batch inner"]) -> Float[Array, "*batch width"]:
    """Exact GELU (nanogpt), or SwiGLU (olmoe) of the two halves of the last axis: $\\mathrm{silu}(a) \\odot b$."""
    if config.style == "nanogpt":
        return jax.nn.gelu(x, approximate=False)
    gate, value = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gate) * value


def feed_forward(
    config: Config, p: Parameters, x: Float[Array, "rows dim"], compute: DTypeLike
) -> Float[Array, "rows dim"]:
    """The plain network of a block."""
    return linear(p["out"], activate(config, linear(p["in"], x, compute)), compute)
