"""Notices what is wanted of all that a worker logs. The application's own handlers get what they got before."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gtask.aspects.logs.levels import MANY, of_parent

__all__ = ["Capture", "is_told"]

_told: set[int] = set()


def is_told(record: logging.LogRecord) -> bool:
    """In a handler: whether the record has gone to the caller, too."""
    return id(record) in _told


class Capture:
    """Notices what is wanted of all that this process logs. The application's own handlers get what they got before.

    Args:
        tell: takes each record that is wanted, in the thread that logs it.
        is_open: whether a call runs, so that records are wanted at all.
    """

    def __init__(self, tell: Callable[[logging.LogRecord], None], is_open: Callable[[], bool]) -> None:
        self._tell = tell
        self._is_open = is_open
        self._levels: dict[str, int] = {}
        self._of: dict[str, int] = {}  # of each logger that was asked for
        self._installed = False

    def want(self, levels: dict[str, int]) -> None:
        """From now on records of these levels are wanted; of none, if the map is empty."""
        self._levels, self._of = levels, {}
        if not self._installed and levels:
            self._install()

    def _wants(self, name: str, level: int) -> bool:
        least = self._of.get(name)
        if least is None:
            least = self._levels.get("" if name == "root" else name) or of_parent(self._levels, name)
            if len(self._of) < MANY:
                self._of[name] = least
        return level >= least

    def _install(self) -> None:
        # In the class, because a handler can neither see what its logger's level hides, nor follow loggers that do not
        # propagate, and the levels of the application's loggers must stay for its own handlers.
        self._installed = True
        enabled, call_handlers = logging.Logger.isEnabledFor, logging.Logger.callHandlers

        def is_enabled_for(logger: logging.Logger, level: int) -> bool:
            return enabled(logger, level) or (
                self._is_open() and not logger.disabled and self._wants(logger.name, level)
            )

        def call(logger: logging.Logger, record: logging.LogRecord) -> None:
            told = self._is_open() and self._wants(logger.name, record.levelno)
            if told:
                self._tell(record)
            # Without a handler the record would go to stderr: its caller has it already.
            if enabled(logger, record.levelno) and (logger.hasHandlers() or not told):
                try:
                    if told:
                        _told.add(id(record))
                    call_handlers(logger, record)
                finally:
                    _told.discard(id(record))

        logging.Logger.isEnabledFor = is_enabled_for  # type: ignore[method-assign, assignment]
        logging.Logger.callHandlers = call  # type: ignore[method-assign, assignment]
