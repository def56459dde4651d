"""The deadline of the call at the head of a connection, and its last moments when that is over."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from gtask.client.loop import Alarm

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.connection import Connection

__all__ = ["Overtime"]

LAST_WORDS = 0.25
"""Seconds that a call waits past its deadline to hear where its worker hung."""


class Overtime:
    """Watches the deadlines of one connection's calls.

    Args:
        connection: the connection.
        loop: gevent's event loop.
        guard: called in the hub with a function; calls the function and sees to what it raises.

    Attributes:
        alarm: set for the earliest deadline that is known.
        is_over: whether the deadline of the call at the head has passed.
    """

    __slots__ = ("_connection", "_guard", "alarm", "is_over")

    def __init__(self, connection: Connection, loop: Any, guard: Callable[[Callable[[], object]], object]) -> None:
        self.is_over = False
        self._connection = connection
        self._guard = guard
        self.alarm = Alarm(loop, self._on_alarm)

    def watch(self, call: Call, now: float) -> None:
        """The call is at the head from now on."""
        deadline = call.reach_head(now)
        if deadline < self.alarm.at:
            self.alarm.set(deadline, now)

    def close(self) -> None:
        """Watch no more."""
        self.alarm.close()

    def _on_alarm(self) -> None:
        self._guard(self._look)

    def _look(self) -> None:
        connection = self._connection
        if not connection.pending or connection.error is not None:
            return
        connection.read_on()
        now = monotonic()
        if connection.pending[0].reach_head(now) <= now:
            # An answer that can already be read wins: perhaps only the hub was late.
            connection.read()
            if connection.error is not None or not connection.pending:
                return
        deadline = connection.pending[0].reach_head(now)
        if deadline > now:
            if deadline < math.inf:
                self.alarm.set(deadline, now)
        elif self.is_over or not connection.has_last_words:
            self.is_over = True
            connection.give_up()
        else:
            # Half-close, so that the server hears it while last words can still come.
            self.is_over = True
            self.alarm.set(now + LAST_WORDS, now)
            connection.end_writing()
