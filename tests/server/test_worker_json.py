"""How a worker recognises a client that speaks JSON, and hangs up on it without losing a request."""

from __future__ import annotations

import socket
from time import monotonic

import pytest

from gtask.address import parse
from gtask.server.config import ServerConfig
from gtask.server.worker.dialect import first_byte
from gtask.server.worker.json import JsonDialect


@pytest.fixture
def pair():
    """The worker's socket and the client's."""
    worker, client = socket.socketpair()
    with worker, client:
        yield worker, client


def peer(sock):
    return JsonDialect(sock, ServerConfig((parse("unix:/nowhere"),), limit_message=1024))


def test_the_first_byte_is_left_to_be_read(pair):
    """And tells what the client speaks."""
    worker, client = pair
    client.sendall(b'["do"')
    assert first_byte(worker, monotonic() + 30) == b"["
    assert worker.recv(10) == b'["do"'


def test_a_client_that_has_hung_up(pair):
    """It has no first byte."""
    worker, client = pair
    client.close()
    assert first_byte(worker, monotonic() + 30) == b""


def test_a_silent_client_is_refused_what_it_sends_too_late(pair):
    """It hears of it at once, and nothing of it is swallowed."""
    worker, client = pair
    assert first_byte(worker, monotonic()) == b""
    with pytest.raises(BrokenPipeError):
        client.send(b"[")


def test_hanging_up_between_checkouts(pair):
    """What the client sends next is refused to it."""
    worker, client = pair
    peer(worker).hang_up()
    with pytest.raises(BrokenPipeError):
        client.send(b"[")


@pytest.mark.parametrize("is_read", [False, True])
def test_not_hanging_up_on_what_has_begun(pair, is_read):
    """A request that has come, or part of one, is let come."""
    worker, client = pair
    one = peer(worker)
    client.sendall(b'["do",{}')
    if is_read:
        assert one.decoder.received(worker.recv_into(one.decoder.space)) == []
    one.hang_up()
    client.sendall(b"]")


def test_hanging_up_on_a_client_that_has(pair):
    """Is no error."""
    worker, client = pair
    client.close()
    peer(worker).hang_up()
