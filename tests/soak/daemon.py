"""The server under soak: gtask-server as an operator runs it, with a keeper that can reload."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemon import Daemon
from tests.support.waiting import wait_until

__all__ = ["Daemon", "running_daemon"]


@contextlib.contextmanager
def running_daemon(target: str, *arguments: str) -> Iterator[Daemon]:
    """A gtask-server for a ``with`` block, which writes to this program's stderr; it must end by itself with status 0
    when it is told to."""
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        path = os.path.join(directory, "sock")
        server = Daemon(Path(directory), *arguments, source="", target=target, wait=False, streams=())
        try:
            wait_until(lambda: os.path.exists(path), "the server's socket")
            yield server
            status = server.end()
            assert status == 0, f"the server ended with status {status}"
        finally:
            server.process.kill()
            server.process.wait()
