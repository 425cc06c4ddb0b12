"""A sweep from its design to a full store, and on from wherever it stopped."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from himoe_theory.plumbing import files

from ..machine import available_memory, cores
from ..workers import WorkerLost
from .design import Design
from .machine import check_memory, workers_for
from .plan import Chunk, plan
from .store import MANIFEST, Store, locked
from .workers import Executor, Local

Progress = Callable[[float, int], None]
"""Called with the runs done, unfinished ones by their share, and runs in all."""


def sweep(
    design: Design, folder: Path | str, *, executor: Executor | None = None, progress: Progress | None = None
) -> Store:
    """Computes a design into a store. A store of the same design is resumed.

    **Arguments:** `executor`: `local(workers)`, the default with as many workers as the machine has room for, or
    `dask(address)`. Neither changes a bit of the result. **Raises:** `ValueError` for a design that cannot be built, a
    store of another design, or a folder that cannot be written; `WorkerLost`. What is stored stays whole in each case.
    """
    design, folder = design.with_sources(), Path(folder)
    chunks = plan(design)
    _check_room(chunks, executor)  # before there is a store
    with locked(folder):
        if MANIFEST in files.names(folder):
            store = Store.open(folder)
            if json.dumps(store.design.to_json()) != json.dumps(design.to_json()):
                cure = f"Choose another folder, or resume that one with `himoe-simulate resume {folder}`"
                raise ValueError(f"`{folder}` must be a store of this design; it holds another. {cure}.")
        else:
            store = Store.create(folder, design, len(chunks))
        return _finish(store, design, chunks, executor, progress)


def resume(folder: Path | str, *, executor: Executor | None = None, progress: Progress | None = None) -> Store:
    """Computes what a store lacks, and what is damaged.

    **Raises:** `ValueError` if there is no store, its manifest is damaged, or other sources or versions made it.
    """
    folder = Path(folder)
    if MANIFEST not in files.names(folder):
        Store.open(folder)  # says so, and makes no folder
    with locked(folder):
        store = Store.open(folder)
        design = store.design_with_sources()
        return _finish(store, design, plan(design), executor, progress)


def _finish(
    store: Store, design: Design, chunks: list[Chunk], executor: Executor | None, progress: Progress | None
) -> Store:
    store.check_makers(design)
    for name in store.damaged():
        print(f"`{store.folder / name}` is damaged and is computed again.", file=sys.stderr)
    missing = store.missing()
    if not missing:
        return store
    left = [chunks[index] for index in missing]
    runs = [chunk.runs for chunk in left]
    total = sum(chunk.runs for chunk in chunks)
    before = total - sum(runs)

    def report(shares: list[float]) -> None:
        if progress is not None:
            progress(before + sum(share * n for share, n in zip(shares, runs, strict=True)), total)

    _check_room(left, executor)
    if executor is None:
        executor = Local(workers_for(left, cores(), available_memory()))
    try:
        for place, computed in executor(left, report):
            store.add(missing[place], computed)
    except WorkerLost as error:
        raise WorkerLost(f"{error} What is stored is whole: run `himoe-simulate resume {store.folder}`.") from error
    return store


def _check_room(chunks: list[Chunk], executor: Executor | None) -> None:
    """Whether this machine holds the chunks, if it is the one that computes them."""
    if executor is None or isinstance(executor, Local):
        check_memory(chunks, available_memory(), 1 if executor is None else executor.workers)
