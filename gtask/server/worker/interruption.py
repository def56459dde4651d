"""How the master interrupts a worker: SIGALRM raises :class:`gtask.Interrupted` at the line that runs.

Only what is marked as interruptible is interrupted (calls with the encoding of their values, and hooks), and only if
the master has aimed at it: a call that ends in the moment of the signal is not confused with the next.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from gtask.errors import Interrupted
from gtask.server import descriptors
from gtask.server.originals import handler_of, set_handler

if TYPE_CHECKING:
    from gtask.server.scoreboard import BoardLine

__all__ = ["Handlers", "Interruption", "handle", "reopener", "without_our_frames"]

Handlers = Mapping[int, Callable[[int, object], None]]


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


def handle(handlers: Handlers) -> None:
    """Have this process handle signals, and let come those that its master has sent meanwhile.

    In processes that the application forks, these signals mean what they mean anywhere.

    Args:
        handlers: a handler for each signal's number.
    """
    for number, handler in handlers.items():
        set_handler(number, handler)

    def forget() -> None:
        for number, handler in handlers.items():
            if handler_of(number) == handler:  # not if the application has its own
                set_handler(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=forget)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reopener(log_file: str) -> Callable[[int, object], None]:
    """A handler that opens the log file anew. If that fails nothing happens here: the master says so."""

    def on_usr1(number: int, frame: object) -> None:
        with contextlib.suppress(OSError):
            descriptors.reopen(log_file)

    return on_usr1


OURS = ("gtask.server.", "gtask.aspects.")


def without_our_frames(error: BaseException) -> BaseException:
    """The error with a traceback that begins and ends in the application."""
    # By way of BaseException: the error's own attributes may be code of the application.
    first: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    while first is not None and str(first.tb_frame.f_globals.get("__name__")).startswith(OURS):
        first = first.tb_next
    last = first
    while last is not None and last.tb_next is not None:
        if last.tb_next.tb_frame.f_code is Interruption.on_alarm.__code__:
            last.tb_next = None
        else:
            last = last.tb_next
    return BaseException.with_traceback(error, first)
