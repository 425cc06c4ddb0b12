"""Who computes the chunks of a sweep."""

from collections.abc import Callable, Iterator, Sequence

from ..workers import Shares, run_all
from .compute import Computed, compute
from .plan import Chunk

Executor = Callable[[Sequence[Chunk], Shares], Iterator[tuple[int, Computed]]]
"""Runs chunks and yields (place in the sequence, result) as they are done."""


def local(workers: int) -> Executor:
    """Processes of this machine, a core each. When the iterator is left early, by an error or Ctrl-C, they end."""
    return lambda chunks, report: run_all(compute, chunks, workers, report, one_core_each=True)
