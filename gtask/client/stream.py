"""One socket of a connection in the hub: bytes are sent at once or as soon as there is room, and come as messages.

A stream reads in a callback of the hub, straight into the memory of its reader. It tells its connection of each message
and of the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gtask.client.forks import HERE, look
from gtask.client.loop import refuse_bytes, socket_watcher, socket_writer
from gtask.errors import ProtocolError, reason_of
from gtask.wire import pieces
from gtask.wire.messages import NOT_PLAIN
from gtask.wire.pieces import LargeFrame

if TYPE_CHECKING:
    from gtask.client.connection import Connection
    from gtask.client.dialects.dialect import Reader

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
        reader: makes messages of what comes.
        connection: hears of messages and of the end.

    Attributes:
        watcher: active while bytes that come are read. gevent stops it if a Ctrl-C strikes before the callback is
            entered.
    """

    __slots__ = (
        "_burst", "_connection", "_loop", "_read_into", "_reader", "_send", "_socket", "_unsent", "_writer", "watcher",
    )  # fmt: skip

    def __init__(self, sock: Any, loop: Any, reader: Reader, connection: Connection) -> None:
        self._socket = sock
        self._loop = loop
        self._reader = reader
        self._connection = connection
        self._read_into: Callable[[memoryview], int] = sock.recv_into
        self._send = socket_writer(sock)
        self._burst: list[bytes] = []
        self._unsent: deque[memoryview] = deque()
        self._writer: Any = socket_watcher(loop, sock.fileno(), WRITE)
        self.watcher: Any = socket_watcher(loop, sock.fileno(), READ)

    # --- reading ---------------------------------------------------------------------------------------

    def read_on(self) -> None:
        """Read what comes from now on, also if an interruption has stopped that."""
        if not self.watcher.active:
            self.watcher.start(self.read)

    def read(self) -> None:
        """Take what has come; in the hub."""
        if not HERE[0]:
            look()  # which closes this stream, for it is the parent's
            return
        reader, connection, read_into = self._reader, self._connection, self._read_into
        try:
            count = read_into(reader.space)
            if not count:
                self._end("closed the connection")
                return
            value = reader.plain_value(count)
            if value is not NOT_PLAIN:
                connection.take_value(value)
                return
            for message in reader.received(count):
                if connection.error is None:
                    connection.take(message)
        except BlockingIOError:
            return
        except ProtocolError as error:
            connection.violated(error)
        except OSError as error:
            self._end(f"broke the connection ({reason_of(error)})")
        except BaseException:  # a Ctrl-C strikes in the hub, too
            connection.torn()
            raise

    def _end(self, how: str) -> None:
        """Nothing more will come, but the last words may have."""
        self._connection.die(how, self._reader.ended())

    def guard(self, function: Callable[[], object]) -> None:
        """Call a function in the hub, and see to what it raises."""
        look()
        connection = self._connection
        if connection is None:
            return  # the stream is closed
        try:
            function()
        except ProtocolError as error:
            connection.violated(error)
        except OSError as error:
            connection.die(f"broke the connection ({reason_of(error)})")
        except BaseException:  # a Ctrl-C strikes in the hub, too
            connection.torn()
            raise

    # --- writing ---------------------------------------------------------------------------------------

    def write(self, data: bytes | LargeFrame) -> None:
        """Send bytes behind those that wait already; never blocks.

        Raises:
            OSError: the connection is broken.
        """
        if self._unsent or type(data) is LargeFrame:
            self._flush()  # what was collected goes before it
            pieces.write(self._unsent, data, self._send)
            if self._unsent:
                self._writer.start(self.guard, self._on_writable)
            return
        send = self._send
        try:
            sent = send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._writer.start(self.guard, self._on_writable)

    def collect(self, data: bytes) -> None:
        """Send bytes together with others: when BURST pieces have been collected, or in the hub's next turn.

        The peer has enough to do; this saves most of the cost of sending.

        Raises:
            OSError: the connection is broken.
        """
        self._burst.append(data)
        if len(self._burst) == 1:
            self._loop.run_callback(self.guard, self._flush)
        elif len(self._burst) == BURST:
            self._flush()

    def push(self, data: bytes) -> None:
        """Send bytes now, behind what has been collected; the connection hears it if it is broken."""
        self._burst.append(data)
        self.guard(self._flush)

    def _flush(self) -> None:
        if self._burst:
            data = b"".join(self._burst)
            self._burst.clear()
            with suppress(ConnectionError):  # what the peer has sent is still to be read, and then the end
                self.write(data)

    def end_writing(self) -> None:
        """Half-close: the peer reads the end of the stream behind what was sent.

        Raises:
            OSError: the connection is broken.
        """
        self._socket.shutdown(SHUT_WR)

    def close(self) -> None:
        """Close the socket; what still waits is not sent. Closing again does nothing.

        The stream lets go of its connection, so that both are freed at once and not by a garbage collection.
        """
        for watcher in (self.watcher, self._writer):
            with suppress(ValueError):  # the hub was destroyed, and all its watchers with it
                watcher.stop()
                watcher.close()
        self._send = refuse_bytes  # before the descriptor may be another file's
        self._socket.close()
        self._unsent.clear()
        self._burst.clear()
        self._connection = None  # type: ignore[assignment]

    def _on_writable(self) -> None:
        while self._unsent:
            data = self._unsent[0]
            try:
                sent = self._send(data)
            except BlockingIOError:
                return
            except ConnectionError:
                sent = len(data)  # what the peer has sent is still to be read, and then the end
            if sent < len(data):
                self._unsent[0] = data[sent:]
                return
            self._unsent.popleft()
        self._writer.stop()
