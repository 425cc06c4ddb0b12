"""How many of a sweep's chunks this machine holds at once."""

from collections.abc import Sequence

from .plan import Chunk

PROCESS_BYTES = 2**29
"""What a process takes before its first chunk: Python, jax and compiled programs."""


def check_memory(chunks: Sequence[Chunk], memory: int, workers: int = 1) -> None:
    """**Raises:** `ValueError` if so many workers would hold chunks that do not fit in this machine together."""
    largest = max((chunk.bytes for chunk in chunks), default=0)
    at_once = min(workers, len(chunks))
    if largest * at_once <= memory:
        return
    needs, has = (f"{size / 2**30:.3g}" for size in (largest, memory))
    cure = "Take fewer tokens (`training.batch`, `training.test_tokens`), experts, dimensions, outputs or records"
    if largest <= memory:
        rule, cure = f"`workers` must have room for a chunk each; got {at_once} workers", "Take fewer workers"
    else:
        rule, cure = "`design` must have chunks that fit in memory", f"{cure}, or a smaller `runs_per_chunk`"
    raise ValueError(f"{rule}; one chunk needs about {needs} GiB, free are {has}. {cure}.")


def workers_for(chunks: Sequence[Chunk], cores: int, memory: int) -> int:
    """How many chunks to run at once: one a core, as many as fit in memory, and at least one."""
    largest = max(chunk.bytes for chunk in chunks)
    return max(1, min(cores, len(chunks), memory // (PROCESS_BYTES + largest)))
