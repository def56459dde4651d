"""What a client counts, as it happens; :class:`gtask.stats.ClientStats` is a snapshot of it. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from gtask.stats import BOUNDS, ClientStats, Times

__all__ = ["Counters", "Stopwatch", "count"]

SHORT = BOUNDS[0]

CAUSES = 50
"""The most causes that are told apart: a worker may give any reason for its retirement."""


@dataclass(slots=True)
class Stopwatch:
    """How often something took how long.

    Attributes:
        none: how often it took no time at all, beside what ``buckets`` has.
    """

    none: int = 0
    total: float = 0.0
    longest: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    @property
    def count(self) -> int:
        """How often."""
        return self.none + sum(self.buckets)

    def add(self, seconds: float) -> None:
        """Count one more that took this time."""
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds
        self.buckets[0 if seconds <= SHORT else bisect_left(BOUNDS, seconds)] += 1

    def take_back(self, seconds: float) -> None:
        """Undo the last add, or the last count of none."""
        if not seconds:
            self.none -= 1
            return
        self.total -= seconds
        self.buckets[bisect_left(BOUNDS, seconds)] -= 1

    def snapshot(self) -> Times:
        """The times as they are now."""
        first, *others = self.buckets
        return Times(self.count, self.total, self.longest, (first + self.none, *others))


@dataclass(slots=True)
class Counters:
    """The counters of :class:`gtask.stats.ClientStats`, under the same names."""

    calls: int = 0
    errors: int = 0
    call_timeouts: int = 0
    acquire_timeouts: int = 0
    deaths: dict[str, int] = field(default_factory=dict)
    retirements: dict[str, int] = field(default_factory=dict)
    connects: int = 0
    failed_connects: int = 0
    rejected: int = 0
    shed: int = 0
    leaks: int = 0
    server_restarts: int = 0
    waits: Stopwatch = field(default_factory=Stopwatch)
    uses: Stopwatch = field(default_factory=Stopwatch)

    def snapshot(self, **gauges: int) -> ClientStats:
        """All counters, beside these gauges."""
        return ClientStats(
            checkouts=self.waits.count,
            calls=self.calls,
            errors=self.errors,
            call_timeouts=self.call_timeouts,
            acquire_timeouts=self.acquire_timeouts,
            deaths=dict(self.deaths),
            retirements=dict(self.retirements),
            connects=self.connects,
            failed_connects=self.failed_connects,
            rejected=self.rejected,
            shed=self.shed,
            leaks=self.leaks,
            server_restarts=self.server_restarts,
            waits=self.waits.snapshot(),
            uses=self.uses.snapshot(),
            **gauges,
        )


def count(causes: dict[str, int], cause: str) -> None:
    """Count one more of this cause."""
    if cause not in causes and len(causes) >= CAUSES:
        cause = "other"
    causes[cause] = causes.get(cause, 0) + 1
