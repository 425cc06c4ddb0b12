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

    **Raises:** `ValueError` at once if dask is not installed, the address is none, or nothing answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError(f"`executor` {address} needs dask; run `pip install 'himoe-theory[cluster]'`.") from error
    _reach(address)

    def run(chunks: Sequence[Chunk], report: Shares) -> Iterator[tuple[int, Computed]]:
        with Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False) as client:
            yield from _results(client, chunks, report)

    return run


def _reach(address: str) -> None:
    """Connects once, without a client: one that cannot connect complains again when it is collected."""
    from distributed.comm import connect
    from distributed.comm.registry import backends
    from distributed.security import Security
    from distributed.utils import LoopRunner

    scheme = address.partition("://")[0]
    if scheme not in backends:
        known = ", ".join(f"{name}://" for name in backends)
        raise ValueError(f"`executor` must be an address with one of the schemes {known}; got {address!r}.")

    async def once() -> None:
        comm = await connect(address, timeout=SECONDS_TO_CONNECT, **Security().get_connection_args("client"))
        await comm.close()

    rule = "`executor` must be the address of a Dask scheduler"
    try:
        LoopRunner(asynchronous=False).run_sync(once)
    except OSError as error:
        raise ValueError(f"{rule}; nothing answers at {address}.") from error
    except (ValueError, TypeError) as error:  # no such address; a way to connect that is not set up here
        raise ValueError(f"{rule}; got {address!r}: {error}.") from error


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
