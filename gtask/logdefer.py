"""The log of one request: its messages, timers and data are gathered, and handed on as one record at its end.

At the caller a :class:`RequestLog` gathers, also what workers have written by :func:`current` during the calls of
``client.checkout(log=request_log)``. The idea and the shape of a record are those of Perl's Log::Defer, so that its
tools can read them::

    {"start": seconds since 1970, "end": seconds since then, "logs": [[offset, level, *values], ...],
     "timers": [[name, begin, end], ...], "data": {...}}

with the levels 10 (error), 20 (warn), 30 (info) and 40 (debug).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic, time
from types import TracebackType
from typing import Any

from gtask.wire.exceptions import failure
from gtask.wire.plain import Room

__all__ = ["Log", "RequestLog", "Timer", "begin_call", "current", "end_call", "take", "watch"]

ERROR, WARN, INFO, DEBUG = 10, 20, 30, 40

MESSAGES, TIMERS = 10_000, 1_000
"""How many of each a log keeps."""

CHARACTERS = 4 * 1024 * 1024
"""Characters of its messages, about, that a log keeps."""

TEXT_LIMIT = 65536
"""Characters of one value of a worker's message."""

_LEVELS = {ERROR: logging.ERROR, WARN: logging.WARNING, INFO: logging.INFO, DEBUG: logging.DEBUG}


class Timer:
    """Measures something, until the end of its ``with`` block or :meth:`stop`."""

    __slots__ = ("_begin", "_log", "name")

    def __init__(self, log: Log, name: str) -> None:
        self.name = name
        self._log: Log | None = log
        self._begin = log._offset()

    def __repr__(self) -> str:
        return f"<Timer {self.name!r}, {'stopped' if self._log is None else 'running'}>"

    def stop(self) -> None:
        """End it; again does nothing."""
        log, self._log = self._log, None
        if log is not None:
            log._stopped(self, self._begin)

    def __enter__(self) -> Timer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class Log:
    """Messages, timers and data. In a worker :func:`current` gives one; at the caller it is a :class:`RequestLog`.

    Args:
        verbosity: messages with a higher level are not kept; default 40, which keeps all.

    Attributes:
        data: whatever else belongs to the request, by name.
    """

    def __init__(self, *, verbosity: int = DEBUG) -> None:
        # When it was is a date; how long since then is measured.
        self._start = time()
        self._zero = monotonic()
        self._verbosity = verbosity
        self._messages: deque[list[Any]] = deque()
        self._timers: deque[list[Any]] = deque()
        self._running: dict[int, Timer] = {}
        self._kept = self._kept_timers = self._characters = 0
        self._dropped = 0
        self.data: dict[str, Any] = {}

    def error(self, *values: Any) -> None:
        """Keep a message of level 10. The values are kept as they are; a first one that is a function is called."""
        self.log(ERROR, *values)

    def warn(self, *values: Any) -> None:
        """Keep a message of level 20."""
        self.log(WARN, *values)

    def info(self, *values: Any) -> None:
        """Keep a message of level 30."""
        self.log(INFO, *values)

    def debug(self, *values: Any) -> None:
        """Keep a message of level 40."""
        self.log(DEBUG, *values)

    def log(self, level: int, *values: Any) -> None:
        """Keep a message of any level, with any values; a first one that is a function is called if it is kept."""
        if level > self._verbosity:
            return
        offset = self._offset()
        if values and callable(values[0]):
            values = (values[0](), *values[1:])
        self._keep([offset, level, *values])

    def timer(self, name: str) -> Timer:
        """Measure something: ``with log.timer("render"): ...``"""
        timer = Timer(self, name)
        if len(self._running) < TIMERS:
            self._running[id(timer)] = timer
        return timer

    def _offset(self) -> float:
        return round(monotonic() - self._zero, 6)

    def _keep(self, message: list[Any]) -> bool:
        characters = sum(len(value) for value in message if type(value) in (str, bytes))
        if self._kept >= MESSAGES or self._characters + characters > CHARACTERS:
            self._dropped += 1
            return False
        self._kept += 1
        self._characters += characters
        self._messages.append(message)
        return True

    def _stopped(self, timer: Timer, begin: float) -> None:
        self._running.pop(id(timer), None)
        if self._kept_timers < TIMERS:
            self._kept_timers += 1
            self._timers.append([timer.name, begin, self._offset()])


