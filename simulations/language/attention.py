"""Causal attention with several heads, softmax in float32."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .blocks import Parameters, linear, norm
from .config import Config


def attention(
    config: Config, p: Parameters, x: Float[Array, "batch time dim"], compute: DTypeLike
) -> Float[Array, "batch time dim"]:
    r"""$\mathrm{softmax}(q k^\top / \sqrt{d/H})\, v$ over places not later than one's own, for each of H heads.

    Style olmoe norms queries and keys (over all heads at once, as [olmoe]) and turns them by their place.
    """
    batch, time, dim = x.shape
    query, key, value = jnp.split(linear(p["qkv"], x, compute), 3, axis=-1)
    if config.style == "olmoe":
        query, key = norm(config, p["query_norm"], query), norm(config, p["key_norm"], key)
    shape = (batch, time, config.heads, dim // config.heads)
    query, key, value = (y.reshape(shape).swapaxes(1, 2) for y in (query, key, value))
    if config.style == "olmoe":
        query, key = rotate(query, config.rotary_base), rotate(key, config.rotary_base)
    mixed = causal(query, key, value, compute)
    return linear(p["out"], mixed.swapaxes(1, 2).reshape(batch, time, dim), compute)


def causal(
    query: Float[Array, "batch heads time width"],
    key: Float[Array, "batch heads time width"],
    value: Float[Array, "batch heads time width"],
    compute: DTypeLike,
) -> Float[Array, "batch heads time width"]:
    """Attention to places up to one's own."""
    time, width = query.shape[-2:]
    kind = jnp.promote_types(compute, jnp.float32)
    scaled = (query * width**-0.5).astype(compute)
    scores = jnp.einsum("bhqc,bhkc->bhqk", scaled, key.astype(compute), preferred_element_type=kind)
    scores = jnp.where(np.tri(time, dtype=bool), scores, -jnp.inf)
    weights = jax.nn.softmax(scores).astype(compute)
    return jnp.einsum("bhqk,bhkc->bhqc", weights, value.astype(compute), preferred_element_type=kind)


def rotate(x: Float[Array, "batch heads time width"], base: float) -> Float[Array, "batch heads time width"]:
    r"""Rotary positions: place t turns the pair (i, i + width/2) by the angle $t\, \mathrm{base}^{-2i/\mathrm{width}}$.

    **Source:** [rotary], with the pairs of [olmoe]'s released code.
    """
    time, width = x.shape[-2:]
    frequency = base ** (-np.arange(0, width, 2) / width)
    angle = np.arange(time)[:, None] * frequency
    cos, sin = (jnp.asarray(f(angle), x.dtype) for f in (np.cos, np.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
