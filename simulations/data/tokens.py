"""Token files as nanoGPT's preparation scripts write them: `train.bin` and `val.bin`, little-endian uint16, no header.

The files are mapped, not read: they may be larger than memory. The vocabulary's size is given, or stands in a JSON file
beside them as `{"vocab_size": 50304}`; pickled files are never opened.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from himoe_theory import _checks
from himoe_theory.plumbing import files

from .corpus import Corpus, Part

FILES = {"train": "train.bin", "validation": "val.bin"}
LARGEST = 2**16
"""Token numbers that 16 bits can tell apart."""

_BLOCK, _BLOCKS = 2**15, 4096
"""Tokens a block, and how many blocks are looked at: all of a file up to 256 MiB, evenly spaced ones beyond."""


def token_files(folder: Path, vocabulary: int | None = None) -> Corpus:
    """The corpus of a folder.

    Files up to 256 MiB are checked whole when opened; of larger ones, 4,096 evenly spaced blocks. Batches are always
    checked. **Raises:** `ValueError` for a missing, empty or odd-sized file, a token outside of the vocabulary, or an
    unknown vocabulary.
    """
    size = _vocabulary(folder, vocabulary)
    parts, manifest = {}, {}
    for part, name in FILES.items():
        parts[part] = _mapped(folder / name)
        manifest[name] = {"tokens": len(parts[part]), "sha256_of_blocks": _scan(folder / name, parts[part], size)}
    return Corpus(Part(parts["train"]), Part(parts["validation"]), size, "token", ("text",), manifest)


def _vocabulary(folder: Path, given: int | None) -> int:
    if given is not None:
        _checks.count("vocabulary", given, maximum=LARGEST, of="numbers of 16 bits")
        return given
    held = files.names(folder)
    if not os.path.isdir(folder):
        raise ValueError(f"`data` must be a folder with {' and '.join(FILES.values())}; there is no {folder}.")
    path = folder / "meta.json"
    if path.name not in held:
        cure = 'Give `vocabulary`, or write {"vocab_size": ...} there'
        raise ValueError(f"`vocabulary` must be known; {path} does not exist. {cure}.")
    content = files.read(path)
    try:
        found = json.loads(content)["vocab_size"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"`{path}` must be JSON with a number `vocab_size`; it is not.") from error
    if not isinstance(found, int) or isinstance(found, bool):
        raise ValueError(f"`vocab_size` in {path} must be a whole number; got {found!r}.")
    _checks.count("vocab_size", found, maximum=LARGEST, of="numbers of 16 bits")
    return found


def _mapped(path: Path) -> UInt16[np.ndarray, " tokens"]:
    if not os.path.isfile(path):
        raise ValueError(f"`{path}` must be a file of uint16 tokens; there is none.")
    try:
        size = path.stat().st_size
        if size == 0 or size % 2:
            raise ValueError(f"`{path}` must hold whole uint16 tokens, two bytes each; got {size} bytes.")
        return np.memmap(path, dtype="<u2", mode="r")
    except OSError as error:
        raise ValueError(f"`{path}` must be a file that can be read; got {files.reason(error)}.") from error


def _blocks(tokens: UInt16[np.ndarray, " tokens"]) -> Iterator[tuple[int, UInt16[np.ndarray, " block"]]]:
    count = -(-len(tokens) // _BLOCK)
    for i in range(min(count, _BLOCKS)):
        start = (i * count // min(count, _BLOCKS)) * _BLOCK
        yield start, tokens[start : start + _BLOCK]


def _scan(path: Path, tokens: UInt16[np.ndarray, " tokens"], vocabulary: int) -> str:
    """SHA-256 of the blocks that are looked at. **Raises:** `ValueError` for a token outside of the vocabulary."""
    digest = hashlib.sha256()
    for start, block in _blocks(tokens):
        if int(block.max()) >= vocabulary:
            place = start + int(np.argmax(block >= vocabulary))
            raise ValueError(
                f"`{path}` must hold tokens below the vocabulary's size, {vocabulary}; "
                f"got {int(tokens[place])} at {place}."
            )
        digest.update(block.tobytes())
    return digest.hexdigest()
