"""The master's view of its workers, and what is to be done next to whom. Pure: it is told the time.

While the server runs, workers come and go by themselves. When it stops, each gets SIGTERM, and after a while
SIGKILL.
"""

from __future__ import annotations

import math
import os
import signal
from dataclasses import dataclass

__all__ = ["Child", "Children", "Signal"]


@dataclass(slots=True)
class Child:
    """One worker.

    Attributes:
        pid: its process id.
        since: when it was forked.
    """

    pid: int
    since: float


@dataclass(slots=True, frozen=True)
class Signal:
    """Send this signal to this process."""

    pid: int
    number: int


class Children:
    """The living workers.

    Args:
        stop_timeout: seconds between SIGTERM and SIGKILL when the server stops.
    """

    def __init__(self, stop_timeout: float) -> None:
        self._stop_timeout = stop_timeout
        self._living: dict[int, Child] = {}
        self._kill_at = math.inf

    def __len__(self) -> int:
        return len(self._living)

    def forked(self, pid: int, now: float) -> None:
        """A worker was forked."""
        self._living[pid] = Child(pid, now)

    def ended(self, pid: int, status: int, now: float) -> str:
        """A child was reaped.

        Args:
            status: as ``os.waitpid`` gives it.

        Returns:
            a line for the log; "" if the worker ended as it should, or was told to.
        """
        child = self._living.pop(pid, None)
        code = os.waitstatus_to_exitcode(status)
        if child is None or code == 0 or self._kill_at < math.inf:
            return ""
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        return f"worker {pid} {how} after {now - child.since:.3g} s"

    def stop(self, now: float) -> list[Signal]:
        """The server stops."""
        self._kill_at = now + self._stop_timeout
        return [Signal(pid, signal.SIGTERM) for pid in self._living]

    def due(self, now: float) -> list[Signal]:
        """What has become due."""
        if now < self._kill_at:
            return []
        return [Signal(pid, signal.SIGKILL) for pid in self._living]

    def next_due(self) -> float:
        """When something becomes due next; infinite for never."""
        return self._kill_at if self._living else math.inf
