"""What all commands do alike: read words, and end in one line, without a traceback, when something is wrong."""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from .files import one_line, reason

Parsed = TypeVar("Parsed")
_BOX = re.compile("[╭╮╰╯│]")
_RULE = re.compile("─{3,}")
_OPTION = re.compile("(?<= )--[a-z-]+(?= [A-Z{])")


def parsed(name: str, parse: Callable[[], Parsed]) -> Parsed:
    """What a parser of the command line makes of it. Its complaint, a box of several paragraphs, becomes one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = parse()
    except SystemExit as error:
        if error.code == 2:
            _end(name, _complaint(name, said.getvalue()), 2)
        raise
    return found


def _complaint(name: str, box: str) -> str:
    """The first paragraph in the box, and what else could have been meant."""
    body = "\n".join(_BOX.sub(" ", line) for line in box.splitlines() if not line.startswith("╭"))
    first, *others = [" ".join(part.split()).rstrip(".") for part in _RULE.split(body)]
    for part in others:
        alike = dict.fromkeys(_OPTION.findall(part)) if part.startswith("Perhaps") else ()
        if alike:
            first += f"; perhaps you meant {', '.join(alike)}"
        elif part.startswith("Available"):
            first += f"; {part[0].lower()}{part[1:]}"
    return f"{first or 'the options cannot be read'}. See `{name} --help`."


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
