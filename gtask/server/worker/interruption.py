"""How the master interrupts a worker: SIGALRM raises :class:`gtask.Interrupted` at the line that runs.

Only what is marked as interruptible is interrupted (the reading of messages, calls with the encoding of their values,
and hooks), and only if the master has aimed at it: a call that ends in the moment of the signal is not confused with
the next.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from gtask.errors import Interrupted

if TYPE_CHECKING:
    from gtask.server.scoreboard import BoardLine

__all__ = ["Interruption"]


class Interruption:
    """What SIGALRM may interrupt in this worker, and whether it has. A worker is interrupted once: then it ends.

    Args:
        board: the worker's line of the scoreboard, in which the master aims.
        flush: sends the replies that are held, at each SIGALRM; the timer that guards held replies raises it, too.

    Attributes:
        began: when the interruptible code began that runs now, as the board has it; 0 where nothing may be interrupted.
        error: the exception that was raised, also if the application has swallowed it.
    """

    __slots__ = ("_board", "_came", "_flush", "_waits", "began", "error")

    def __init__(self, board: BoardLine, flush: Callable[[], None]) -> None:
        self._board = board
        self._flush = flush
        self._waits = self._came = False
        self.began = 0.0
        self.error: Interrupted | None = None

    def on_alarm(self, number: int, frame: object) -> None:
        """The handler of SIGALRM."""
        began = self.began
        if not began:
            return
        if self._waits:
            self._came = True
            return
        self._flush()
        if self._board.is_aimed_at(began):
            self.began = 0.0
            self.error = Interrupted("the caller has given up, or the call took longer than the server allows")
            raise self.error

    def hold_back(self) -> bool:
        """In the main thread: let SIGALRM wait until :meth:`let_go`.

        Returns:
            False if it waits already.
        """
        if self._waits:
            return False
        self._waits = True
        return True

    def let_go(self) -> None:
        """Handle the SIGALRM that has come meanwhile, if one has."""
        self._waits = False
        if self._came:
            self._came = False
            self.on_alarm(signal.SIGALRM, None)
