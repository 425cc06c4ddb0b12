"""What all commands do alike: read words, and end in one line, without a traceback, when something is wrong."""

import contextlib
import sys
from collections.abc import Callable, Generator, Iterable

from .files import one_line, reason


@contextlib.contextmanager
def told(name: str, interrupted: str | Callable[[], str]) -> Generator[None, None, None]:
    """One line and exit code 2 for bad input or what the system refuses, 130 for Ctrl-C, when it says `interrupted`."""
    try:
        yield
    except ValueError as error:
        _end(name, str(error), 2)
    except OSError as error:
        file = f"`{error.filename}`: " if error.filename else ""
        _end(name, f"the system refuses: {file}{reason(error)}.", 2)
    except MemoryError:
        _end(name, "there is too little memory.", 2)
    except KeyboardInterrupt:
        _end(name, interrupted if isinstance(interrupted, str) else interrupted(), 130)


def _end(name: str, line: str, code: int) -> None:
    print(f"{name}: {one_line(line)}", file=sys.stderr)
    sys.exit(code)


def words(option: str, given: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """All words of an option that may be given several times. **Raises:** `ValueError` if it was given without any."""
    found: list[str] = []
    for each in given:
        if not each:
            raise ValueError(f"`{option}` must be followed by at least one word; got none.")
        found += each
    return tuple(found)
