"""A model on several devices: the experts of a group on one device, tokens spread over all.

Two axes, `data` and `group`. Parameters of experts are cut along `group`, all others are on every device; sequences
are cut along both. XLA partitions everything but the experts' networks by itself, so that routing, loads and losses are
those of the whole batch. For the networks, tokens are gathered along `group` (grouped routing sends every token to
every group, so that none travels in vain), every device runs its own experts, and the sums return to the tokens' homes.
"""

import functools
import math
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from himoe_theory import Router, Routing, assign_slots, from_dense, to_dense

from .config import Config
from .grouped import arrange, collect, networks, spread, tile_rows
from .hosts import divide

if TYPE_CHECKING:
    from .dispatch import Experts

AXES = ("data", "group")
_TYPES = (AxisType.Auto, AxisType.Auto)
Tree = TypeVar("Tree")


@functools.cache
def mesh_of(devices: tuple[int, int]) -> Mesh:
    """The first devices that jax knows, as a mesh of (data, group); of several processes, all that they have.

    Devices of a process come one after another, so that a group axis no longer than their number stays inside it.
    **Raises:** `ValueError` if there are too few, or some processes would be left without.
    """
    found, wanted = jax.devices(), math.prod(devices)
    if len(found) < wanted:
        raise ValueError(
            f"`devices` must be at most as many as there are; got {devices[0]} x {devices[1]}, and there are "
            f"{len(found)}. XLA_FLAGS=--xla_force_host_platform_device_count=8 makes eight of one processor."
        )
    if jax.process_count() > 1 and len(found) > wanted:
        raise ValueError(
            f"`devices` must be all of the {jax.process_count()} processes, {len(found)}; got {devices[0]} x "
            f"{devices[1]}. Give a product of {len(found)}, or start fewer processes."
        )
    grid = np.asarray(found[: math.prod(devices)]).reshape(devices)
    return Mesh(grid, AXES, axis_types=_TYPES)


def _mapped_on(devices: tuple[int, int]) -> Mesh | AbstractMesh:
    """The mesh, or where devices are missing one without any: enough to plan, and `place` refuses to go further."""
    if len(jax.devices()) < math.prod(devices):
        return AbstractMesh(devices, AXES, axis_types=_TYPES)
    return mesh_of(devices)


def sharding_of(config: Config, tree: Any) -> Any:
    """Where the arrays of a training state go: those stacked over experts along `group`, all others everywhere."""
    mesh = mesh_of(config.devices)

    def where(path: tuple[Any, ...], _: Any) -> NamedSharding:
        keys = [str(getattr(key, "key", "")) for key in path]
        stacked = "moe" in keys and ("in" in keys or "out" in keys)
        return NamedSharding(mesh, PartitionSpec("group") if stacked else PartitionSpec())

    return jax.tree_util.tree_map_with_path(where, tree)


def place(config: Config, tree: Tree) -> Tree:
    """A state on the devices of its model; as it is if there is but one."""
    return tree if config.devices == (1, 1) else jax.tree.map(divide, tree, sharding_of(config, tree))


def constrain(config: Config, tree: Tree) -> Tree:
    """Inside a program: the state stays where `place` put it."""
    if config.devices == (1, 1):
        return tree
    return jax.lax.with_sharding_constraint(tree, sharding_of(config, tree))


def place_batch(config: Config, batch: np.ndarray) -> Array:
    """Micro-batches of sequences, sequences over all devices. Every host holds the whole batch and gives its part."""
    if config.devices == (1, 1):
        return jnp.asarray(batch)
    return divide(batch, NamedSharding(mesh_of(config.devices), PartitionSpec(None, AXES)))


def on_all(config: Config, array: np.ndarray) -> Array:
    """A host's array, whole on every device."""
    if config.devices == (1, 1):
        return jnp.asarray(array)
    return divide(array, NamedSharding(mesh_of(config.devices), PartitionSpec()))


def gather(config: Config, tree: Tree) -> Tree:
    """Inside a program: results whole on every device, so that every process can read them."""
    if config.devices == (1, 1):
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh_of(config.devices), PartitionSpec()))


def most_routes(router: Router, devices: int) -> int:
    """The most experts that a token can select on one of the devices that share them: of buffers for the worst case.

    Grouped routing says beforehand what a device receives; a free choice may fall on one device altogether.
    """
    partition, held = router.partition, router.partition.num_experts // devices
    quotas = router.selection.quotas(partition)
    if quotas is not None:
        together = partition.num_groups // devices
        return max(sum(quotas[first : first + together]) for first in range(0, partition.num_groups, together))
    return min(router.routes, held)


def over_devices(experts: "Experts", x: Float[Array, "tokens dim"], routing: Routing) -> Float[Array, "tokens dim"]:
    """$y_t = \\sum_r w_{tr} f_{e_{tr}}(x_t)$, every device its own experts; dropless, or what the router kept."""
    config, kind = experts.config, jnp.dtype(experts.compute)
    held = config.experts // config.devices[1]
    routes = most_routes(config.arm.router, config.devices[1])

    def on_device(p: Any, *of_tokens: Array) -> Array:
        x, chosen, kept, weights = (jax.lax.all_gather(part, "group", tiled=True) for part in of_tokens)
        own = chosen - jax.lax.axis_index("group").astype(chosen.dtype) * held
        kept &= (own >= 0) & (own < held)
        # Routes to other devices name no expert here: none of them stands in line.
        there = jnp.where(kept, own, held)
        own = jnp.where(kept, own, 0)
        tile = tile_rows(len(x) * routes, held)
        slots = from_dense(assign_slots(to_dense(kept, there, held), there), own)
        to = arrange(own, slots, kept, held, tile, len(x) * routes)
        outputs = collect(networks(config, kind, tile, p, spread(x, to), to.tiles), to)
        y = jnp.einsum("tr,trd->td", weights.astype(outputs.dtype), outputs)
        return jax.lax.psum_scatter(y, "group", tiled=True)

    tokens = PartitionSpec(AXES)
    mapped = jax.shard_map(
        on_device,
        mesh=_mapped_on(config.devices),
        in_specs=(PartitionSpec("group"), *[tokens] * 4),
        out_specs=tokens,
        check_vma=False,  # the loops of `networks` start from constants, which are the same on all devices
    )
    p = {name: experts.parameters[name] for name in ("in", "out")}
    chosen = routing.experts
    return mapped(p, x, chosen, from_dense(routing.kept, chosen), routing.weights)
