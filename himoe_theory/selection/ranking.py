"""Order among keys: the largest entries, and the rank of every entry. The lower place comes first among equals."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Measured on a CPU (8 seeds x 4 settings x 256 tokens): for 8 experts counting is 8 times faster than `lax.top_k`, for
# 64 experts 5 times slower.
_COUNT_UP_TO = 16


def _signless_zero(keys: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Keys with -0 as 0: sorting puts -0 below 0, so two zeros would not tie."""
    return jnp.where(keys == 0, 0, keys)


def largest(keys: tuple[Float[Array, "*batch width"], ...], k: int) -> Int[Array, "*batch {k}"]:
    """Places of the k largest entries of the last axis, best first; equal entries by the next array of keys."""
    width = keys[0].shape[-1]
    if width <= _COUNT_UP_TO:
        rank = _counted(keys)
        holds = rank[..., None, :] == jnp.arange(k, dtype=jnp.int32)[:, None]
        return jnp.where(holds, jnp.arange(width, dtype=jnp.int32), 0).sum(axis=-1, dtype=jnp.int32)
    more = min(k + 1, width)
    values, places = jax.lax.top_k(_signless_zero(keys[0]), more if len(keys) > 1 else k)
    if len(keys) == 1:
        return places
    # Sorting by several keys takes three times as long, and ties are rare.
    tied = (values[..., 1:] == values[..., :-1]).any()
    return jax.lax.cond(tied, lambda: _falling(keys)[..., :k], lambda: places[..., :k])


def rank(keys: tuple[Float[Array, "*batch width"], ...]) -> Int[Array, "*batch width"]:
    """How many entries of the last axis are ahead of each."""
    if keys[0].shape[-1] <= _COUNT_UP_TO:
        return _counted(keys)
    return jnp.argsort(_falling(keys), axis=-1).astype(jnp.int32)


def _counted(keys: tuple[Float[Array, "*batch width"], ...]) -> Int[Array, "*batch width"]:
    """By comparing every pair."""
    place = jnp.arange(keys[0].shape[-1], dtype=jnp.int32)
    ahead = place < place[:, None]
    for key in reversed(keys):
        mine, other = key[..., :, None], key[..., None, :]
        ahead = (other > mine) | ((other == mine) & ahead)
    return ahead.sum(axis=-1, dtype=jnp.int32)


def _falling(keys: tuple[Float[Array, "*batch width"], ...]) -> Int[Array, "*batch width"]:
    """Places in falling order, by sorting."""
    place = jnp.broadcast_to(jnp.arange(keys[0].shape[-1], dtype=jnp.int32), keys[0].shape)
    down = [-_signless_zero(key) for key in keys]
    return jax.lax.sort((*down, place), dimension=-1, is_stable=True, num_keys=len(keys))[-1]
