"""Text that every machine has: the source of the running Python's standard library, as bytes.

Three domains: code, docstrings, and C headers where they are installed. Each byte is tagged; a docstring stays where it
stands in its file. What differs between two machines with the same Python (tests that some systems leave out, build
settings, installed packages) is left out, and so are tables (character maps, help texts). At most `PYTHON_BYTES` and
`HEADER_BYTES` are taken, of files in the order of a hash of their names; one file in ten is for validation.
"""

import ast
import functools
import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .corpus import Corpus, Part

PYTHON_BYTES = 6 * 2**20
HEADER_BYTES = 2**20
DOMAINS = ("code", "docstrings", "headers")
CODE, DOCSTRINGS, HEADERS = range(3)

_LEFT_OUT = frozenset(
    "site-packages dist-packages test tests idle_test __pycache__ _bundled encodings pydoc_data lib2to3".split()
)
_MACHINE = ("config-", "_sysconfigdata", "pyconfig")
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_SPLIT = 10
_END = b"\0"
"""After every file: a byte that source text does not have."""

_Tagged = tuple[bytes, np.ndarray]
"""A file and the domains of its bytes."""


@functools.cache
def library_text() -> Corpus:
    """The corpus of the running Python, read once a process (about 3 s).

    **Raises:** `ValueError` if no source files are found (a Python without its library's sources).
    """
    paths = sysconfig.get_paths()
    return read_text(Path(paths["stdlib"]), Path(paths["include"]))


def read_text(library: Path, include: Path) -> Corpus:
    """The corpus of a folder of Python files and a folder of headers. **Raises:** `ValueError` if a part is empty."""
    kept: dict[bool, list[_Tagged]] = {False: [], True: []}
    files: list[dict[str, Any]] = []
    for folder, suffix, most in ((library, ".py", PYTHON_BYTES), (include, ".h", HEADER_BYTES)):
        taken = 0
        for name, path in _files(folder, suffix):
            content = path.read_bytes()
            tags = _tag(content) if suffix == ".py" else np.full(len(content), HEADERS, np.uint8)
            if tags is None or not content or _END in content:
                continue
            if taken + len(content) > most:
                break
            taken += len(content)
            held_out = _draw(name) % _SPLIT == 0
            kept[held_out].append((content + _END, np.append(tags, tags[-1])))
            digest = hashlib.sha256(content).hexdigest()
            files.append({"file": name, "bytes": len(content), "sha256": digest, "validation": held_out})
    for held_out, files_of_part in kept.items():
        if not files_of_part:
            part = "validation" if held_out else "training"
            raise ValueError(f"`{library}` must hold Python files for {part}; got none of {len(files)} usable files.")
    listing = "\n".join(f"{file['file']} {file['sha256']}" for file in files)
    manifest = {
        "source": f"standard library of Python {platform.python_version()}",
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "bytes": sum(file["bytes"] for file in files),
        "files": files,
    }
    headers = any(file["file"].endswith(".h") for file in files)
    return Corpus(_part(kept[False]), _part(kept[True]), 256, "byte", DOMAINS if headers else DOMAINS[:2], manifest)


def _part(files: list[_Tagged]) -> Part:
    content = b"".join(text for text, _ in files)
    return Part(np.frombuffer(content, np.uint8), np.concatenate([tags for _, tags in files]))


def _draw(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _files(folder: Path, suffix: str) -> list[tuple[str, Path]]:
    """Names inside the folder and paths, in an order that no machine decides."""
    found = {}
    for where, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if name not in _LEFT_OUT and not name.startswith(_MACHINE)]
        for name in names:
            if name.endswith(suffix) and not name.startswith(_MACHINE):
                path = Path(where) / name
                found[path.relative_to(folder).as_posix()] = path
    return sorted(found.items(), key=lambda item: (_draw(item[0]), item[0]))


def _tag(content: bytes) -> UInt8[np.ndarray, " bytes"] | None:
    """Domain of every byte of a Python file; `None` if it is not UTF-8 or does not parse."""
    try:
        content.decode("utf-8")
        tree = ast.parse(content)
    except (UnicodeDecodeError, SyntaxError, ValueError):
        return None
    tags = np.full(len(content), CODE, np.uint8)
    # As the parser counts lines: it also reads \r\n and \r as ends, and starts after a byte-order mark.
    mark = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    lines = content[mark:].splitlines(keepends=True)
    begins = np.cumsum([mark, *map(len, lines)])
    for text in _docstrings(tree):
        first, last = text.lineno - 1, (text.end_lineno or text.lineno) - 1
        tags[begins[first] + text.col_offset : begins[last] + (text.end_col_offset or 0)] = DOCSTRINGS
    return tags


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Docstrings of a module, its classes and functions. Statements only: expressions hold none."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        body = node.body if isinstance(node, _WITH_DOCSTRING) else []
        value = body[0].value if body and isinstance(body[0], ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inside = getattr(node, field, None)
            if isinstance(inside, list):  # the body of a lambda or conditional expression is no list
                waiting += inside
