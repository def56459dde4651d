"""A reply that signals interrupt on its way arrives whole."""

from __future__ import annotations

import signal
import socket
import threading

import pytest

from gtask.server.worker.replies import ReplyBuffer

READ = 64 * 1024


@pytest.fixture
def interrupted():
    """Grows with each SIGUSR1."""
    interrupted = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: interrupted.append(number))
    yield interrupted
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_after_each_piece(interrupted):
    """The write of the system then ends early, each time."""
    frame = bytes(range(256)) * 40_000
    ours, theirs = socket.socketpair()
    main, came = threading.get_ident(), bytearray()

    def read():
        while len(came) < len(frame):
            came.extend(theirs.recv(READ))
            signal.pthread_kill(main, signal.SIGUSR1)

    with ours, theirs:
        reader = threading.Thread(target=read)
        reader.start()
        ReplyBuffer(ours, None, None).send(frame)
        reader.join()
    assert interrupted
    assert came == frame
