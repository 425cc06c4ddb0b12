"""One small design, one structure, one compiled program: 2 rows of 2 settings a chunk, 5 chunks."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax

from simulations.sweep import Design, Store, read_design
from simulations.sweep.compute import Computed, compute
from simulations.sweep.plan import Chunk

ROOT = Path(__file__).parents[3]

TOML = """
seeds = 3
runs_per_chunk = 4
partners = false
[fixed]
arm = "dense"
training = { steps = 4, batch = 16, test_tokens = 16, optimizer = "sgd" }
[grid]
data.noise = [0.5, 0.25, 0.125]
terms.load = [0.0, 0.125]
"""
"""Three data sets of three seeds: chunks hold rows of several data sets, and the last one is padded."""


def design(tmp_path: Path) -> Design:
    return read_design(file(tmp_path))


def file(tmp_path: Path) -> Path:
    path = tmp_path / "design.toml"
    path.write_text(TOML)
    return path


def in_this_process(
    chunks: Sequence[Chunk], report: Callable[[Sequence[float]], None]
) -> Iterator[tuple[int, Computed]]:
    """An executor without processes."""
    for place, chunk in enumerate(chunks):
        yield place, compute(chunk, lambda share: None)


def backwards(chunks: Sequence[Chunk], report: Callable[[Sequence[float]], None]) -> Iterator[tuple[int, Computed]]:
    """The same, the last chunk first."""
    for place in reversed(range(len(chunks))):
        yield place, compute(chunks[place], lambda share: None)


def command(*arguments: object) -> subprocess.Popen[str]:
    """`himoe-simulate` in a process of its own, with what the tests have compiled."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    words = [sys.executable, "-m", "simulations", *map(str, arguments)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def content(store: Store | Path) -> dict[str, bytes]:
    """All files of a store that must not depend on how it was computed."""
    folder = store.folder if isinstance(store, Store) else store
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("log.jsonl", "lock")}
