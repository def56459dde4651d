"""The greetings at the beginning of a connection: the client's, then the worker's, once its setup has run."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent.hub import Waiter

from gtask.client.loop import Alarm
from gtask.errors import Error, ProtocolError, reason_of
from gtask.wire.values.agreement import close_channel

if TYPE_CHECKING:
    from gtask.client.connection import Connection
    from gtask.client.dialects.dialect import Reader
    from gtask.client.stream import Stream
    from gtask.wire.messages import Greeting
    from gtask.wire.values.agreement import Agreement

__all__ = ["Handshake"]

LOOK = 0.25
"""Seconds between looks whether a greeting is overdue, or its reader was stopped by an interruption."""


class Handshake:
    """The wait for one worker's greeting.

    Args:
        connection, stream: the connection and its stream.
        loop: gevent's event loop.
        timeout: seconds to wait.
    """

    __slots__ = (
        "_alarm",
        "_channel",
        "_connection",
        "_deadline",
        "_is_agreed",
        "_loop",
        "_stream",
        "_timeout",
        "_waiter",
    )

    def __init__(self, connection: Connection, stream: Stream, loop: Any, timeout: float) -> None:
        self._connection = connection
        self._stream = stream
        self._loop = loop
        self._timeout = timeout
        self._is_agreed = False
        self._deadline = (now := monotonic()) + timeout
        self._waiter: Waiter[Greeting | Error] = Waiter()
        self._alarm = Alarm(loop, self._look, holds=True)
        self._alarm.set(now + min(timeout, LOOK), now)

    def greet(self, greeting: Greeting) -> Greeting:
        """Greet, and block this greenlet until the worker has greeted, or the connection is closed.

        Args:
            greeting: the client's.

        Raises:
            Error: why the worker did not greet.
        """
        try:
            self._send(greeting)
            answer = self._waiter.get()
        finally:
            self._alarm.close()
            if not self._is_agreed:
                close_channel(self._connection.channel)
        if isinstance(answer, Error):
            raise answer
        return answer

    def agree(self, reader: Reader, greeting: Greeting) -> Agreement:
        """Note what both sides have agreed upon; in the hub."""
        agreement = self._connection.dialect.agree(reader, greeting, self._connection.channel)
        self._is_agreed = agreement.channel is not None
        return agreement

    def heard(self, greeting: Greeting) -> None:
        """The worker has greeted; in the hub."""
        self._waiter.switch(greeting)

    def failed(self, error: Error) -> None:
        """The connection was closed."""
        self._loop.run_callback(self._waiter.switch, error)

    def _send(self, greeting: Greeting) -> None:
        dialect, channel = self._connection.dialect, self._connection.channel
        try:
            if channel is None:
                self._stream.write(dialect.encode(greeting))
            else:
                channel.greet(dialect.encode(replace(greeting, offers=greeting.offers | {"shared"})))
            self._connection.untouched = False
        except OSError as error:
            self._connection.die(f"broke the connection ({reason_of(error)})")

    def _look(self) -> None:
        if self._connection.error is None:
            self._stream.read_on()
        now = monotonic()
        if now < self._deadline:
            self._alarm.set(min(self._deadline, now + LOOK), now)
            return
        self._connection.hang_up(
            ProtocolError(
                f"nobody greeted at {self._connection.address} within {self._timeout:g} s: is it a gtask server, or "
                "does setup hang?"
            )
        )
