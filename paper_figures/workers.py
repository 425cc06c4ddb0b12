"""Parts of experiments in processes of their own, with the share done of each."""

import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax
import xarray as xr

from .plan import Experiment

Shares = Callable[[Sequence[float]], None]
"""Called with the share done of every part."""

_SECONDS_BETWEEN_REPORTS = 0.2
_shares: Any = None  # in a worker: the queue of (part, share done)


class WorkerLost(Exception):
    """A worker was killed, as a system does when memory runs out."""


def run_all(parts: Sequence[Experiment], workers: int, report: Shares) -> Iterator[tuple[int, xr.Dataset]]:
    """Runs parts side by side and yields (index, result) as they are done.

    When it is left early, by an error, Ctrl-C or the caller, the workers end at once.
    **Raises:** what a part raises; `WorkerLost` if a process was killed from outside.
    """
    # Started afresh, not forked: threads of jax do not survive a fork.
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    others = set(multiprocessing.active_children())
    compiled = tempfile.TemporaryDirectory(prefix="himoe-compiled-", ignore_cleanup_errors=True)
    pool = ProcessPoolExecutor(min(workers, len(parts)), context, _begin, (messages, compiled.name))
    try:
        yield from _results(pool, parts, messages, report)
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise WorkerLost("a computing process ended without a result (was there too little memory?)") from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        compiled.cleanup()


def _results(
    pool: ProcessPoolExecutor, parts: Sequence[Experiment], messages: Any, report: Shares
) -> Iterator[tuple[int, xr.Dataset]]:
    shares = [0.0] * len(parts)
    pending: dict[Future[xr.Dataset], int] = {pool.submit(_run, i, part): i for i, part in enumerate(parts)}
    while pending:
        finished, _ = wait(pending, _SECONDS_BETWEEN_REPORTS, FIRST_COMPLETED)
        _collect(messages, shares)
        for future in finished:
            shares[pending[future]] = 1.0
        report(shares)
        for future in finished:
            yield pending.pop(future), future.result()


def _collect(messages: Any, shares: list[float]) -> None:
    while True:
        try:
            part, share = messages.get_nowait()
        except queue.Empty:
            return
        shares[part] = max(shares[part], share)


# In the workers.


def _begin(messages: Any, compiled: str) -> None:
    global _shares
    _shares = messages
    # Parts that differ in their data alone, or repeat each other's shapes, compile once for all workers.
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", compiled)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several may share one GPU


def _end_with_parent() -> None:
    """Otherwise a worker would outlive a parent that was killed, waiting for parts that nobody sends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _run(index: int, part: Experiment) -> xr.Dataset:
    jax.config.update("jax_disable_most_optimizations", not part.optimise)
    return part.run(lambda share: _shares.put((index, share)))
