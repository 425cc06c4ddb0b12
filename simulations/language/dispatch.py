"""How tokens reach their experts and come back: sorted by expert (dropless), in slots of fixed capacity, or all to all.

The three give equal numbers wherever the router keeps the same routes; they differ in arithmetic and memory:

- `dense`: every expert on every token, N T rows. The reference.
- `capacity`: the router's slots, N C rows, empty ones included; order as in [himoe-code].
- `sorted`: rows in the order of their expert, each expert's padded to whole tiles (`grouped.py`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from himoe_theory import Routing, from_dense

from ..mixture import with_widths
from .blocks import Parameters, activate, product
from .config import Config
from .grouped import Arrangement, arrange, collect, networks, spread, tile_rows
from .mesh import over_devices


class Experts(NamedTuple):
    """The experts of a layer: `parameters` holds `in` and `out`, stacked over experts."""

    config: Config
    parameters: Parameters
    compute: DTypeLike

    def apply(self, x: Float[Array, "experts rows dim"]) -> Float[Array, "experts rows dim"]:
        """Each expert on its own rows."""

        def one(p: Parameters, rows: Array) -> Array:
            return affine(p["out"], activate(self.config, affine(p["in"], rows, self.compute)), self.compute)

        return jax.vmap(one)({name: self.parameters[name] for name in ("in", "out")}, x)


def narrowed(config: Config, parameters: Parameters) -> Parameters:
    """The experts' parameters, with 0 in what leaves the hidden units that an expert of less than full width lacks."""
    weight = parameters["out"]["weight"]
    units = with_widths(config.arm.topology, weight.shape[1])
    if units is None:
        return parameters
    return {**parameters, "out": {**parameters["out"], "weight": jnp.where(units[:, :, None], weight, 0)}}


def affine(p: Parameters, x: Float[Array, "rows inputs"], compute: DTypeLike) -> Float[Array, "rows outputs"]:
    """One expert's linear map."""
    y = product(x, p["weight"], compute)
    return y + p["bias"] if "bias" in p else y


def dispatch(
    experts: Experts, x: Float[Array, "tokens dim"], routing: Routing, *, with_outputs: bool = False
) -> tuple[Float[Array, "tokens dim"], Float[Array, "tokens routes dim"] | None]:
    r"""$y_t = \sum_r w_{tr} f_{e_{tr}}(x_t)$ over the routes that the router kept.

    **Returns:** y, and with `with_outputs` each route's own output $f_e(x_t)$ (0 where dropped).
    """
    if experts.config.devices != (1, 1):
        return over_devices(experts, x, routing), None
    form = {"dense": _dense, "capacity": _capacity, "sorted": _sorted}[experts.config.dispatch]
    outputs = form(experts, x, routing)
    y = jnp.einsum("tr,trd->td", routing.weights.astype(outputs.dtype), outputs)
    return y, (outputs if with_outputs else None)


def _by_routes(
    routing: Routing,
) -> tuple[Int[Array, "tokens routes"], Bool[Array, "tokens routes"], Int[Array, "tokens routes"]]:
    """Experts, whether they are kept, and slots, route by route."""
    chosen = routing.experts
    return chosen, from_dense(routing.kept, chosen), from_dense(routing.slots, chosen)


def _dense(experts: Experts, x: Float[Array, "tokens dim"], routing: Routing) -> Float[Array, "tokens routes dim"]:
    n, routes = routing.partition.num_experts, routing.experts
    every = experts.apply(jnp.broadcast_to(x, (n, *x.shape)))
    chosen = jnp.take_along_axis(every.swapaxes(0, 1), routes[:, :, None], axis=1)
    return jnp.where(from_dense(routing.kept, routes)[:, :, None], chosen, 0)


def _capacity(experts: Experts, x: Float[Array, "tokens dim"], routing: Routing) -> Float[Array, "tokens routes dim"]:
    assert routing.capacity is not None  # `Config` has checked it
    chosen, kept, slots = _by_routes(routing)
    n, (tokens, routes) = routing.partition.num_experts, chosen.shape
    rows = n * routing.capacity
    place = jnp.where(kept, chosen * routing.capacity + slots, rows).astype(jnp.int32)
    number = jnp.arange(tokens * routes, dtype=jnp.int32)
    route = jnp.full((rows,), tokens * routes, jnp.int32).at[place.reshape(-1)].set(number, mode="drop")
    to = Arrangement(place, route, jnp.ones(n, jnp.int32))
    y = experts.apply(spread(x, to).reshape(n, routing.capacity, -1))
    return collect(y.reshape(rows, -1), to)


def _sorted(experts: Experts, x: Float[Array, "tokens dim"], routing: Routing) -> Float[Array, "tokens routes dim"]:
    chosen, kept, slots = _by_routes(routing)
    n = routing.partition.num_experts
    tile = tile_rows(chosen.size, n)
    to = arrange(chosen, slots, kept, n, tile, chosen.size)
    p = {name: experts.parameters[name] for name in ("in", "out")}
    rows = spread(x, to)
    return collect(networks(experts.config, jnp.dtype(experts.compute), tile, p, rows, to.tiles), to)
