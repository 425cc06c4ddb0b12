"""Several processes that train one model: each holds some of the devices, all run the same program on the same text.

Process 0 leads: it alone shows progress and writes results. Checkpoints are written by all into one folder that all of
them see, so that a run is resumed by any number of processes with the same mesh.
"""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..provenance import difference, short


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Makes the devices of several processes one machine; nothing without `coordinator`. Before anything is computed.

    **Raises:** `ValueError` if there is no coordinator for the numbers, or nothing can be reached there.
    """
    if coordinator is None:
        if processes is not None or process is not None:
            raise ValueError(f"`processes` and `process` need `coordinator`; got {processes} and {process} without.")
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError(f"`coordinator` must be HOST:PORT of process 0; got {coordinator!r}.")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"`coordinator` must be HOST:PORT of process 0; got {coordinator!r}: {reason}") from error


def leads() -> bool:
    """Whether this is the process that writes; true of a process alone."""
    return jax.process_index() == 0


def wait(place: str) -> None:
    """Until all processes have come to this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def any_of_all(here: bool) -> bool:
    """Whether it is so in any process: all of them get the same answer, and all must ask."""
    if jax.process_count() == 1:
        return here
    return bool(np.any(multihost_utils.process_allgather(np.asarray(here))))


def check_equal(configuration: Any) -> None:
    """**Raises:** `ValueError`, in all processes, naming the first of its JSON fields that differs between two."""
    if jax.process_count() == 1:
        return
    text = np.frombuffer(json.dumps(configuration, sort_keys=True).encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.asarray(text.size))))
    padded = np.full(longest, ord(" "), np.uint8)
    padded[: text.size] = text
    first, *others = (json.loads(bytes(row)) for row in np.asarray(multihost_utils.process_allgather(padded)))
    for process, other in enumerate(others, start=1):
        differs = difference(first, other)
        if differs is not None:
            name, leading, own = differs
            got = f"process {process} has {short(own)}, process 0 {short(leading)}"
            raise ValueError(f"`{name}` must be equal in all processes; {got}. Start all with the same options.")


def divide(leaf: Any, cut: jax.sharding.Sharding) -> jax.Array:
    """An array that every process holds whole, as one over the devices of all: each gives the parts of its own."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(divide(jax.random.key_data(leaf), cut))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, cut, lambda part: whole[part])
