"""Runs one chunk and returns its measurements as NumPy arrays. The same in every process, local or not."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..data import Batch
from ..run import collect
from ..training import Program, Source
from .plan import Chunk, neutral, pieces

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Computed:
    """Measurements `[settings, seeds, ...]` without padding, and what is told apart from them: time and device."""

    arrays: Arrays
    seconds: float
    device: str
    """Kind and number of devices: another number rounds differently."""


def compute(chunk: Chunk, report: Callable[[float], None]) -> Computed:
    """Trains a chunk's runs. `report` is called with the share done."""
    began = time.perf_counter()
    # A process of another kind may have set these: a caller's float64 would change last bits.
    with _single_precision(), jax.numpy_dtype_promotion("standard"):
        seeds = chunk.padded_seeds
        taken = _evaluations(chunk, report)
        found = collect(chunk.members, chunk.data, chunk.training, seeds, taken, lambda record: None)
    # A label's assignment is an array of its own size; sweeps keep scalars and loads.
    found = found.drop_vars("assignment").isel(arm=slice(len(chunk.points)), seed=slice(len(chunk.seeds)))
    arrays = {str(name): np.ascontiguousarray(values) for name, values in found.data_vars.items()}
    devices = jax.local_devices()
    return Computed(arrays, time.perf_counter() - began, f"{devices[0].device_kind} x {len(devices)}")


def _single_precision() -> Any:
    """float64 off in this thread, whatever the process has set."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(False)
    from jax import experimental  # where older versions have it

    return experimental.enable_x64(False)


def _evaluations(chunk: Chunk, report: Callable[[float], None]) -> Iterator[tuple[Arrays, Batch]]:
    """Measurements and test batches at every record; batches are drawn in pieces that fit in memory."""
    seeds, members = chunk.padded_seeds, chunk.members
    parts = pieces(chunk.data, chunk.training, len(seeds))
    training = dataclasses.replace(chunk.training, records=chunk.training.records * parts)
    source = Source(neutral(chunk.data), training)
    program = Program(source, chunk.layer, members.gate, members.terms)
    mesh = _mesh(len(seeds), len(members.arms))
    keys = _place(mesh, jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32)), "seeds")
    truths = _place(mesh, Source(chunk.data, training).truths(seeds), "seeds")
    settings = _place(mesh, members.settings(), "settings")
    carry = _place(mesh, program.begin(seeds, settings, len(members.arms)), "seeds", "settings")
    test = source.test(truths, keys)
    yield program.evaluate(members.arms, carry, settings, test, keys), test
    for block in range(training.records):
        first = jnp.asarray(block * training.stride, jnp.int32)
        batches = source.block(truths, keys, first)
        carry = jax.block_until_ready(program.advance(carry, settings, batches, keys, first))
        report((block + 1) / training.records)
        if (block + 1) % parts == 0:
            yield program.evaluate(members.arms, carry, settings, test, keys), test


def _mesh(seeds: int, settings: int) -> Mesh:
    """This process's devices over settings first, since some programs take seeds one after another; then over seeds."""
    devices = jax.local_devices()
    across = math.gcd(settings, len(devices))
    along = math.gcd(seeds, len(devices) // across)
    return Mesh(np.array(devices[: along * across]).reshape(along, across), ("seeds", "settings"))


def _place(mesh: Mesh, tree: Any, *axes: str) -> Any:
    """The leading axes of every leaf spread over devices. With one device nothing is moved or committed."""
    return tree if mesh.size == 1 else jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))