class RequestLog(Log):
    """The log of one request. Use it in a ``with`` block; at its end the record is handed on.

    An exception that leaves the block is kept as an error, and goes on.

    Args:
        to: a function that takes the record, or a logger, which gets one log record for it: at the level of its worst
            message, with the whole in its attribute ``request_log``.
        name: of the request, for the record; default none.
        verbosity: messages with a higher level are not kept; default 40, which keeps all.

    Raises:
        TypeError: ``to`` is neither.
    """

    def __init__(
        self, to: Callable[[dict[str, Any]], object] | logging.Logger, *, name: str = "", verbosity: int = DEBUG
    ):
        if not isinstance(to, logging.Logger) and not callable(to):
            raise TypeError(f"RequestLog({to!r}): give it a function that takes the record, or a logger")
        super().__init__(verbosity=verbosity)
        self._to: Callable[[dict[str, Any]], object] | logging.Logger | None = to
        self._name = name

    def __repr__(self) -> str:
        state = "ended" if self._to is None else f"{len(self._messages)} messages"
        return f"<RequestLog{f' {self._name!r}' if self._name else ''}, {state}>"

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        self.error(failure.text(error))
        try:
            self.close()
        except Exception:  # the request's own error is the one to be raised
            logging.getLogger("gtask.logdefer").exception("a request log could not be handed on")

    def close(self) -> None:
        """End it, and hand the record on; again does nothing. Raises what ``to`` raises."""
        to, self._to = self._to, None
        if to is None:
            return
        record = self._record()
        if isinstance(to, logging.Logger):
            level = min((level for _, level, *_ in record.get("logs", ()) if type(level) is int), default=INFO)
            worst = next((_LEVELS[known] for known in sorted(_LEVELS) if level <= known), logging.DEBUG)
            to.log(worst, "%s", _in_words(record), extra={"request_log": record})
        else:
            to(record)

    # --- the client calls ------------------------------------------------------------------------------

    def call(self, method: str) -> Timer:
        """A call begins; its timer is named as the method, or ``->()`` for a call as a function."""
        return self.timer("->()" if method == "()" else method)

    def merge(self, ld: object, *, pid: int, sent: float, received: float) -> None:
        """Take what a worker has written, with its times as this process would have told them.

        Args:
            ld: in the shape of a record; what is not is ignored.
            pid: the worker's process id, or 0; each of its messages gets it, in a map at its end.
            sent, received: when the call was sent and when its end was heard, on this process's monotonic clock.
        """
        if self._to is None or type(ld) is not dict:
            return
        logs = [entry for entry in _lists(ld.get("logs")) if len(entry) >= 2 and _is_time(entry[0])]
        timers = [entry for entry in _lists(ld.get("timers")) if len(entry) >= 2 and all(map(_is_time, entry[1:3]))]
        lasted: Any = ld.get("now")
        if not _is_time(lasted):
            lasted = max(
                (time for entry in (*logs, *(timer[1:] for timer in timers)) for time in entry[:1]), default=0.0
            )
        shift = self._shift(ld.get("start"), lasted, sent, received)
        for offset, level, *values in logs:
            if type(level) is int and level <= self._verbosity:
                self._keep([round(shift + offset, 6), level, *_with_pid(values, pid)])
        for name, *times in timers:
            if self._kept_timers < TIMERS:
                self._kept_timers += 1
                self._timers.append([name, *(round(shift + time, 6) for time in times[:2])])
        data = ld.get("data")
        if type(data) is dict:
            self.data.update((key, value) for key, value in data.items() if type(key) is str)

    def _shift(self, start: object, lasted: float, sent: float, received: float) -> float:
        """Seconds from the start of this log to that of the worker's. By the time of day, as far as that lies within
        the call: another machine's clock may be wrong."""
        earliest = sent - self._zero
        latest = max(earliest, received - self._zero - lasted)
        if not _is_time(start):
            return earliest
        assert isinstance(start, (int, float))
        return min(max(start - self._start, earliest), latest)

    def _record(self) -> dict[str, Any]:
        if self._dropped:
            self._messages.append([self._offset(), WARN, f"{self._dropped} more messages were dropped"])
        for timer in list(self._running.values()):
            timer.stop()
        record: dict[str, Any] = {"start": round(self._start, 6), "end": self._offset()}
        if self._name:
            record["name"] = self._name
        if self._messages:
            record["logs"] = sorted(self._messages, key=lambda message: message[0])
        if self._timers:
            record["timers"] = sorted(self._timers, key=lambda timer: timer[1])
        if self.data:
            record["data"] = self.data
        return record


