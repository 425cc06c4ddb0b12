"""Files that appear under their names whole or not at all, and in place of nothing but regular files.

A file is written under another name in its folder, made exclusively and through no link; it is brought to the disk and
renamed, and so is the new name. A link, a device, a pipe or a folder is refused, never written to and never replaced.
What the system refuses is a `ValueError` of one line that names the file.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Any

_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer would hold the reader for ever
_LEFT = re.compile(r"\..*\.[0-9a-f]{16}\.part", re.DOTALL)
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def one_line(text: object) -> str:
    """Text with its line breaks and other unprintable characters escaped: names of files may hold any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def reason(error: BaseException) -> str:
    """What an error says, as one line without a full stop."""
    text = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "") or type(error).__name__
    return one_line(text).rstrip(".")


def check(path: Path, *, replace: bool = True) -> None:
    """`ValueError` if something other than a regular file has this name; if not `replace`, if anything has."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(path, error) from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"`{path}` must be a file; it is {_kind(mode)}.")
    if not replace:
        raise ValueError(f"`{path}` must be a new file; there is one. Replace it with `--force`, or give another name.")


def writable(path: Path, *, replace: bool = True) -> None:
    """`ValueError` now rather than after the work, if `whole` would refuse; makes the folder."""
    with whole(path, replace=replace, keep=False):
        pass


@contextlib.contextmanager
def whole(path: Path, *, replace: bool = True, keep: bool = True) -> Generator[Path, None, None]:
    """A new empty file in the same folder, which becomes `path` if the block ends without an error; see `check`.

    Its mode is what the user's mask leaves, whatever the block does. **Arguments:** `keep`: if not, it is removed.
    **Raises:** `ValueError` if the system refuses.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check(path, replace=replace)
        temporary = path.with_name(f".{path.name[:32]}.{secrets.token_hex(8)}.part")
        mode = _make(temporary)
        yield temporary
        if keep:
            _to_disk(temporary, mode)
            check(path, replace=replace)  # others may have written meanwhile
            temporary.replace(path)
            sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def write(path: Path, content: bytes | str, *, replace: bool = True) -> None:
    """The file has this content or stays as it was, whenever the machine stops. Text is UTF-8; see `whole`."""
    with whole(path, replace=replace) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def append(path: Path, line: str) -> None:
    """Adds a line to a regular file, made if there is none. **Raises:** `ValueError` if the system refuses."""
    with _opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW) as handle:
        os.write(handle, f"{line}\n".encode())


@contextlib.contextmanager
def locked(path: Path, held: str, *, make: bool = True) -> Generator[None, None, None]:
    """Holds a lock file. The system lets go when the process ends, however it ends.

    **Arguments:** `held`: what to say if another process holds it. `make`: make the file if there is none.
    **Raises:** `ValueError` if another process holds it, or if the system refuses.
    """
    with _opened(path, os.O_RDWR | (os.O_CREAT if make else 0) | os.O_NOFOLLOW) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(held) from error
        except OSError as error:
            raise ValueError(f"`{path}` must be a file that can be locked; got {reason(error)}.") from error
        yield


def read(path: Path) -> bytes:
    """The content of a regular file, or of one that a link leads to.

    **Raises:** `ValueError` if there is none or it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _OPEN)
        with open(handle, "rb") as file:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError(f"`{path}` must be a file; it is {_kind(mode)}.")
            return file.read()
    except FileNotFoundError as error:
        raise ValueError(f"`{path}` must be a file; there is none.") from error
    except OSError as error:
        raise ValueError(f"`{path}` must be a file that can be read; got {reason(error)}.") from error


def read_json(path: Path) -> Any:
    """The values of a JSON file. **Raises:** `ValueError` if it cannot be read, or is none."""
    content = read(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`{path}` must be JSON; it cannot be read: {reason(error)}.") from error


def names(folder: Path) -> list[str]:
    """What a folder holds, sorted; nothing if there is none. **Raises:** `ValueError` if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(f"`{folder}` must be a folder that can be read; got {reason(error)}.") from error


def remove(path: Path) -> None:
    """Removes a folder with all it holds, a file, or a link but not what it leads to. **Raises:** `OSError`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers left; only who holds the folder's lock may. What cannot be removed stays."""
    for name in names(folder):
        if _LEFT.fullmatch(name):
            with contextlib.suppress(OSError):
                remove(folder / name)


def sync(folder: Path) -> None:
    """Brings the names in a folder to the disk. **Raises:** `OSError`."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make(temporary: Path) -> int:
    """Makes a file that was not there. **Returns:** the mode that the user's mask leaves."""
    handle = os.open(temporary, os.O_WRONLY | _NEW, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def _to_disk(temporary: Path, mode: int) -> None:
    """Libraries may have replaced the file by one of their own, with a mode of its own."""
    handle = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | _OPEN)
    try:
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Generator[int, None, None]:
    check(path)
    try:
        handle = os.open(path, flags | _OPEN, 0o666)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _kind(mode: int) -> str:
    return next((name for is_it, name in _KINDS if is_it(mode)), "a device")


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"`{path}` must be a file in a writable folder; got {reason(error)}.")
