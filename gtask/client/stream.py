"""One socket of a connection in the hub: writes at once what it can, keeps the rest, and calls back when bytes come.

A stream reads nothing by itself. Its owner reads in the callback, straight into the memory of its decoder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["Stream"]

READ, WRITE = 1, 2
SHUT_WR = 1

BURST = 16
"""Pieces that are collected at the most before they are sent."""


class Stream:
    """A connected, non-blocking socket.

    Args:
        sock: the socket.
        loop: gevent's event loop.
        on_readable: called in the hub when bytes have come, or the end.
        guard: called in the hub with a function of the stream; calls the function and sees to what it raises.

    Attributes:
        read_into: ``socket.recv_into``; raises BlockingIOError if nothing has come, and OSError.
    """

    __slots__ = ("_burst", "_guard", "_loop", "_on_readable", "_reader", "_socket", "_unsent", "_writer", "read_into")

    def __init__(
        self,
        sock: Any,
        loop: Any,
        on_readable: Callable[[], object],
        guard: Callable[[Callable[[], object]], object],
    ) -> None:
        self._socket = sock
        self._on_readable = on_readable
        self._guard = guard
        self.read_into: Callable[[memoryview], int] = sock.recv_into
        self._loop = loop
        self._burst: list[bytes] = []
        self._unsent: deque[memoryview] = deque()
        self._writer: Any = loop.io(sock.fileno(), WRITE)
        self._reader: Any = loop.io(sock.fileno(), READ)
        self._reader.start(on_readable)

    @property
    def is_reading(self) -> bool:
        """Whether the callback is called when bytes come: gevent stops it if a Ctrl-C strikes before it is entered."""
        return bool(self._reader.active)

    def read_on(self) -> None:
        """Have the callback called again, if it is not."""
        if not self._reader.active:
            self._reader.start(self._on_readable)

    def write(self, data: bytes) -> None:
        """Send bytes behind those that wait already; never blocks.

        Raises:
            OSError: the connection is broken.
        """
        if self._unsent:
            self._unsent.append(memoryview(data))
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._writer.start(self._guard, self._on_writable)

    def collect(self, data: bytes) -> None:
        """Send bytes together with others: when BURST pieces have been collected, or in the hub's next turn.

        The peer has enough to do; this saves most of the cost of sending.

        Raises:
            OSError: the connection is broken.
        """
        self._burst.append(data)
        if len(self._burst) == 1:
            self._loop.run_callback(self._guard, self._flush)
        elif len(self._burst) == BURST:
            self._flush()

    def _flush(self) -> None:
        if self._burst:
            data = b"".join(self._burst)
            self._burst.clear()
            self.write(data)

    def end_writing(self) -> None:
        """Half-close: the peer reads the end of the stream behind what was sent.

        Raises:
            OSError: the connection is broken.
        """
        self._socket.shutdown(SHUT_WR)

    def close(self) -> None:
        """Close the socket; what still waits is not sent. Closing again does nothing."""
        for watcher in (self._reader, self._writer):
            with suppress(ValueError):  # the hub was destroyed, and all its watchers with it
                watcher.stop()
                watcher.close()
        self._socket.close()
        self._unsent.clear()
        self._burst.clear()

    def _on_writable(self) -> None:
        while self._unsent:
            data = self._unsent[0]
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                return
            if sent < len(data):
                self._unsent[0] = data[sent:]
                return
            self._unsent.popleft()
        self._writer.stop()
