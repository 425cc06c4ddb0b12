"""What this machine has, and what a run takes."""

import os
from pathlib import Path

from .training import Setting

_ARRAYS = 16  # a run's arrays of tokens × experts that live at the same time, about
_MEASURED = 30  # numbers of a record, about, besides those of experts


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


def run_bytes(setting: Setting) -> int:
    """Memory that one run takes, estimated: arrays of tokens × experts, the tokens, and parameters with moments."""
    experts, data = setting.arm.router.partition.num_experts, setting.data
    tokens = max(setting.training.batch, setting.training.test_tokens)
    return (
        4
        * setting.arm.topology.depth
        * (_ARRAYS * tokens * experts * data.outputs + 2 * tokens * data.dim + 4 * experts * data.dim * data.outputs)
    )


def record_bytes(setting: Setting) -> int:
    """Memory of the measurements of one run."""
    experts = setting.arm.router.partition.num_experts
    return 4 * (setting.training.records + 1) * (_MEASURED + experts * (2 + setting.data.num_labels))


def batch_bytes(setting: Setting) -> int:
    """Memory of the batches of one step and seed."""
    return 4 * setting.training.batch * (setting.data.dim + setting.data.outputs + 1)


def check_fits(called: str, needed: int, cure: str) -> None:
    """**Raises:** `ValueError` with the estimate for what this machine cannot hold, and the cure."""
    memory = available_memory()
    if needed > memory:
        estimate = f"{needed / 2**30:.3g} GiB, free are {memory / 2**30:.3g}"
        raise ValueError(f"{called} must fit in memory; got about {estimate}. {cure}.")
