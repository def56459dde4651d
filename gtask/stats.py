"""Frozen snapshots of what a client has done and is doing, for metrics and logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BOUNDS", "ClientStats", "Times"]

BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds: the upper bound of each bucket but the last, which has none."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took.

    Attributes:
        count: how often.
        total: seconds, all together.
        longest: seconds that the longest took.
        buckets: for each of :data:`BOUNDS`, how many took at most this number of seconds, and more than the one
            before; and last, how many took longer.
    """

    count: int = 0
    total: float = 0.0
    longest: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)

    @property
    def mean(self) -> float:
        """Seconds; 0 if there were none."""
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class ClientStats:
    """What :meth:`gtask.Client.stats` returns. Gauges tell how it is now; counters, what has been since the client was
    made, or since the last :meth:`gtask.Client.pop_stats`.

    Attributes:
        min_workers, max_workers: gauges: how many workers there should and may be.
        idle, busy, connecting, settling: gauges: how many workers are in each state. A settling worker is released and
            runs checkout_done.
        waiting: gauge: how many checkouts stand in line.
        checkouts: workers that were lent.
        calls: calls that were made, submitted ones included.
        errors: calls whose worker raised.
        call_timeouts: calls that took too long.
        acquire_timeouts: checkouts that got no worker in time.
        deaths: workers that died, by cause: the name of a signal, ``exit N``, or ``connection lost``.
        retirements: workers that the client has closed, by cause: ``max_checkouts``, ``max_lifetime``, ``max_idle``,
            ``drain``, ``resize``, ``close``, ``a call raised``, ``interrupted`` (cancelled ones included), ``protocol
            error``, ``setup failed`` (said in the reply to a call, with JSON), or what the worker gave as its reason.
        connects, failed_connects: workers that came, and attempts at which none did (failed setups included).
        rejected: checkouts that max_waiting has turned away.
        shed: waiting checkouts that shed_target has turned away.
        leaks: checkouts that were held longer than leak_after.
        server_restarts: private servers that had served and ended, and were replaced by another.
        waits: how long checkouts waited for their worker.
        uses: how long they had it.
    """

    min_workers: int
    max_workers: int
    idle: int
    busy: int
    connecting: int
    settling: int
    waiting: int
    checkouts: int
    calls: int
    errors: int
    call_timeouts: int
    acquire_timeouts: int
    deaths: Mapping[str, int]
    retirements: Mapping[str, int]
    connects: int
    failed_connects: int
    rejected: int
    shed: int
    leaks: int
    server_restarts: int
    waits: Times
    uses: Times
