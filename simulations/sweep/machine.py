"""What this machine has: cores and memory that are free to use."""

import os
from collections.abc import Sequence
from pathlib import Path

from .plan import Chunk

PROCESS_BYTES = 2**29
"""What a process takes before its first chunk: Python, jax and compiled programs."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping: the system's estimate, or what a container leaves if that is less."""
    found = []
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    try:
        limit, used = (
            (root / f"sys/fs/cgroup/memory.{name}").read_text(encoding="ascii") for name in ("max", "current")
        )
        found.append(int(limit) - int(used))  # without a limit it says `max`
    except (OSError, ValueError):
        pass
    return max(0, min(found)) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def check_memory(chunks: Sequence[Chunk], memory: int) -> None:
    """**Raises:** `ValueError` if there is a chunk that this machine cannot hold."""
    largest = max(chunk.bytes for chunk in chunks)
    if largest > memory:
        cure = "Take fewer tokens (`training.batch`, `training.test_tokens`), experts, dimensions or outputs"
        raise ValueError(
            f"`design` must have chunks that fit in memory; one needs about {largest / 2**30:.3g} GiB, free are "
            f"{memory / 2**30:.3g}. {cure}, or a smaller `runs_per_chunk`."
        )


def workers_for(chunks: Sequence[Chunk], cores: int, memory: int) -> int:
    """How many chunks to run at once: one a core, as many as fit in memory, and at least one."""
    largest = max(chunk.bytes for chunk in chunks)
    return max(1, min(cores, len(chunks), memory // (PROCESS_BYTES + largest)))
