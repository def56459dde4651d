"""The point of this test is to ensure that neither arguments nor values stay in memory when their call is over.

Each connection keeps some objects for its next call, and an idle one may wait for that for ten minutes.
"""

import tracemalloc

import pytest

from tests.support.waiting import turn_hub

SOURCE = """
    def size(data):
        return len(data)

    def data(size):
        return b"x" * size

    def fail(data):
        raise ValueError("no")
"""

LARGE = 8 << 20


def call(client):
    assert client.call("size", b"x" * LARGE) == LARGE


def value(client):
    assert len(client.call("data", LARGE)) == LARGE


def keyword(client):
    assert client.call("size", data=b"x" * LARGE) == LARGE


def submitted(client):
    with client.checkout() as checkout:
        assert checkout.size.submit(b"x" * LARGE).get() == LARGE


def failing(client):
    with pytest.raises(ValueError, match="no"):
        client.call("fail", b"x" * LARGE)


@pytest.mark.parametrize("way", [call, value, keyword, submitted, failing])
def test_an_idle_client_is_small_again(serve, connect, way):
    """Whatever has travelled, in whatever form of a call."""
    client = connect(serve(SOURCE).address, min_workers=0, max_workers=1, timeout=60, refork_after_error=False)
    client.call("size", b"")
    tracemalloc.start()
    try:
        way(client)
        turn_hub()  # the hub was just handing it over
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert client.stats().idle == 1
    assert held < LARGE / 4
