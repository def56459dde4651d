"""The aspects of a client's calls: log records, deferred logs, values that have come pickled; and the list of all."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from gtask.aspects.aspect import CallerAspect, Companion
from gtask.aspects.context import ContextVariables
from gtask.aspects.logs.levels import Levels
from gtask.aspects.logs.record import size_of
from gtask.aspects.logs.replay import from_deferred, replay
from gtask.aspects.tracing import BY_ENVIRONMENT, OPENTELEMETRY, ClientTracing, spans
from gtask.errors import EncodeError, Error
from gtask.wire.messages import Failure, LogRecords, Value
from gtask.wire.values.pickles import unseal

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.config import ClientConfig
    from gtask.client.outcomes import Outcome
    from gtask.wire.messages import Message

__all__ = ["ASPECTS", "CallerAspects", "DeferredLogs", "RequestLog", "standing_orders"]

log = logging.getLogger("gtask.client")

MOST = 20_000
"""Records that one call may have; a gtask server sends fewer."""

LARGEST = 16 * 1024 * 1024
"""About how many characters they may have, all together."""


Peer = Callable[[], str]
"""Tells where the server is."""


class CallerAspects:
    """The aspects of a client, in the order in which they take part in a call.

    Args:
        config: the client's options.
        peer: tells where the server is.

    Attributes:
        all: those that may hear of a call.
    """

    def __init__(self, config: ClientConfig, peer: Peer) -> None:
        self._peer = peer
        self._may_trace = True
        if BY_ENVIRONMENT:
            spans()
        self.all = tuple(aspect for make in ASPECTS if (aspect := make(config, peer)) is not None)
        self._beginning = tuple(aspect for aspect in self.all if type(aspect).begin is not CallerAspect.begin)

    def of_checkout(self) -> tuple[CallerAspect, ...]:
        """Those that take part in the beginning of calls, for a checkout that is made now."""
        if self._may_trace and OPENTELEMETRY in sys.modules:
            self._may_trace = False
            module = spans()
            if module is not None:
                self._beginning = (ClientTracing(module, self._peer), *self._beginning)
        return self._beginning


# --- log records ---------------------------------------------------------------------------------------


class LogReplay(CallerAspect):
    """What a worker logs is replayed by the loggers of this process.

    Args:
        raises: as for :func:`gtask.wire.exceptions.failure.rebuild`, for the exceptions in records.
    """

    def __init__(self, raises: Collection[type | ModuleType] | None) -> None:
        self._raises = raises

    def hear(self, call: Call, message: Message) -> Companion | None:
        return Records(self._raises, call) if isinstance(message, LogRecords) else None


class Records(Companion):
    """The records of one call, until they are replayed."""

    __slots__ = ("_dropped", "_is_deferred", "_pid", "_raises", "_records", "_size", "_weight")

    def __init__(self, raises: Collection[type | ModuleType] | None, call: Call) -> None:
        self._raises = raises
        self._is_deferred = any(isinstance(aspect, DeferredLogs) for aspect in call.companions or ())
        self._records: list[Any] = []
        self._pid = self._dropped = self._size = self._weight = 0

    @property
    def needs_replay(self) -> bool:  # type: ignore[override]
        return bool(self._records or self._dropped)

    def heard(self, message: Message, pid: int) -> None:
        if isinstance(message, LogRecords):
            self._pid = pid
            self._dropped += message.dropped
            self._size += message.size
            # A deferred log that no request log wants comes from a worker that has no other way to log.
            records = [*message.records, *(() if self._is_deferred else from_deferred(message.ld))]
            for record in records:
                self._weight += size_of(record)
                if len(self._records) >= MOST or self._weight > LARGEST:
                    self._dropped += 1
                else:
                    self._records.append(record)

    def replay(self, call: Call) -> Error | None:
        records, self._records = self._records, []
        dropped, self._dropped = self._dropped, 0
        replay(records, self._pid, self._raises)
        if dropped:
            _warn(call, self._pid, dropped, self._size)
        return None


# --- deferred logs -------------------------------------------------------------------------------------


class Timer(Protocol):
    """Measures a call."""

    def stop(self) -> None: ...


class RequestLog(Protocol):
    """Where deferred messages go; see :class:`gtask.logdefer.RequestLog`. A program may bring another."""

    def call(self, method: str) -> Timer:
        """A call begins."""

    def merge(self, ld: object, *, pid: int, sent: float, received: float) -> None:
        """Take what a worker has gathered between those times."""


class DeferredLogs(CallerAspect):
    """The calls of one checkout are told to a request log, with what their workers write into it."""

    key = "ld"

    def __init__(self, request_log: RequestLog) -> None:
        self._request_log = request_log

    def begin(self, call: Call) -> tuple[Any, Companion | None] | None:
        return True, Deferred(self._request_log, call.method)


class Deferred(Companion):
    """What has come for the request log during one call."""

    __slots__ = ("_dropped", "_gathered", "_pid", "_request_log", "_timer", "_weight")

    def __init__(self, request_log: RequestLog, method: str) -> None:
        self._request_log: RequestLog | None = request_log
        self._timer = request_log.call(method)
        self._gathered: list[Any] = []
        self._pid = self._dropped = self._weight = 0

    @property
    def needs_replay(self) -> bool:  # type: ignore[override]
        return self._dropped > 0

    def heard(self, message: Message, pid: int) -> None:
        self._pid = pid
        if isinstance(message, LogRecords) and message.ld is not None:
            self._weight += size_of(message.ld)
            if len(self._gathered) < MOST and self._weight <= LARGEST:
                self._gathered.append(message.ld)
            else:
                self._dropped += 1

    def ended(self, call: Call, outcome: Outcome | None, error: BaseException | None) -> None:
        request_log, self._request_log = self._request_log, None
        gathered, self._gathered = self._gathered, []
        if isinstance(outcome, (Value, Failure)) and outcome.ld is not None:
            gathered.append(outcome.ld)
        if request_log is not None:
            self._timer.stop()
            for ld in gathered:
                request_log.merge(ld, pid=self._pid, sent=call.sent_at, received=monotonic())

    def replay(self, call: Call) -> Error | None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            _warn(call, self._pid, dropped, self._weight)
        return None


# --- values that have come pickled ---------------------------------------------------------------------


class Unpickling(CallerAspect):
    """A value that has come pickled is loaded in the caller's greenlet, for that runs the classes' own code."""

    def hear(self, call: Call, message: Message) -> Companion | None:
        return SealedValue(message) if isinstance(message, Value) and message.used else None


class SealedValue(Companion):
    """A value that is not loaded yet."""

    __slots__ = ("_value",)

    def __init__(self, value: Value) -> None:
        self._value = value

    @property
    def needs_replay(self) -> bool:  # type: ignore[override]
        return bool(self._value.used)

    @property
    def withholds_value(self) -> bool:  # type: ignore[override]
        return bool(self._value.used)

    def replay(self, call: Call) -> Error | None:
        holder = [self._value.value]
        try:
            unseal(holder, lambda _: f"{call.method} was executed, but its result")
        except EncodeError as error:
            return error
        self._value.value, self._value.used = holder[0], frozenset()
        return None


ASPECTS: list[Callable[[ClientConfig, Peer], CallerAspect | None]] = [
    lambda config, peer: LogReplay(config.raises) if config.logs else None,
    lambda config, peer: ContextVariables(config.context) if config.context else None,
    lambda config, peer: Unpickling() if config.pickle else None,
]
"""What makes the aspects of a client with these options, in their order. To add an aspect is to add a line. Tracing is
not among them: it joins when the program has loaded opentelemetry, so that no other program pays for it."""


def standing_orders(config: ClientConfig) -> Levels | None:
    """What the workers of a client must know: which log records are wanted."""
    return Levels() if config.logs else None


def _warn(call: Call, pid: int, dropped: int, size: int) -> None:
    text = "%s in worker %d logged too much: %d records with about %d bytes were left out"
    log.warning(text, call.method, pid, dropped, size)
