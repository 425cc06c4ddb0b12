"""Who computes the chunks of a sweep."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from himoe_theory import _checks

from ..workers import Shares, run_all
from .compute import Computed, compute
from .plan import Chunk

Executor = Callable[[Sequence[Chunk], Shares], Iterator[tuple[int, Computed]]]
"""Runs chunks and yields (place in the sequence, result) as they are done."""


@dataclasses.dataclass(frozen=True)
class Local:
    """Processes of this machine, a core each. When the iterator is left early, by an error or Ctrl-C, they end."""

    workers: int

    def __post_init__(self):
        _checks.count("workers", self.workers)

    def __call__(self, chunks: Sequence[Chunk], report: Shares) -> Iterator[tuple[int, Computed]]:
        """Computes the chunks."""
        return run_all(compute, chunks, self.workers, report, one_core_each=True)


def local(workers: int) -> Local:
    """The executor that has so many processes of this machine."""
    return Local(workers)
