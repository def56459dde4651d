"""The hooks of a worker: setup before its first call, checkout_done, and teardown at its end.

While a hook runs the scoreboard shows so, and SIGALRM may interrupt it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from gtask.server.scoreboard import HOOKS, SETUP, SETUPS

if TYPE_CHECKING:
    from gtask.server.scoreboard import BoardLine
    from gtask.server.worker.interface import Interface
    from gtask.server.worker.interruption import Interruption

__all__ = ["Hooks"]

log = logging.getLogger("gtask.server")


class Hooks:
    """The hooks of one worker. None but setup runs unless setup has succeeded.

    Args:
        interface: has the hooks.
        board: the worker's line of the scoreboard.
        interruption: what SIGALRM may interrupt.
    """

    def __init__(self, interface: Interface, board: BoardLine, interruption: Interruption) -> None:
        self._interface = interface
        self._board = board
        self._interruption = interruption
        self._is_set_up = False

    def set_up(self) -> BaseException | None:
        """Run setup. Gives the error that it has raised, of which the log knows, but not yet the client."""
        try:
            self._run(SETUP, self._interface.setup)
        except BaseException as error:
            self._complain(error)
            return error
        self._is_set_up = True
        return None

    def checkout_done(self) -> BaseException | None:
        """Run checkout_done. Gives the error that it has raised, of which the log knows: the worker may be unclean."""
        try:
            if self._is_set_up:
                self._run(HOOKS, self._interface.checkout_done)
        except BaseException as error:
            log.exception("checkout_done failed in worker %d; it asks to be retired", os.getpid())
            return error
        return None

    def end(self) -> None:
        """Run the hooks that are due when the worker ends; raises what they raise."""
        if self._is_set_up:
            try:
                if self._board.lent:
                    self._run(HOOKS, self._interface.checkout_done)
            finally:
                self._run(HOOKS, self._interface.teardown)

    def _run(self, phase: int, hook: Callable[[], object]) -> None:
        now = monotonic()
        self._board.begin(now, phase)
        self._interruption.began = now
        try:
            hook()
        finally:
            self._interruption.began = 0.0

    def _complain(self, error: BaseException) -> None:
        """Setup has raised: count it, and say so in the log, but not for each worker that tries."""
        self._board.setup_failed()
        count = self._board.complaints.add(monotonic(), SETUPS)
        if count:
            log.error("setup has raised (%d times since the last such line)", count, exc_info=error)
