"""A setup that raises, in the log of the server."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtask.server.scoreboard import BoardLine

__all__ = ["complain"]

log = logging.getLogger("gtask.server")


def complain(board: BoardLine, error: BaseException) -> None:
    """In a worker: setup has raised. Count it, and say so in the log, but not for each worker that tries."""
    board.setup_failed()
    count = board.complaints.add(monotonic())
    if count:
        log.error("setup has raised (%d times since the last such line)", count, exc_info=error)
