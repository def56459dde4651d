"""The master's handles of its living workers: their connections, their scoreboard lines, and signals to them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from gtask.server import process
from gtask.server.master.children import Signal
from gtask.server.originals import POLLRDHUP
from gtask.server.scoreboard import BoardLine

if TYPE_CHECKING:
    import select

__all__ = ["Handle", "Workers"]

HANG_UP = POLLRDHUP
"""The event of a peer that hung up; no event while data flows. POLLHUP comes unasked, and is all there is elsewhere."""


class Handle(NamedTuple):
    """The master's share of a worker: a duplicate of its connection, and its line of the scoreboard."""

    connection: socket.socket
    line: BoardLine

    def shut_reading(self) -> None:
        """Let the worker read the end of its stream. On a unix socket its client cannot send any more, either."""
        self.line.shut()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Let go of both."""
        self.connection.close()
        self.line.close()


class Workers:
    """The handles, by process id.

    Args:
        poll: the master's; the connections are in it until their clients hang up.
    """

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._handles: dict[int, Handle] = {}
        self._pids: dict[int, int] = {}  # of the connections that are in the poll, by descriptor

    def __iter__(self) -> Iterator[int]:
        return iter(self._handles)

    def __getitem__(self, pid: int) -> Handle:
        return self._handles[pid]

    def get(self, pid: int) -> Handle | None:
        """The handle of a worker; None for a process that is none."""
        return self._handles.get(pid)

    def users(self) -> list[int]:
        """The user of each worker's client, -1 where that is not known."""
        return [handle.line.view().client_uid for handle in self._handles.values()]

    def add(self, pid: int, handle: Handle) -> None:
        """A worker was forked: hear its client from now on."""
        self._handles[pid] = handle
        self._pids[handle.connection.fileno()] = pid
        self._poll.register(handle.connection, HANG_UP)

    def remove(self, pid: int) -> Handle:
        """A worker was reaped. Its handle is the caller's, to be closed."""
        self.ignore(pid)
        return self._handles.pop(pid)

    def ignore(self, pid: int) -> None:
        """Hear nothing more of this worker's client."""
        if self._pids.pop(self._handles[pid].connection.fileno(), None) is not None:
            self._poll.unregister(self._handles[pid].connection)

    def hung_up(self, descriptors: Iterable[int]) -> list[int]:
        """The workers whose clients have just hung up, as these ready descriptors say. Each worker comes once."""
        pids = [self._pids[descriptor] for descriptor in descriptors if descriptor in self._pids]
        for pid in pids:
            self.ignore(pid)
        return pids

    def shut_reading(self) -> None:
        """Let every worker read the end of its stream."""
        for handle in self._handles.values():
            handle.shut_reading()

    def send(self, signals: Iterable[Signal]) -> None:
        """Send these signals; a process that is gone does not matter."""
        for order in signals:
            if order.aim:
                self._handles[order.pid].line.aim(order.aim)
            if order.number == signal.SIGABRT:
                process.dump_no_core(order.pid)  # it would take long, and is wanted after true crashes only
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if order.group else os.kill)(order.pid, order.number)

    def want_back(self, pid: int) -> None:
        """Ask a worker to be retired, because others wait for one."""
        self._handles[pid].line.want_back()
        self.send([Signal(pid, signal.SIGTERM)])

    def send_each(self, number: signal.Signals, pids: Iterable[int] | None = None) -> None:
        """Send one signal to these workers; by default to all."""
        self.send([Signal(pid, number) for pid in (self._handles if pids is None else pids)])
