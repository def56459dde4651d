"""The server under soak: gtask-server as an operator runs it, with a keeper that can reload."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gtask
from gtask import testing

__all__ = ["Daemon", "children_of", "running_daemon"]

COMMAND = Path(gtask.__file__).parents[1] / "bin" / "gtask-server"

END = 20.0
"""Seconds that it gets to start, and to end."""


class Daemon:
    """A running gtask-server.

    Attributes:
        pid: its keeper's process id.
        address: where it listens.
    """

    def __init__(self, pid: int, address: str) -> None:
        self.pid = pid
        self.address = address

    @property
    def workers(self) -> list[int]:
        """Those of all its masters, zombies included."""
        return sorted(worker for master in children_of(self.pid) for worker in children_of(master))

    @property
    def descriptors(self) -> int:
        """How many its keeper and its masters have open."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (self.pid, *children_of(self.pid)))


@contextlib.contextmanager
def running_daemon(target: str, *arguments: str) -> Iterator[Daemon]:
    """A gtask-server for a ``with`` block; it must end by itself with status 0 when it is told to."""
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        path = os.path.join(directory, "socket")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, str(COMMAND), target, "--listen", f"unix:{path}", *arguments]
        process = subprocess.Popen(command, env=environment)
        try:
            testing.wait_until(lambda: os.path.exists(path), END, "the server's socket")
            yield Daemon(process.pid, f"unix:{path}")
            process.terminate()
            testing.wait_until(lambda: process.poll() is not None, END, "the server's end")
            assert process.returncode == 0, f"the server ended with status {process.returncode}"
        finally:
            process.kill()
            process.wait()


def children_of(pid: int) -> list[int]:
    """The child processes of this process, zombies included."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return sorted(map(int, file.read().split()))
    return []
