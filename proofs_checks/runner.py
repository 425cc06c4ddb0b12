"""Claims examined side by side in processes, and results in the order in which they are done."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from .claims import CLAIMS
from .ledger import Claim, Effort, examine
from .precision import compile_plainly
from .record import Record, record

ALONE = 3
"""Up to so many claims are examined in this process: starting others takes longer."""


class WorkerLost(Exception):
    """A process was killed, as a system does when memory runs out."""


def run(claims: Sequence[Claim], effort: Effort, workers: int | None = None) -> Iterator[Record]:
    """Examines the claims. Left early, by an error, Ctrl-C or the caller, the processes end at once.

    **Arguments:** `workers`: processes; as many as there are cores, at most 8, if not given.
    **Raises:** `WorkerLost` if a process was killed from outside.
    """
    workers = workers or min(_cores(), 8)
    if len(claims) <= ALONE or workers == 1:
        for claim in claims:
            yield record(examine(claim, effort))
        return
    # Started afresh, not forked: threads of jax do not survive a fork.
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(workers, len(claims)), multiprocessing.get_context("spawn"), _begin)
    try:
        for done in as_completed([pool.submit(_examine, claim.id, effort) for claim in claims]):
            yield done.result()
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise WorkerLost("a process ended without a result (was there too little memory?)") from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin() -> None:
    compile_plainly()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the first one ends the others


def _examine(name: str, effort: Effort) -> Record:
    """By id, as checks themselves cannot be sent to another process."""
    return record(examine(next(claim for claim in CLAIMS if claim.id == name), effort))
