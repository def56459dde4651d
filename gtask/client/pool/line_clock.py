"""The time-outs of all leases that wait in line, with one timer for all of them.

To wait costs the same, however many wait, and most waits end long before their time-out. While somebody waits the
timer is set, also if nobody has a time-out, for it is what holds the loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from gtask.client.lease import Lease
    from gtask.client.loop import Loop

__all__ = ["Deadlines", "LineClock"]

T = TypeVar("T", bound=Hashable)

LOOK = 1.0
"""Seconds between looks whether somebody still waits."""

SLACK = 64
"""Empty entries that a heap may have before it is made anew."""


class LineClock:
    """Calls ``lease.overdue`` for each lease that has waited in line until its deadline.

    Args:
        loop: of the pool.
        interrupted: asks for an audit of the pool.
    """

    def __init__(self, loop: Loop, interrupted: Callable[[], None]) -> None:
        self._loop = loop
        self._interrupted = interrupted
        self._deadlines: Deadlines[Lease] = Deadlines()
        self._alarm = loop.alarm(self._ring, holds=True)

    def start(self, lease: Lease, deadline: float) -> None:
        """The lease waits, until this time of the monotonic clock; infinite for no limit."""
        self._deadlines.set(lease, deadline)
        if self._deadlines.first <= self._alarm.at:  # infinite, both of them, for the first without a time-out
            self._set_alarm()

    def stop(self, lease: Lease) -> None:
        """The lease waits no longer."""
        self._deadlines.discard(lease)

    def repair(self) -> None:
        """After an interruption: no lease that waits is forgotten."""
        self._deadlines.rebuild()
        self._set_alarm()

    def close(self) -> None:
        """Nobody waits any more."""
        self._alarm.close()

    def _ring(self) -> None:
        now = self._loop.clock()
        try:
            while (lease := self._deadlines.due(now)) is not None:
                lease.overdue()
                self._deadlines.discard(lease)
        except BaseException:  # a Ctrl-C strikes in the hub, too
            self._interrupted()
            raise
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._deadlines:
            now = self._loop.clock()
            self._alarm.set(min(self._deadlines.first, now + LOOK), now)


class Deadlines(Generic[T]):
    """Things, each with a deadline. Pure.

    A heap, in which the entry of a thing that was discarded stays, empty, until it comes up, or until more than half of
    the heap is empty.
    """

    def __init__(self) -> None:
        self._entries: dict[T, list[Any]] = {}  # each the deadline, a number to tell equal ones apart, and the thing
        self._heap: list[list[Any]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, thing: T, deadline: float) -> None:
        """Give a thing this deadline, in place of any other."""
        self.discard(thing)
        entry = [deadline, next(self._numbers), thing]
        self._entries[thing] = entry  # first: an interruption that keeps it from the heap is found by rebuild()
        heappush(self._heap, entry)

    def discard(self, thing: T) -> None:
        """Forget a thing. One that has no deadline may be forgotten, too."""
        entry = self._entries.pop(thing, None)
        if entry is not None:
            entry[2] = None
            if len(self._heap) > 2 * len(self._entries) + SLACK:
                self.rebuild()

    @property
    def first(self) -> float:
        """The earliest deadline, which may be that of a thing forgotten meanwhile; infinite for none."""
        return self._heap[0][0] if self._heap else float("inf")

    def due(self, now: float) -> T | None:
        """A thing whose deadline has come, or None. The caller discards it when it has been seen to."""
        heap = self._heap
        while heap and (heap[0][2] is None or heap[0][0] <= now):
            if heap[0][2] is not None:
                thing: T = heap[0][2]
                return thing
            heappop(heap)
        return None

    def rebuild(self) -> None:
        """Make the heap anew of what has a deadline: to save memory, or after an interruption."""
        self._heap = list(self._entries.values())
        heapify(self._heap)
