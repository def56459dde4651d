"""Which of many events of one kind are logged, so that no peer can fill a log. Pure."""

from __future__ import annotations

import math

__all__ = ["Seldom"]

BURST = 10
"""Events that are logged one by one."""

REPEAT = 60.0
"""Seconds after which that many are logged again."""


class Seldom:
    """The events of one kind."""

    def __init__(self) -> None:
        self._until = -math.inf
        self._told = self._left_out = 0

    def more(self, now: float) -> str | None:
        """It has happened again.

        Args:
            now: the time, on the monotonic clock.

        Returns:
            what its line is to end with: "", or how many were left out; None if it is not to be logged.
        """
        if now >= self._until:
            self._until, self._told = now + REPEAT, 0
        if self._told >= BURST:
            self._left_out += 1
            return None
        self._told += 1
        count, self._left_out = self._left_out, 0
        return f" ({count} more were not logged)" if count else ""
