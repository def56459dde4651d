"""The deadline of the call at the head of a connection, and its last moments when that is over.

While a call is under way the alarm is set, also if the call has no time-out, for it is what holds the loop: sockets do
not. So it is set for :data:`LOOK` at the most, and stays no longer than that when the last call has ended.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from gtask.client.loop import Alarm

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.connection import Connection
    from gtask.client.dialects.dialect import Dialect
    from gtask.client.stream import Stream

__all__ = ["Overtime"]

LOOK = 1.0
"""Seconds between looks whether a call is still under way."""

LAST_WORDS = 0.25
"""Seconds that a call waits past its deadline to hear where its worker hung."""


class Overtime:
    """Watches the deadlines of one connection's calls.

    Args:
        connection: the connection.
        loop: gevent's event loop.
        stream: of the connection.
        dialect: knows whether something may be heard of a worker after a half-close, and by how much a call may be
            extended.

    Attributes:
        alarm: set while a call is under way, for its deadline at the latest.
        is_over: whether the deadline of the call at the head has passed.
    """

    __slots__ = ("_connection", "_has_last_words", "_max_extension", "_stream", "alarm", "is_over")

    def __init__(self, connection: Connection, loop: Any, stream: Stream, dialect: Dialect) -> None:
        self.is_over = False
        self._max_extension = dialect.max_extension
        self._connection = connection
        self._stream = stream
        self._has_last_words = dialect.has_last_words
        self.alarm = Alarm(loop, self._on_alarm, holds=True)

    def watch(self, call: Call, now: float) -> None:
        """The call is at the head from now on."""
        self.alarm.set(min(call.reach_head(now), now + LOOK), now)

    def extend(self, call: Call, seconds: float) -> None:
        """Its worker wants to have that many seconds more, from now on; the alarm looks again when it is due."""
        now = monotonic()
        latest = call.sent_at + (call.timeout or 0.0) + self._max_extension
        call.deadline = max(call.deadline, min(now + seconds, latest))

    def close(self) -> None:
        """Watch no more, and let go of the connection."""
        self.alarm.close()
        self._connection = self._stream = None  # type: ignore[assignment]

    def _on_alarm(self) -> None:
        self._stream.guard(self._look)

    def _look(self) -> None:
        connection = self._connection
        if not connection.pending or connection.error is not None:
            return
        self._stream.read_on()
        now = monotonic()
        if connection.pending[0].reach_head(now) <= now:
            # An answer that can already be read wins: perhaps only the hub was late.
            self._stream.read()
            if connection.error is not None or not connection.pending:
                return
        deadline = connection.pending[0].reach_head(now)
        if deadline > now:
            self.alarm.set(min(deadline, now + LOOK), now)
        elif self.is_over or not self._has_last_words:
            self.is_over = True
            connection.hang_up(connection.overdue_error())
        else:
            # Half-close, so that the server hears it while last words can still come.
            self.is_over = True
            self.alarm.set(now + LAST_WORDS, now)
            self._stream.end_writing()
