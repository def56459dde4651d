"""A server that runs, as a target: what a peer says to it ends the peer's worker in order, and harms nobody else."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import gtask
from gtask.wire.frames import Encoder
from gtask.wire.messages import Greeting
from tests.fuzz.targets import JSON, conversation
from tests.support.daemon import daemon
from tests.support.waiting import PATIENCE, wait_until

__all__ = ["SEEDS", "live"]

SEEDS = [b"\1" + b"".join(conversation()[1:]), b"\0" + b"".join(conversation()), b"\0" + b"".join(JSON)]
"""Inputs to begin with. The first byte says whether a right greeting comes before the others."""

GREETING = Encoder().encode(Greeting(name="fuzz"))

SOURCE = """
def echo(*args, **kwargs):
    return [args, kwargs]
"""

WRONG = re.compile(r"worker \d+ failed| was ended by |Traceback")
"""What the log says of a worker that did not end in order."""

INTERRUPTED = "gtask.errors.Interrupted"
"""What it says of one whose client has hung up during setup."""


@contextlib.contextmanager
def live(directory: Path) -> Iterator[Callable[[bytes], None]]:
    """A server in this directory, as a target. At the end it has served all, serves on, and has lost nothing."""
    with daemon(directory, source=SOURCE) as server, gtask.Client(server.address, timeout=PATIENCE) as client:
        assert client.call("echo", 1) == [[1], {}]
        master, path = server.master, server.address.removeprefix("unix:")
        held = len(os.listdir(f"/proc/{master}/fd"))
        with (directory / "log").open(errors="replace") as log:

            def say(data: bytes) -> None:
                _converse(path, (GREETING if data[:1] == b"\1" else b"") + data[1:])
                said = log.read()
                assert INTERRUPTED in said or not WRONG.search(said), said

            yield say
        assert client.call("echo", 1) == [[1], {}]
        assert server.master == master
        wait_until(lambda: len(os.listdir(f"/proc/{master}/fd")) <= held, "as many descriptors as before")


def _converse(path: str, data: bytes) -> None:
    """Say this, and hear the server out."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(path)
        with contextlib.suppress(ConnectionError):
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass
