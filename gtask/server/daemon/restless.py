"""Tells a file that the application writes when it is loaded from one that is edited. Pure: the time is an argument.

With ``--reload`` the former asks for another reload each time, without end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["IN_A_ROW", "Restless"]

CALM = 1.5
"""Seconds after a reload in which another request is taken for its consequence."""

IN_A_ROW = 5
"""Reloads, each a consequence of the one before, after which requests are not heeded."""


@dataclass(slots=True)
class Restless:
    """The requests of masters that have seen a file change.

    Attributes:
        count: how many have come in a row.
    """

    count: int = 0
    _ready_at: float = -math.inf

    def ready(self, now: float) -> None:
        """A reload has ended."""
        self._ready_at = now

    def asked(self, now: float, is_under_way: bool) -> bool:
        """A master asks for a reload.

        Args:
            is_under_way: whether another master is starting.

        Returns:
            whether to reload.
        """
        if not is_under_way and now > self._ready_at + CALM:
            self.count = 0
        self.count += 1
        return self.count <= IN_A_ROW
