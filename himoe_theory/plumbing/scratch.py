"""Folders for what is needed while a process runs, which even a killed one does not leave for ever."""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from pathlib import Path

from . import files

_PREFIX, _LOCK = "himoe-scratch-", "lock"


@contextlib.contextmanager
def scratch() -> Generator[Path, None, None]:
    """A folder of this process in the system's temporary folder, removed at the end.

    A killed process cannot remove its own: the next one that asks for a folder does. It tells by a lock, which the
    system lets go when a process ends, however it ends.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    with files.locked(folder / _LOCK, f"`{folder}` must belong to one process."):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(where: Path) -> None:
    """Folders of this user that hold a lock file which nobody holds. Between making a folder and its lock, there is
    none."""
    for name in files.names(where):
        folder = where / name
        if not name.startswith(_PREFIX) or not _own(folder):
            continue
        with contextlib.suppress(ValueError), files.locked(folder / _LOCK, "in use", make=False):
            shutil.rmtree(folder, ignore_errors=True)


def _own(folder: Path) -> bool:
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
