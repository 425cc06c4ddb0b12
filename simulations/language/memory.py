"""Memory that a step frees is kept for the next: its buffers are one large block, and fresh pages cost time."""

import ctypes
import sys

# Names and numbers of glibc's `mallopt`.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tells the C library of this process to keep freed memory: large blocks come from its heap, which is not trimmed.

    Same as `MALLOC_MMAP_MAX_=0` and kin in the environment, but for this process alone. Commands call it, never the
    library; numbers do not depend on it. **Returns:** whether it took effect (it does with glibc alone).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _PAD))
    return all(mallopt(name, value) == 1 for name, value in wanted)
