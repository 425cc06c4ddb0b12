"""Chunks on a running Dask cluster. Needs the extra `cluster`."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..workers import Shares, WorkerLost
from .compute import Computed, compute
from .plan import Chunk
from .workers import Executor

SECONDS_TO_CONNECT = 10


def dask(address: str) -> Executor:
    """Workers of the cluster whose scheduler is at `address`; they need this project installed, and no shared disk.

    **Raises:** `ValueError` if dask is not installed, or nothing answers there.
    """

    def run(chunks: Sequence[Chunk], report: Shares) -> Iterator[tuple[int, Computed]]:
        client = _connect(address)
        try:
            yield from _results(client, chunks, report)
        finally:
            client.close()

    return run


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError(f"`executor` {address} needs dask; run `pip install 'himoe-theory[cluster]'`.") from error
    try:
        return Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`executor` must be the address of a Dask scheduler; nothing answers at {address}."
        ) from error


def _results(client: Any, chunks: Sequence[Chunk], report: Shares) -> Iterator[tuple[int, Computed]]:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    # Not pure: a chunk that is computed again must not be taken from another sweep's memory.
    places = {client.submit(_compute, chunk, pure=False): place for place, chunk in enumerate(chunks)}
    shares = [0.0] * len(chunks)
    try:
        for future in as_completed(list(places), loop=client.loop):
            try:
                computed = future.result()
            except KilledWorker as error:
                raise WorkerLost(f"Workers at the cluster ended without a result: {error}") from error
            place = places.pop(future)
            shares[place] = 1.0
            report(shares)
            yield place, computed
    finally:
        client.cancel(list(places))


def _compute(chunk: Chunk) -> Computed:
    return compute(chunk, lambda share: None)
