"""Jobs in processes of their own, with the share done of each."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import queue
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import jax

from himoe_theory.plumbing.scratch import scratch

Job = TypeVar("Job")
Result = TypeVar("Result")
Done = TypeVar("Done")

Share = Callable[[float], None]
"""Called by a job with the share of it that is done."""

Shares = Callable[[Sequence[float]], None]
"""Called with the share done of every job."""

_SECONDS_BETWEEN_REPORTS = 0.2
_shares: Any = None  # in a worker: the queue of (place, share done)
_number = 0


def number() -> int:
    """Which of the workers with a core each this process is, from 0; 0 in any other."""
    return _number


class WorkerLost(ValueError):
    """A worker was killed, as a system does when memory runs out."""


def run_all(
    work: Callable[[Job, Share], Result],
    jobs: Sequence[Job],
    workers: int,
    report: Shares,
    *,
    one_core_each: bool = False,
) -> Iterator[tuple[int, Result]]:
    """Does `work`, a function of a module, on jobs side by side and yields (place, result) as they are done.

    **Arguments:** `one_core_each`: for many short jobs, where threads of several processes get into each other's way.
    When it is left early, by an error, Ctrl-C or the caller, the processes end at once.
    **Raises:** what a job raises; `WorkerLost` if a process was killed from outside.
    """
    # Started afresh, not forked: threads of jax do not survive a fork.
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    others = set(multiprocessing.active_children())
    turn = context.Value("i", 0) if one_core_each else None
    with scratch() as compiled:
        pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _begin, (messages, str(compiled), turn))
        yield from _ended_with(pool, others, _results(pool, work, jobs, messages, report))


def _ended_with(pool: ProcessPoolExecutor, others: set[Any], results: Iterator[Done]) -> Iterator[Done]:
    """The results; then, or when they end early, all processes but the `others` end."""
    try:
        yield from results
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
        if isinstance(error, BrokenProcessPool):
            raise WorkerLost(
                "A computing process ended without a result: too little memory, or a script that starts processes "
                'outside `if __name__ == "__main__":`.'
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _results(
    pool: ProcessPoolExecutor,
    work: Callable[[Job, Share], Result],
    jobs: Sequence[Job],
    messages: Any,
    report: Shares,
) -> Iterator[tuple[int, Result]]:
    shares = [0.0] * len(jobs)
    with _interrupts_held_back():
        pending: dict[Future[Result], int] = {pool.submit(_run, work, i, job): i for i, job in enumerate(jobs)}
    while pending:
        finished, _ = wait(pending, _SECONDS_BETWEEN_REPORTS, FIRST_COMPLETED)
        _collect(messages, shares)
        for future in finished:
            shares[pending[future]] = 1.0
        report(shares)
        for future in finished:
            yield pending.pop(future), future.result()


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits until the block has ended; processes that are started in it never see one.

    Ctrl-C reaches all processes, and the first is the one that ends the others. Half started, they would complain.
    """
    came: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()  # no other thread has handlers, or needs them
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number)) if in_main else None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # this is what processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if in_main:
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)
    if came:
        raise KeyboardInterrupt


def _collect(messages: Any, shares: list[float]) -> None:
    while True:
        try:
            place, share = messages.get_nowait()
        except queue.Empty:
            return
        shares[place] = max(shares[place], share)


# In the workers.


def _begin(messages: Any, compiled: str, turn: Any) -> None:
    global _shares, _number
    _shares = messages
    if turn is not None:
        with turn.get_lock():
            _number, turn.value = turn.value, turn.value + 1
        if hasattr(os, "sched_setaffinity"):  # before jax counts the cores that it has
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[_number % len(cores)]})
    # Jobs of equal shape compile once for all workers.
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", compiled)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    threading.Thread(target=_end_with_parent, args=(compiled,), daemon=True).start()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several may share one GPU


def _end_with_parent(compiled: str) -> None:
    """Otherwise a worker would outlive a parent that was killed, waiting for jobs that nobody sends, and what they
    compiled would stay."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        shutil.rmtree(compiled, ignore_errors=True)
        os._exit(1)


def _run(work: Callable[[Job, Share], Result], place: int, job: Job) -> Result:
    return work(job, lambda share: _shares.put((place, share)))
