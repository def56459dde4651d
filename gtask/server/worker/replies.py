"""How a worker sends its replies: at once, or, when many calls lie in its buffer and are quick, several together.

Sending each of a hundred replies by itself, and waking the client for each, costs more than a hundred quick calls.
But a finished reply must not wait behind a slow call. So a reply is held only while the next request lies in the
buffer already and its method has always been quick, and then only briefly; should that call be slow this time, a
timer's SIGALRM sends what is held; should it end the worker, the master does, for what is held is in shared memory.

What a call tells before its reply (:mod:`gtask.aspects.worker`) is held there, too, if there is no hurry.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from time import monotonic

from gtask.server.scoreboard import BoardLine

__all__ = ["ReplyBuffer"]

QUICK = 50e-6
"""Seconds that the calls of a method take if replies may wait for them."""

HOLD = 200e-6
"""Seconds that a reply may wait when the next call begins."""

SLOW = 1e-3
"""Seconds after which the timer sends what is held while a call runs that should have been quick."""

METHODS = 1000
"""How many methods are known: a callable may get anything as its first argument."""


class ReplyBuffer:
    """The replies of one worker.

    Args:
        sock: the connection, blocking.
        slot: the worker's line of the scoreboard; it has room for held replies.
        handler: the worker's handler of SIGALRM, which calls :meth:`flush` if the application's code runs.

    Attributes:
        holds: whether anything is held.
        more_follow: whether another request lies in the buffer, behind the one that is answered next.
    """

    __slots__ = ("_fires_at", "_handler", "_hold_until", "_slot", "_socket", "_usual", "holds", "more_follow")

    def __init__(self, sock: socket.socket, slot: BoardLine, handler: Callable[[int, object], None]) -> None:
        self.more_follow = False
        self._socket = sock
        self._slot = slot
        self._handler = handler
        self.holds = False
        self._hold_until = 0.0  # 0 while no reply is
        self._fires_at = 0.0  # when the timer does; 0 if it was stopped
        self._usual: dict[str, float] = {}

    def before(self, method: str, now: float) -> None:
        """A call begins: send what is held, unless the call will be quick."""
        if self._usual.get(method, 1.0) > QUICK:
            self.flush()
            if self._fires_at:
                if now < self._fires_at:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                self._fires_at = 0.0
        elif self._hold_until and (now > self._hold_until or now > self._fires_at):
            self.flush()

    def after(self, method: str, started: float) -> None:
        """A call has ended: remember how long such calls take."""
        took = monotonic() - started
        usual = self._usual.get(method)
        if usual is None:
            if len(self._usual) < METHODS:
                self._usual[method] = took
        elif took > usual or usual > QUICK:
            self._usual[method] = max(took, usual / 2)

    def send(self, frame: bytes) -> None:
        """Send a reply, or hold it until the next."""
        if self.more_follow and (self._hold_until or self._start_holding()) and self._slot.hold(frame):
            self.holds = True
        elif self.holds:
            self._send_all(frame)
        else:
            self._socket.sendall(frame)

    def tell(self, frame: bytes, now: bool) -> None:
        """Send something before the reply, now or with that."""
        if now or not self._slot.hold(frame):
            self._send_all(frame)
        else:
            self.holds = True

    def flush(self) -> None:
        """Send what is held. Safe in a signal handler that came in while the application's code ran."""
        if self.holds:
            self._send_all(b"")

    def _send_all(self, frame: bytes) -> None:
        self._hold_until = 0.0
        self.holds = False
        self._socket.sendall(self._slot.take_held() + frame)

    def _start_holding(self) -> bool:
        now = monotonic()
        if now + HOLD > self._fires_at:
            # The timer and its signal may be in use by the application: then nothing is held. Starting and stopping a
            # timer costs more than a call, so one serves all replies for a while.
            if signal.getsignal(signal.SIGALRM) != self._handler or (
                now > self._fires_at and signal.getitimer(signal.ITIMER_REAL)[0]
            ):
                return False
            signal.setitimer(signal.ITIMER_REAL, SLOW)
            self._fires_at = now + SLOW
        self._hold_until = now + HOLD
        return True
