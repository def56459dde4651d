"""Clients that may not connect: they are told so when they greet, in place of a worker's greeting."""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Collection

from gtask.server.config import ServerConfig
from gtask.server.master.attendants import Attendant
from gtask.wire.exceptions import failure
from gtask.wire.frames import Encoder
from gtask.wire.json.text import OPENING
from gtask.wire.messages import Greeting

__all__ = ["ALLOW", "RAISE", "Refusals"]

ALLOW = "run the client as a user whom the server allows, or start the server with another --allow-uid"
RAISE = "close connections that are not needed, or start the server with a larger --limit-per-uid"

PATIENCE = 1.0
"""Seconds that a refused client has to greet; then it is hung up on without a word."""

MOST = 64
"""The most refused clients whose greeting is waited for."""

GREETING = 65536
"""Bytes that are read of a refused client, and not looked at: closed with something unread, it would be reset."""


class Refusals(Attendant):
    """Turns clients away.

    Args:
        config: the server's options.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._refused: dict[int, tuple[socket.socket, str, float]] = {}

    def add(self, connection: socket.socket, reason: str, now: float) -> None:
        """Turn this client away.

        Args:
            connection: of the client; it is closed.
            reason: of the refusal, and what to do.
            now: the time, on the monotonic clock.
        """
        if len(self._refused) < MOST:
            self._refused[connection.fileno()] = connection, reason, now + PATIENCE
        else:
            connection.close()

    @property
    def descriptors(self) -> Collection[int]:
        return self._refused

    def next_due(self, now: float) -> float:
        return min((until for _, _, until in self._refused.values()), default=math.inf)

    def turn(self, now: float, ready: Collection[int]) -> None:
        for descriptor, (connection, reason, until) in list(self._refused.items()):
            if descriptor in ready or now >= until:
                del self._refused[descriptor]
                self._turn_away(connection, reason)

    def close(self) -> None:
        for connection, _, _ in self._refused.values():
            connection.close()

    def _turn_away(self, connection: socket.socket, reason: str) -> None:
        error = PermissionError(reason)
        greeting = Greeting(name=self._config.name, text=failure.text(error), exc=failure.describe(error))
        with contextlib.suppress(OSError):  # the client may be gone, or say nothing
            begin = connection.recv(GREETING, socket.MSG_DONTWAIT)
            if begin and begin[:1] != OPENING:  # a peer that speaks JSON knows no greeting
                connection.send(Encoder(self._config.limit_message).encode_reply(greeting), socket.MSG_DONTWAIT)
        connection.close()
