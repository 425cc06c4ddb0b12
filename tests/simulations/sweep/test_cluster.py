"""Addresses of clusters: a wrong one is refused at once, in one line, and leaves nothing behind that complains."""

import gc
import time

import pytest

from simulations.sweep.cluster import dask


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://x", "must be an address with one of the schemes .*tcp://.*; got 'http://x'"),
        ("tcp://127.0.0.1:port", "must be the address of a Dask scheduler; got 'tcp://127.0.0.1:port': .*'port'"),
        ("tcp://127.0.0.1", "must be the address of a Dask scheduler; got 'tcp://127.0.0.1': missing port"),
        ("tls://127.0.0.1:9", "must be the address of a Dask scheduler; got 'tls://127.0.0.1:9': TLS expects"),
    ],
)
def test_a_wrong_address_is_refused_at_once(address, message):
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    began = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        dask(address)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5  # a client that is half made is given up after 4 s, and says so when collected
    del caught
    gc.collect()
