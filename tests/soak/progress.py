"""A line of figures every few seconds, and a summary."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from time import monotonic, process_time
from typing import Any

import gevent

from tests.soak.record import NOTHING, Record

__all__ = ["Progress"]

EVERY = 5.0
TICK = 0.01


@dataclass(frozen=True, order=True)
class Gap:
    """A time for which the hub stood still.

    Attributes:
        seconds: how long.
        ran: seconds of them in which this process ran; in the others it waited for a processor.
        collected: seconds of them in which it collected garbage.
    """

    seconds: float = 0.0
    ran: float = 0.0
    collected: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.seconds * 1000:.0f} ms ({self.ran * 1000:.0f} ms of processor time, "
            f"{self.collected * 1000:.0f} ms in garbage collections)"
        )


class Collections:
    """The seconds that all garbage collections have taken."""

    def __init__(self) -> None:
        self.seconds = self._begun = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        """One begins or ends."""
        if phase == "start":
            self._begun = monotonic()
        else:
            self.seconds += monotonic() - self._begun


class Progress:
    """Prints figures while the soak runs, and measures how long the hub stands still.

    Args:
        record: where the figures come from.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._begin = self._printed = monotonic()
        self._end: float | None = None
        self._longest_gap = self._gap = Gap()
        self._collections = Collections()
        gc.callbacks.append(self._collections)
        self._greenlet = gevent.spawn(self._run)

    def end(self) -> None:
        """What comes from now on is in no figure; the gaps of the hub are recorded all the same, until :meth:`stop`."""
        self._end = monotonic()

    def stop(self) -> None:
        gevent.sleep(2 * TICK)  # a gap is known when it is over
        self._greenlet.kill()
        gc.callbacks.remove(self._collections)

    def _run(self) -> None:
        last, ran, collected = monotonic(), process_time(), self._collections.seconds
        while True:
            gevent.sleep(TICK)
            now = monotonic()
            gap = Gap(now - last - TICK, process_time() - ran, self._collections.seconds - collected)
            if gap.seconds > TICK:
                self._record.gap(gap.seconds)
            last, ran, collected = now, process_time(), self._collections.seconds
            if self._end is None:
                self._gap = max(self._gap, gap)
                if now - self._printed >= EVERY:
                    self._print(now)

    def _print(self, now: float) -> None:
        record = self._record
        print(
            f"{now - self._begin:6.0f} s: {record.calls} calls, {len(record.under_way)} under way, "
            f"{record.outcomes['value']} values; {_figures(record.faults)}; "
            f"longest call {record.longest:.2f} s; longest tick gap since the last line {self._gap}",
            flush=True,
        )
        self._printed = now
        self._longest_gap, self._gap = max(self._longest_gap, self._gap), Gap()

    def summary(self) -> str:
        """What there is to say at the end."""
        record = self._record
        seconds = (self._end or monotonic()) - self._begin
        errors = {name: count for name, count in record.outcomes.items() if name not in ("value", NOTHING)}
        return "\n".join(
            [
                f"{record.calls} calls in {seconds:.1f} s, {record.calls / seconds:.0f}/s; "
                f"{record.outcomes['value']} values, {len(record.under_way)} without an outcome",
                f"errors: {_figures(errors)}",
                f"faults: {_figures(record.faults)}",
                f"longest call {record.longest:.2f} s; longest tick gap of the hub {max(self._longest_gap, self._gap)}",
            ]
        )


def _figures(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"
