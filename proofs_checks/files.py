"""Text files, whole or not at all."""

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Writes a text file, by way of a temporary name. **Raises:** `ValueError` if the folder cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ValueError(f"`{path}` must be a file in a writable folder; got {error.strerror}.") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
