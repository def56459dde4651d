"""Connections that have not sent a byte: they cost a descriptor each, and no process."""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Collection

__all__ = ["Silent", "hang_up", "has_spoken"]


def has_spoken(connection: socket.socket) -> bool | None:
    """Whether there is something to read; None if the peer has hung up instead."""
    try:
        return True if connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) else None
    except BlockingIOError:
        return False
    except OSError:
        return None


def hang_up(connection: socket.socket) -> bool:
    """Close the connection of a silent peer, unless it has sent something in this moment.

    On a unix socket nothing can be sent after the first step, so nothing that was sent is lost.

    Returns:
        False if it has, and is still open. Then its peer can send nothing more, and reads on.
    """
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
    if has_spoken(connection):
        return False
    connection.close()
    return True


class Silent:
    """Silent connections, in the order in which they came. None stays longer than it may.

    Args:
        most: how many there may be.
        patience: seconds that one may stay.
    """

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self._connections: dict[int, tuple[socket.socket, float]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def descriptors(self) -> Collection[int]:
        return self._connections

    @property
    def connections(self) -> list[socket.socket]:
        """All of them, the oldest first."""
        return [connection for connection, _ in self._connections.values()]

    def next_due(self) -> float:
        """When the first of them has been silent for too long; infinite if there is none."""
        return min((until for _, until in self._connections.values()), default=math.inf)

    def add(self, connection: socket.socket, now: float) -> socket.socket | None:
        """Wait for the first byte of a connection.

        Returns:
            another one, the oldest, that has to go for it; None if there is room.
        """
        oldest = self.connections[0] if len(self) >= self._most else None
        if oldest is not None:
            del self._connections[oldest.fileno()]
        self._connections[connection.fileno()] = connection, now + self._patience
        return oldest

    def spoken(self, ready: Collection[int]) -> list[socket.socket]:
        """Take out those that have sent something, of these descriptors. Those that have hung up are closed."""
        found = []
        for descriptor in ready:
            connection, _ = self._connections.pop(descriptor)
            if has_spoken(connection):
                found.append(connection)
            else:
                connection.close()
        return found

    def overdue(self, now: float) -> list[socket.socket]:
        """Take out those that have been silent for too long."""
        found = [connection for connection, until in self._connections.values() if until <= now]
        for connection in found:
            del self._connections[connection.fileno()]
        return found

    def close(self) -> None:
        """Close all of them."""
        for connection in self.connections:
            connection.close()
        self._connections.clear()
