"""A line of figures every few seconds, and a summary."""

from __future__ import annotations

from time import monotonic

import gevent

from tests.soak.record import NOTHING, Record

__all__ = ["Progress"]

EVERY = 5.0
TICK = 0.01


class Progress:
    """Prints figures while the soak runs, and measures how long the hub stands still.

    Args:
        record: where the figures come from.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._begin = self._printed = monotonic()
        self._longest_gap = self._gap = 0.0
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        self._end = monotonic()
        self._greenlet.kill()

    def _run(self) -> None:
        last = monotonic()
        while True:
            gevent.sleep(TICK)
            now = monotonic()
            self._gap = max(self._gap, now - last - TICK)
            last = now
            if now - self._printed >= EVERY:
                self._print(now)

    def _print(self, now: float) -> None:
        record = self._record
        print(
            f"{now - self._begin:6.0f} s: {record.calls} calls, {len(record.under_way)} under way, "
            f"{record.outcomes['value']} values; {_figures(record.faults)}; "
            f"longest call {record.longest:.2f} s; longest tick gap since the last line {self._gap * 1000:.0f} ms",
            flush=True,
        )
        self._printed = now
        self._longest_gap, self._gap = max(self._longest_gap, self._gap), 0.0

    def summary(self) -> str:
        """What there is to say at the end."""
        record = self._record
        seconds = self._end - self._begin
        errors = {name: count for name, count in record.outcomes.items() if name not in ("value", NOTHING)}
        return "\n".join(
            [
                f"{record.calls} calls in {seconds:.1f} s, {record.calls / seconds:.0f}/s; "
                f"{record.outcomes['value']} values, {len(record.under_way)} without an outcome",
                f"errors: {_figures(errors)}",
                f"faults: {_figures(record.faults)}",
                f"longest call {record.longest:.2f} s; "
                f"longest tick gap of the hub {max(self._longest_gap, self._gap) * 1000:.0f} ms",
            ]
        )


def _figures(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"
