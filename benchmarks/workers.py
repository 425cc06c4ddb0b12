"""Single-thread processes, one pinned to each core, that work at the same time when told to."""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
}


class Timed(NamedTuple):
    """What a process did: its result, and what it took in seconds (by the clock, and of its core) and in MiB."""

    value: Any
    seconds: float
    core_seconds: float
    peak_mib: float


def _serve(pipe: Connection, core: int, make: Callable[..., Callable[..., Any]], given: tuple) -> None:
    os.sched_setaffinity(0, {core})
    work = make(*given)
    pipe.send("ready")
    while (call := pipe.recv()) is not None:
        clock, own = time.perf_counter(), time.process_time()
        value = work(*call)
        took = time.perf_counter() - clock, time.process_time() - own
        pipe.send(Timed(value, *took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


class Pair:
    """A process a core, each with what `make(*given)` returned there; `run` calls them at the same time.

    `make` imports what it needs itself: the environment that keeps a library to one thread is set before.
    """

    def __init__(self, cores: list[int], make: Callable[..., Callable[..., Any]], *given: Any):
        context = multiprocessing.get_context("spawn")
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(ONE_THREAD)
        self._members = []
        for core in cores:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, core, make, given), daemon=True)
            process.start()
            self._members.append((process, ours))
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        for _, pipe in self._members:
            pipe.recv()

    def run(self, *calls: tuple) -> list[Timed]:
        """One call's arguments for each process, or the same for all."""
        calls = calls if len(calls) == len(self._members) else calls * len(self._members)
        for (_, pipe), call in zip(self._members, calls, strict=True):
            pipe.send(call)
        return [pipe.recv() for _, pipe in self._members]

    def close(self) -> None:
        """Ends the processes."""
        for process, pipe in self._members:
            pipe.send(None)
            process.join()
