"""A closed stream writes nothing: its descriptor may belong to another file."""

from __future__ import annotations

import socket

import gevent
import pytest

from gtask.client.stream import Stream
from gtask.wire.lastwords import ReplyDecoder


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_it_sends_until_it_is_closed(pair):
    ours, theirs = pair
    descriptor = ours.fileno()
    stream = Stream(ours, gevent.get_hub().loop, ReplyDecoder(), None)
    stream.write(b"open")
    assert theirs.recv(100) == b"open"
    stream.close()
    after = socket.socketpair()
    with after[0], after[1]:
        assert descriptor in [sock.fileno() for sock in after]
        with pytest.raises(OSError, match="closed"):
            stream.write(b"late")
        for sock in after:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(100)