def _in_words(record: dict[str, Any]) -> str:
    logs, timers = record.get("logs", []), record.get("timers", [])
    name = record.get("name") or "request"
    words = f"{name} took {record['end']:.3g} s, with {len(logs)} messages and {len(timers)} timers"
    errors = [message for message in logs if message[1] <= ERROR]
    if errors:
        words += f"; {len(errors)} errors, the first: {' '.join(str(value) for value in errors[0][2:])}"
    return words


def _lists(value: object) -> Iterable[list[Any]]:
    return [entry for entry in value if type(entry) is list] if type(value) is list else []


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e12  # type: ignore[arg-type]


def _with_pid(values: list[Any], pid: int) -> list[Any]:
    if not pid:
        return values
    if values and type(values[-1]) is dict:
        return [*values[:-1], {"pid": pid, **values[-1]}]
    return [*values, {"pid": pid}]


# --- in the worker -------------------------------------------------------------------------------------


class _Nowhere(Log):
    """Keeps nothing: nobody wants it."""

    def log(self, level: int, *values: Any) -> None:
        pass

    def timer(self, name: str) -> Timer:
        self.data = {}
        return Timer(self, name)

    def _stopped(self, timer: Timer, begin: float) -> None:
        pass


class _OfCall(Log):
    """What one call of a worker writes."""

    def log(self, level: int, *values: Any) -> None:
        super().log(level, *values)
        _on_message(level)

    def part(self) -> dict[str, Any] | None:
        """What has been written since the last time, as plain data of a bounded size; None if that is nothing."""
        room = Room(TEXT_LIMIT)
        logs = [[*message[:2], *(_plain(value, room) for value in message[2:])] for message in _drain(self._messages)]
        if self._dropped:
            logs.append([self._offset(), WARN, f"{self._dropped} more messages were dropped"])
            self._dropped = 0
        timers = [[room.cut(str(name)), *times] for name, *times in _drain(self._timers)]
        if not (logs or timers or self.data):
            return None
        part: dict[str, Any] = {"start": self._start, "now": self._offset()}
        part.update((key, value) for key, value in (("logs", logs), ("timers", timers)) if value)
        if self.data:
            part["data"] = {room.cut(str(key)): _plain(value, room) for key, value in list(self.data.items())}
        return part


def _drain(queue: deque[list[Any]]) -> list[list[Any]]:
    """What is in it, taken one by one: other threads may add to it meanwhile."""
    return [queue.popleft() for _ in range(len(queue))]


def _plain(value: Any, room: Room) -> Any:
    plain = room.plain_or_none(value)
    if plain is None and value is not None:
        try:
            return room.cut(str(value))
        except Exception as error:  # whatever its class does
            return f"<a {type(value).__name__} whose str() raised {type(error).__name__}>"
    return plain


def _nothing(level: int) -> None:
    pass


_on_message: Callable[[int], None] = _nothing
_wanted = False
_log: _OfCall | None = None


def current() -> Log:
    """The log of the call that this worker runs, in any of its threads: what is written into it, the caller's request
    log has. Where nobody wants it, and outside of a call, it keeps nothing."""
    global _log
    if not _wanted:
        return _Nowhere()
    if _log is None:
        _log = _OfCall()
    return _log


def watch(on_message: Callable[[int], None]) -> None:
    """In a worker: after each message call this with its level."""
    global _on_message
    _on_message = on_message


def begin_call() -> None:
    """In a worker: a call begins whose caller wants to have its log."""
    global _wanted, _log
    _wanted, _log = True, None


def take() -> dict[str, Any] | None:
    """In a worker: what the call has written since this was last asked, in the shape of the wire; None for nothing."""
    return _log.part() if _log is not None else None


def end_call() -> None:
    """In a worker: the call is over."""
    global _wanted, _log
    _wanted, _log = False, None
