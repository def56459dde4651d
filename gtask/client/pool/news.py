"""Waiting until something is so of a pool: greenlets that block until it is open, or empty."""

from __future__ import annotations

import math
from collections.abc import Callable

from gtask.client.loop import Event, Loop

__all__ = ["News"]


LOOK = 60.0
"""Seconds between looks at a condition of which there is no news. The alarm for it holds the loop."""


class News:
    """Wakes those that wait for a condition, whenever something has changed."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._event: Event | None = None  # none before somebody has waited
        self._is_abandoned = False

    def tell(self) -> None:
        """Something has changed that somebody may wait for."""
        if self._event is not None and not self._is_abandoned:
            self._event.set()

    def abandon(self) -> None:
        """In a forked child: wake nobody any more, for those that wait are the parent's."""
        self._is_abandoned = True

    def wait_until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Block this greenlet until a condition holds.

        Args:
            condition: looked at again after each :meth:`tell`.
            timeout: seconds to wait; None for no limit.

        Returns:
            whether the condition holds; False after the time-out.
        """
        deadline = math.inf if timeout is None else self._loop.clock() + timeout
        while not condition():
            now = self._loop.clock()
            if now >= deadline:
                return False
            self._event = self._event or Event()
            self._event.clear()
            # Not the event's own time-out, which would wake this greenlet in a forked child, too.
            alarm = self._loop.alarm(self.tell, holds=True)
            alarm.set(min(deadline, now + LOOK), now)
            try:
                self._event.wait()
            finally:
                alarm.close()
        return True
