"""How a worker sends its replies: at once, or, when many calls lie in its buffer and are quick, several together.

To send each of a hundred replies by itself, and to wake the client for each, costs more than a hundred quick calls.
But a finished reply must not wait behind a slow call. So a reply is held only while the next request lies in the
buffer already and its method has always been quick, and then only briefly. If that call is slow this time, a timer's
SIGALRM sends the held replies; if it ends the worker, the master does, for they are held in shared memory.

Messages before a reply (log records, say) are held there, too, if there is no hurry: :mod:`gtask.server.worker.teller`.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from gtask.wire.pieces import LargeFrame

if TYPE_CHECKING:
    from gtask.server.scoreboard import BoardLine

__all__ = ["QUICK", "ReplyBuffer"]

QUICK = 50e-6
"""Seconds that the calls of a method take if replies may wait for them."""

HOLD = 200e-6
"""Seconds that a reply may wait when the next call begins."""

SLOW = 1e-3
"""Seconds after which the timer sends the held replies while a call runs that should have been quick."""


class ReplyBuffer:
    """The replies of one worker.

    Args:
        sock: the connection, blocking.
        board: the worker's line of the scoreboard; it has room for held replies.
        handler: the worker's handler of SIGALRM, which calls :meth:`flush` if the application's code runs.

    Attributes:
        holds: whether anything is held.
        more_follow: whether another request lies in the buffer, behind the one that is answered next.
        is_holding: whether replies may be held, or the timer may run, so that :meth:`before` is to be called.
        lock: taken by each thread that writes while a call runs.
    """

    __slots__ = (
        "_board", "_fileno", "_fires_at", "_handler", "_hold_until", "_send",
        "holds", "is_holding", "lock", "more_follow",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, board: BoardLine, handler: Callable[[int, object], None]) -> None:
        self._send, self._fileno = sock.sendall, sock.fileno()
        self._board, self._handler = board, handler
        self._hold_until = 0.0  # 0 while no reply is held
        self._fires_at = 0.0  # when the timer does; 0 if it was stopped
        self.holds = self.more_follow = self.is_holding = False
        self.lock = threading.RLock()

    def before(self, usual: float, now: float) -> None:
        """A call begins: send the held replies, unless the call will be quick.

        Args:
            usual: seconds that calls of its method take.
            now: the time, on the monotonic clock.
        """
        if usual > QUICK:
            self.flush()
            if now < self._fires_at:
                signal.setitimer(signal.ITIMER_REAL, 0)
            self._fires_at = 0.0
            self.is_holding = False
        elif self._hold_until and (now > self._hold_until or now > self._fires_at):
            self.flush()

    def send(self, frame: bytes | LargeFrame) -> None:
        """Send a reply, or hold it until the next."""
        if type(frame) is LargeFrame:
            self._send_all(frame)
        elif self.more_follow and (self._hold_until or self._start_holding()) and self._board.hold(frame):
            self.holds = True
        elif self.holds:
            self._send_all(frame)
        else:
            sent = os.write(self._fileno, frame)  # os.write takes less than sendall
            if sent < len(frame):  # a signal has come meanwhile
                self._send(frame[sent:])

    def tell(self, frame: bytes, now: bool) -> None:
        """Send a message before the reply: now or with the reply."""
        if now or not self._board.hold(frame):
            self._send_all(frame)
        else:
            self.holds = True

    def flush(self) -> None:
        """Send the held replies. Safe in a signal handler that came in while the application's code ran."""
        if self.holds:
            with self.lock:
                self._send_all(b"")

    def _send_all(self, frame: bytes | LargeFrame) -> None:
        self._hold_until = 0.0
        self.holds = False
        frame = self._board.take_held() + frame
        for piece in frame.pieces if type(frame) is LargeFrame else (frame,):
            self._send(piece)

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
        self.is_holding = True
        return True
