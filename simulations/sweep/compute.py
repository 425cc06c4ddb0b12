"""Runs one chunk and returns its measurements as NumPy arrays. The same in every process, local or not."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .. import provenance, workers
from ..data import Batch
from ..events import check as check_events
from ..events import happen
from ..run import collect
from ..training import Carry, Measured, stack
from .plan import Chunk, pieces

Arrays = dict[str, np.ndarray]
POINT, SEED, PARTNERS = "design_point", "design_seed", "design_partners"
"""Arrays of a chunk that say which run each of its entries is, and beside which it is judged."""


@dataclasses.dataclass(frozen=True)
class Computed:
    """Measurements `[runs, ...]` without padding, and what is told apart from them: time, and what made them."""

    arrays: Arrays
    seconds: float
    made_by: Mapping[str, str]


def compute(chunk: Chunk, report: Callable[[float], None]) -> Computed:
    """Trains a chunk's runs. `report` is called with the share done."""
    began = time.perf_counter()
    # A process of another kind may have set these: a caller's float64 would change last bits.
    with _single_precision(), jax.numpy_dtype_promotion("standard"):
        router = chunk.rows[0].settings[0].arm.router
        found = collect(router, _evaluations(chunk, report), lambda record: None)
    runs = [(row, column, point) for row, one in enumerate(chunk.rows) for column, point in enumerate(one.points)]
    rows, columns, points = (np.asarray(part, np.int64) for part in zip(*runs, strict=True))
    del found["assignment"]  # a label's assignment is an array of its own size; sweeps keep scalars and loads
    arrays = {name: np.ascontiguousarray(values[rows, columns]) for name, values in found.items()}
    arrays |= {POINT: points, SEED: np.asarray([chunk.rows[row].seed for row in rows], np.int64)}
    arrays[PARTNERS] = np.asarray([place for one in chunk.rows for place in one.partners], np.int64)
    brought = {} if chunk.of is None else chunk.of[0].hashes_brought()
    return Computed(arrays, time.perf_counter() - began, {**_made_by(), **brought})


@functools.cache
def _made_by() -> Mapping[str, str]:
    """Once a process: files that change later are not what it runs."""
    return provenance.made_by()


def _single_precision() -> Any:
    """float64 off in this thread, whatever the process has set."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(False)
    from jax import experimental  # where older versions have it

    return experimental.enable_x64(False)


def _evaluations(chunk: Chunk, report: Callable[[float], None]) -> Iterator[tuple[Measured, Batch]]:
    """Measurements and test batches at every record; batches are drawn in pieces that fit in memory."""
    rows, program = chunk.padded, chunk.program
    seeds, width = [row.seed for row in rows], len(rows[0].settings)
    data, training = program.source.data, program.source.training
    parts = pieces(data, training, len(rows))
    finer = dataclasses.replace(training, records=training.records * parts)
    source = dataclasses.replace(program.source, training=finer)
    program = dataclasses.replace(program, source=source)
    check_events(program.events, training.stride)
    mesh = _mesh(len(rows), width)
    keys = _place(mesh, jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32)), "rows")
    drawn = [row.data.truth(np.random.default_rng((row.seed, 0))) for row in rows]
    truths = _place(mesh, jax.tree.map(lambda *one: jnp.asarray(np.stack(one)), *drawn), "rows")
    numbers = [[(setting.arm, setting.training.learning_rate) for setting in row.settings] for row in rows]
    settings = _place(mesh, stack(numbers, program.terms), "rows", "settings")
    layers = [[setting.layer for setting in row.settings] for row in rows]
    carry = _place(mesh, program.begin_with(layers, seeds, settings), "rows", "settings")

    carry = happen(program.events, carry, None, 0)

    @functools.cache
    def test() -> Batch:
        return source.test(truths, keys)

    def measured(carry: Carry, done: int) -> tuple[Measured, Batch]:
        return program.evaluate(carry, settings, test(), keys, done), test()

    # Workers compile what they first need, and find in their common cache what another has compiled. So that they do
    # not all compile the same, every other one trains before it measures.
    start, trains_first = carry, workers.number() % 2 == 1
    if not trains_first:
        yield measured(start, 0)
    for block in range(source.training.records):
        first = jnp.asarray(block * source.training.stride, jnp.int32)
        batches = source.block(truths, keys, first)
        carry = jax.block_until_ready(program.proceed(carry, settings, batches, keys, first))
        report((block + 1) / source.training.records)
        if trains_first and block == 0:
            yield measured(start, 0)
        if (block + 1) % parts == 0:
            yield measured(carry, (block + 1) * source.training.stride)


def _mesh(rows: int, settings: int) -> Mesh:
    """This process's devices over settings first, since some programs take rows one after another; then over rows."""
    devices = jax.local_devices()
    across = math.gcd(settings, len(devices))
    along = math.gcd(rows, len(devices) // across)
    return Mesh(np.array(devices[: along * across]).reshape(along, across), ("rows", "settings"))


def _place(mesh: Mesh, tree: Any, *axes: str) -> Any:
    """The leading axes of every leaf spread over devices. With one device nothing is moved or committed."""
    return tree if mesh.size == 1 else jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))
