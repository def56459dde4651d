"""What comes with the outcome of a call: log records to replay, deferred messages to merge, a span to end.

Few calls have one: those that log something, and those that a request log or a trace knows.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from types import ModuleType
from typing import Any, Protocol

from gtask.aspects.logs.replay import replay
from gtask.wire.messages import Failure, LogRecords, Value

__all__ = ["CallReport", "RequestLog", "Span"]

log = logging.getLogger("gtask.client")

MOST = 20_000
"""Records that one call may have; a gtask server sends fewer."""

LARGEST = 16 * 1024 * 1024
"""About how many characters they may have, all together."""


class Timer(Protocol):
    """Measures a call."""

    def stop(self) -> None: ...


class RequestLog(Protocol):
    """Where deferred messages go; see :class:`gtask.logdefer.RequestLog`."""

    def call(self, method: str) -> Timer:
        """A call begins."""

    def merge(self, ld: object, *, pid: int, sent: float, received: float) -> None:
        """Take what a worker has gathered between those times."""


class Span(Protocol):
    """The call as part of a trace; see :mod:`gtask.aspects.tracing`."""

    @property
    def headers(self) -> dict[str, str]: ...

    def end(self, error: BaseException | None) -> None: ...


class CallReport:
    """Of one call.

    Args:
        request_log: where its deferred messages go, if they are wanted.
        method: its name, for that.
        span: its span, if it is traced.

    Attributes:
        pid: of its worker, once anything has come from it.
    """

    __slots__ = ("_dropped", "_gathered", "_records", "_request_log", "_size", "_span", "_timer", "_weight", "pid")

    def __init__(self, request_log: RequestLog | None = None, method: str = "", span: Span | None = None) -> None:
        self.pid = 0
        self._request_log = request_log
        self._timer = request_log.call(method) if request_log is not None else None
        self._span = span
        self._records: list[Any] = []
        self._gathered: list[Any] = []
        self._dropped = self._size = self._weight = 0

    @property
    def has_request_log(self) -> bool:
        """Whether deferred messages go to a request log."""
        return self._request_log is not None

    @property
    def has_records(self) -> bool:
        """Whether there is anything to replay."""
        return bool(self._records or self._dropped)

    def take(self, message: LogRecords, pid: int) -> None:
        """Something has come before the reply."""
        self.pid = pid
        self._dropped += message.dropped
        self._size += message.size
        if message.ld is not None:
            self._weight += _weight(message.ld)
            if len(self._gathered) >= MOST or self._weight > LARGEST:
                self._dropped += 1
            else:
                self._gathered.append(message.ld)
        for record in message.records:
            self._weight += _weight(record)
            if len(self._records) >= MOST or self._weight > LARGEST:
                self._dropped += 1
            else:
                self._records.append(record)

    def end(self, outcome: object, error: BaseException | None, sent: float, now: float) -> None:
        """The call has ended. Called once, also in the hub; nothing knows the request log or the span any more."""
        request_log, self._request_log = self._request_log, None
        timer, self._timer = self._timer, None
        span, self._span = self._span, None
        gathered, self._gathered = self._gathered, []
        if isinstance(outcome, (Value, Failure)) and outcome.ld is not None:
            gathered.append(outcome.ld)
        if timer is not None:
            timer.stop()
        if request_log is not None:
            for ld in gathered:
                request_log.merge(ld, pid=self.pid, sent=sent, received=now)
        if span is not None:
            span.end(error)

    def replay(self, method: str, raises: Collection[type | ModuleType] | None) -> None:
        """Hand the log records to the loggers of this process, in this greenlet."""
        records, self._records = self._records, []
        dropped, self._dropped = self._dropped, 0
        replay(records, self.pid, raises)
        if dropped:
            log.warning(
                "%s in worker %d logged too much: %d records with about %d bytes were left out",
                method,
                self.pid,
                dropped,
                self._size,
            )


def _weight(value: object, nesting: int = 8) -> int:
    """About how many characters plain data has."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if nesting and isinstance(value, dict):
        return 20 + sum(_weight(key) + _weight(item, nesting - 1) for key, item in value.items())
    if nesting and isinstance(value, (list, tuple, set, frozenset)):
        return 20 + sum(_weight(item, nesting - 1) for item in value)
    return 10
