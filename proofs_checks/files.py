"""Files, whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, which becomes `path` if the block ends without an error.

    **Raises:** `ValueError` if the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise ValueError(f"`{path}` must be a file in a writable folder; got {error.strerror}.") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Writes a text file. **Raises:** `ValueError` if the folder cannot be written."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
