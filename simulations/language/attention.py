"""Causal attention with several heads, softmax in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .blocks import Parameters, dot, linear, norm, transposed
from .config import Config


def attention(
    config: Config, p: Parameters, x: Float[Array, "batch time dim"], compute: DTypeLike
) -> Float[Array, "batch time dim"]:
    r"""$\mathrm{softmax}(q k^\top / \sqrt{d/H})\, v$ over places not later than one's own, for each of H heads.

    Style olmoe norms queries and keys (over all heads at once, as OLMoE, arXiv:2409.02060) and turns them by place.
    """
    batch, time, dim = x.shape
    query, key, value = jnp.split(linear(p["qkv"], x, compute), 3, axis=-1)
    if config.style == "olmoe":
        query, key = norm(config, p["query_norm"], query), norm(config, p["key_norm"], key)
    shape = (batch, time, config.heads, dim // config.heads)
    query, key, value = (y.reshape(shape).swapaxes(1, 2) for y in (query, key, value))
    if config.style == "olmoe":
        query, key = rotate(query, config.rotary_base), rotate(key, config.rotary_base)
    mixed = causal(query, key, value, jnp.dtype(compute))
    return linear(p["out"], mixed.swapaxes(1, 2).reshape(batch, time, dim), compute)


BLOCK = 128
"""Queries that are taken together, each block with the keys up to its end alone: about half of all pairs."""


def _blocks(time: int) -> list[tuple[int, int]]:
    """Ranges of queries. Long sequences take larger blocks, so that programs stay small."""
    size = max(BLOCK, -(-time // 8))
    return [(start, min(start + size, time)) for start in range(0, time, size)]


def _scores(query: Array, key: Array, start: int, stop: int, kind: jnp.dtype) -> Array:
    """Scaled scores of one block, $-\\infty$ for later keys."""
    scaled = query[:, :, start:stop] * query.shape[-1] ** -0.5
    scores = dot(scaled, transposed(key[:, :, :stop], kind), kind)
    return jnp.where(np.tri(stop - start, stop, start, dtype=bool), scores, -jnp.inf)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def causal(
    query: Float[Array, "batch heads time width"],
    key: Float[Array, "batch heads time width"],
    value: Float[Array, "batch heads time width"],
    kind: jnp.dtype,
) -> Float[Array, "batch heads time width"]:
    """Attention to places up to one's own; factors of products in type `kind`, softmax at least in float32.

    By blocks of queries. The backward pass computes the weights anew from the logarithm of their sums, so that nothing
    of size time × time is kept. **Source:** FlashAttention, arXiv:2205.14135.
    """
    return _causal_forward(query, key, value, kind)[0]


def _causal_forward(query: Array, key: Array, value: Array, kind: jnp.dtype):
    outputs, sums = [], []
    for start, stop in _blocks(query.shape[2]):
        scores = _scores(query, key, start, stop, kind)
        top = scores.max(axis=-1, keepdims=True)
        raised = jnp.exp(scores - top)
        total = raised.sum(axis=-1, keepdims=True)
        outputs.append(dot(raised, value[:, :, :stop], kind) / total)
        sums.append(top + jnp.log(total))
    output, logsum = jnp.concatenate(outputs, axis=2), jnp.concatenate(sums, axis=2)
    return output, (query, key, value, output, logsum)


def _causal_backward(kind: jnp.dtype, saved: tuple[Array, ...], g: Array):
    query, key, value, output, logsum = saved
    time, scale = query.shape[2], query.shape[-1] ** -0.5
    mean = (g * output).sum(axis=-1, keepdims=True)
    d_query, d_key, d_value = [], jnp.zeros_like(key), jnp.zeros_like(value)
    for start, stop in _blocks(time):
        own = slice(start, stop)
        weights = jnp.exp(_scores(query, key, start, stop, kind) - logsum[:, :, own])
        slope = dot(g[:, :, own], transposed(value[:, :, :stop], kind), kind) - mean[:, :, own]
        slope = weights * slope * scale
        d_query.append(dot(slope, key[:, :, :stop], kind))
        # Their transposes: of two factors the narrower one is turned round.
        d_key = d_key.at[:, :, :stop].add(dot(transposed(query[:, :, own], kind), slope, kind).swapaxes(-1, -2))
        d_value = d_value.at[:, :, :stop].add(dot(transposed(g[:, :, own], kind), weights, kind).swapaxes(-1, -2))
    return jnp.concatenate(d_query, axis=2), d_key, d_value


causal.defvjp(_causal_forward, _causal_backward)


def rotate(x: Float[Array, "batch heads time width"], base: float) -> Float[Array, "batch heads time width"]:
    r"""Rotary positions: place t turns the pair (i, i + width/2) by the angle $t\, \mathrm{base}^{-2i/\mathrm{width}}$.

    **Source:** RoFormer, arXiv:2104.09864, with the pairs of OLMoE's released code.
    """
    time, width = x.shape[-2:]
    frequency = base ** (-np.arange(0, width, 2) / width)
    angle = np.arange(time)[:, None] * frequency
    cos, sin = (jnp.asarray(f(angle), x.dtype) for f in (np.cos, np.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
