"""Expert networks on rows sorted by expert, in tiles that belong to one expert each: exact, nothing dropped.

A loop runs over the tiles that are in use, so that work follows the loads, however skewed; shapes do not depend on
them. The backward pass is written down because a loop of unknown length has no reverse mode, and so that the gradient
of an expert's weights is summed while they are at hand.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from himoe_theory import to_dense

from .blocks import Parameters, activate, dot, transposed, wide
from .config import Config

TILE = 256
"""Rows of a tile, at most. Measured on a CPU: 128, 256 and 512 differ by less than runs do; see docs/decisions."""


class Arrangement(NamedTuple):
    """Where routes and rows are. Rows are those of a buffer in which expert e has `tiles[e]` whole tiles, in turn."""

    place: Int[Array, "tokens routes"]
    """Row of each route; the number of rows where the route was dropped."""
    route: Int[Array, " rows"]
    """Route of each row (token · routes + rank); the number of routes where the row is empty."""
    tiles: Int[Array, " experts"]


def tile_rows(rows: int, experts: int) -> int:
    """Rows of a tile: a power of two, small where an expert has few rows and large tiles would be mostly empty."""
    size = 8
    while size < TILE and 4 * size * experts <= rows:
        size *= 2
    return size


def arrange(
    chosen: Int[Array, "tokens routes"],
    slots: Int[Array, "tokens routes"],
    kept: Bool[Array, "tokens routes"],
    experts: int,
    tile: int,
    most: int,
) -> Arrangement:
    """Sorts routes by expert: slots are places in its queue already. `most`: kept routes in the worst case."""
    tokens, routes = chosen.shape
    rows = (-(-most // tile) + experts) * tile
    counts = to_dense(kept, chosen, experts).sum(axis=0, dtype=jnp.int32)
    tiles = -(-counts // tile)
    start = (jnp.cumsum(tiles, dtype=jnp.int32) - tiles) * tile
    place = jnp.where(kept, start[chosen] + slots, rows).astype(jnp.int32)
    number = jnp.arange(tokens * routes, dtype=jnp.int32)
    route = jnp.full((rows,), tokens * routes, jnp.int32).at[place.reshape(-1)].set(number, mode="drop")
    return Arrangement(place, route, tiles)


def _take(x: Float[Array, "count dim"], index: Int[Array, "..."]) -> Float[Array, "... dim"]:
    return x.at[index].get(mode="fill", fill_value=0)


@jax.custom_vjp
def spread(x: Float[Array, "tokens dim"], to: Arrangement) -> Float[Array, "rows dim"]:
    """Each row's token; 0 in empty rows. Its gradient gathers too: a scatter would be slower and in no fixed order."""
    return _take(x, to.route // to.place.shape[1])


def _spread_forward(x: Array, to: Arrangement):
    return spread(x, to), to


def _spread_backward(to: Arrangement, g: Array):
    return _take(g, to.place).sum(axis=1), None


spread.defvjp(_spread_forward, _spread_backward)


@jax.custom_vjp
def collect(y: Float[Array, "rows dim"], to: Arrangement) -> Float[Array, "tokens routes dim"]:
    """Each route's row; 0 where the route was dropped."""
    return _take(y, to.place)


def _collect_forward(y: Array, to: Arrangement):
    return collect(y, to), to


def _collect_backward(to: Arrangement, g: Array):
    return _take(g.reshape(-1, g.shape[-1]), to.route), None


collect.defvjp(_collect_forward, _collect_backward)


def _tile(x: Array, number: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, number * size, size)


def _place(x: Array, tile: Array, number: Array, size: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, tile, number * size, 0)


def _over_experts(tiles: Int[Array, " experts"], body: Any, carry: Any) -> Any:
    """`body(expert, first, last, carry)` for every expert, with the range of its tiles."""
    last = jnp.cumsum(tiles, dtype=jnp.int32)
    return jax.lax.fori_loop(
        jnp.int32(0), jnp.int32(tiles.shape[0]), lambda e, c: body(e, last[e] - tiles[e], last[e], c), carry
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def networks(
    config: Config,
    kind: jnp.dtype,
    size: int,
    p: Parameters,
    x: Float[Array, "rows dim"],
    tiles: Int[Array, " experts"],
) -> Float[Array, "rows dim"]:
    """Each expert's network on its tiles of `size` rows. `p`: `in` and `out`, stacked over experts. `kind`: type of the
    factors of products."""
    return _forward(config, kind, size, p, x, tiles)[0]


def _forward(config: Config, kind: jnp.dtype, size: int, p: Parameters, x: Array, tiles: Array):
    def expert(e: Array, first: Array, last: Array, carry: tuple[Array, Array]):
        own = _own(p, e, kind)

        def tile(t: Array, carry: tuple[Array, Array]):
            y, hidden = carry
            inner = _affine(own["in"], _tile(x, t, size), kind)
            outer = _affine(own["out"], activate(config, inner), kind)
            return _place(y, outer, t, size), _place(hidden, inner, t, size)

        return jax.lax.fori_loop(first, last, tile, carry)

    inner = p["in"]["weight"].shape[-1]
    y, hidden = _over_experts(tiles, expert, (jnp.zeros_like(x), jnp.zeros((x.shape[0], inner), x.dtype)))
    return y, (p, x, hidden, tiles)


def _own(p: Parameters, expert: Array, kind: jnp.dtype) -> Parameters:
    """One expert's parameters, its weights rounded once for all of its tiles."""
    own = jax.tree.map(lambda array: array[expert], p)
    return {name: part | {"weight": part["weight"].astype(kind)} for name, part in own.items()}


def _affine(p: Parameters, x: Array, kind: jnp.dtype) -> Array:
    y = dot(x, p["weight"], kind)
    return y + p["bias"] if "bias" in p else y


def _backward(config: Config, kind: jnp.dtype, size: int, saved: tuple, g: Array):
    p, x, hidden, tiles = saved

    def expert(e: Array, first: Array, last: Array, carry: tuple[Array, Parameters]):
        own = _own(p, e, kind)
        back_in, back_out = (transposed(own[name]["weight"], kind) for name in ("in", "out"))

        def tile(t: Array, carry: tuple[Array, dict[str, Array], Parameters]):
            dx, weights, biases = carry
            rows, above = _tile(x, t, size), _tile(g, t, size)
            activated, activation = jax.vjp(functools.partial(activate, config), _tile(hidden, t, size))
            (inner,) = activation(dot(above, back_out, kind))
            weights = {
                "in": weights["in"] + dot(transposed(rows, kind), inner, kind),
                # Its transpose: of the two factors the narrower one is turned round, and the wide one is not.
                "out": weights["out"] + dot(transposed(above, kind), activated, kind),
            }
            added = {"in": inner.sum(axis=0), "out": above.sum(axis=0)}
            biases = {name: sums + added[name] for name, sums in biases.items()}
            return _place(dx, dot(inner, back_in, kind), t, size), weights, biases

        dx, gradients = carry
        zeros = {
            "in": jnp.zeros_like(own["in"]["weight"], wide(kind)),
            "out": jnp.zeros_like(back_out, wide(kind)),
        }
        biases = {name: jnp.zeros_like(part["bias"]) for name, part in own.items() if "bias" in part}
        dx, weights, biases = jax.lax.fori_loop(first, last, tile, (dx, zeros, biases))
        weights["out"] = weights["out"].T
        sums = {name: {"weight": sum} | ({"bias": biases[name]} if biases else {}) for name, sum in weights.items()}
        return dx, jax.tree.map(lambda all_, one: all_.at[e].set(one), gradients, sums)

    dx, gradients = _over_experts(tiles, expert, (jnp.zeros_like(x), jax.tree.map(jnp.zeros_like, p)))
    return gradients, dx, None


networks.defvjp(_forward, _backward)
