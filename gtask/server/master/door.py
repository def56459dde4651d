"""Between accepting and forking: a connection gets a worker when its first byte has come, and when there is room.

A peer that says nothing costs no process. Who asks about the server, as ``gtask status`` does, is answered also while
all workers are taken: a helper tells such a peer what it asks, and nothing else.
"""

from __future__ import annotations

import logging
import math
import socket
from collections import deque
from collections.abc import Callable, Collection

from gtask.address import Address
from gtask.server.config import ServerConfig
from gtask.server.master.attendants import SILENCE, Attendant
from gtask.server.master.silent import Silent, hang_up, has_spoken
from gtask.server.peers import peer_of
from gtask.server.seldom import Seldom

__all__ = ["ASKS", "Door"]

log = logging.getLogger("gtask.server")

ASKS = b"\xa5about\xc3"
"""Bytes of a greeting that asks about the server. The master looks for them alone, and reads nothing."""

BEGINNING = 256
"""Bytes of a stream among which they are looked for."""

LINE = 1000
"""Connections that may wait for a worker here; more wait in the kernel."""

HELPERS = 2
"""Workers beyond ``max_workers`` that tell about the server."""


class Door(Attendant):
    """The connections that have no worker yet.

    Args:
        config: the server's options.
        employ: gets a worker for a connection, which tells only about the server if the second argument says so; gives
            whether it could.
        room: how many more workers there may be.
    """

    def __init__(
        self, config: ServerConfig, employ: Callable[[socket.socket, bool], bool], room: Callable[[], float]
    ) -> None:
        self._config = config
        self._employ = employ
        self._room = room
        self._silent = Silent(config.limits.strangers, config.greeting_timeout)
        self._line: deque[socket.socket] = deque()
        self._looked = 0  # so many of the line were looked at for what they ask
        self._leaving: list[socket.socket] = []
        self._seldom = Seldom()
        self._close_at = math.inf

    @property
    def descriptors(self) -> Collection[int]:
        return self._silent.descriptors

    @property
    def under_way(self) -> bool:
        return bool(self._silent or self._line)

    @property
    def is_full(self) -> bool:
        """Whether no more connections are to be accepted."""
        return len(self._line) >= LINE

    @property
    def somebody_waits(self) -> bool:
        """Whether a connection waits for a worker."""
        return bool(self._line)

    def refuses(self, connection: socket.socket, address: Address, users: Collection[int]) -> str:
        """The reason why a user may not have this connection, too, or "".

        Args:
            connection: was accepted at the address.
            users: those of the connections that have workers.
        """
        most = self._config.limits.connections
        pid, uid = peer_of(connection)
        if most is None or uid < 0:
            return ""
        here = [peer_of(waiting)[1] for waiting in (*self._silent.connections, *self._line)]
        count = [*here, *users].count(uid)
        if count < most:
            return ""
        return f"process {pid} of user {uid}, who has {count} connections to {address} already (limit_per_uid)"

    def come(self, connection: socket.socket, now: float) -> None:
        """A connection was accepted."""
        spoken = has_spoken(connection)
        if spoken:
            self._line.append(connection)
            self.serve()
        elif spoken is None:
            connection.close()
        else:
            oldest = self._silent.add(connection, now)
            if oldest is not None:
                self._leaving.append(oldest)  # closed in turn(), for the loop may still watch its descriptor

    def serve(self) -> None:
        """Get workers for those who wait, as far as there is room."""
        while self._line and self._room() > 0:
            if not self._employ(self._line[0], False):
                return
            self._line.popleft()
            self._looked = max(0, self._looked - 1)
        while self._looked < len(self._line) and self._room() > -HELPERS:
            connection = self._line[self._looked]
            if ASKS not in connection.recv(BEGINNING, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                self._looked += 1
            elif self._employ(connection, True):
                del self._line[self._looked]
            else:
                return

    def next_due(self, now: float) -> float:
        return now if self._leaving else min(self._silent.next_due(), self._close_at)

    def turn(self, now: float, ready: Collection[int]) -> None:
        while self._leaving:
            self._turn_out(self._leaving.pop(), now)
        self._line.extend(self._silent.spoken([descriptor for descriptor in ready if descriptor in self.descriptors]))
        overdue = self._silent.connections if now >= self._close_at else self._silent.overdue(now)
        if now >= self._close_at:
            self._silent, self._close_at = Silent(self._config.limits.strangers, SILENCE), math.inf
        for connection in overdue:
            if not hang_up(connection):
                self._line.append(connection)
        self.serve()

    def drain(self, now: float) -> None:
        self._close_at = now + SILENCE

    def close(self) -> None:
        self._silent.close()
        for connection in (*self._line, *self._leaving):
            connection.close()
        self._line.clear()
        self._leaving.clear()

    def _turn_out(self, connection: socket.socket, now: float) -> None:
        """Hang up on the oldest of those who have said nothing."""
        pid, uid = peer_of(connection)
        if not hang_up(connection):
            self._line.append(connection)
            return
        more = self._seldom.more(now)
        if more is not None:
            who = f"process {pid} of user {uid}" if pid else "a peer"
            log.warning(
                "%s was hung up on, for it has said nothing and %d others neither (limit_strangers)%s",
                who, self._config.limits.strangers, more,
            )  # fmt: skip
