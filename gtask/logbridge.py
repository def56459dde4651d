"""Log records on their way: captured in the worker as plain data, replayed in the caller's process.

**At the caller** :class:`Levels` says which records are wanted, and :func:`replay` hands those that have come to the
loggers of the same names, as if they had been made there. **In the worker** a :class:`Capture` notices what is wanted
of all that is logged, and :func:`describe` makes plain data of it. A record travels as it was made: its message is
formatted by whoever handles it, unless an argument of it is not plain data.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Collection, Iterable
from types import ModuleType
from typing import Any

from gtask.wire import failure
from gtask.wire.plain import Room

__all__ = ["Capture", "Data", "Levels", "describe", "from_deferred", "replay", "weight"]

Data = dict[str, Any]

TEXT_LIMIT = 65536
"""Characters of one text of a record."""

PEER = "gtask.peer"
"""The logger of what a foreign worker logs, which knows no loggers."""

_OF_DEFERRED = ((10, logging.ERROR), (20, logging.WARNING), (30, logging.INFO))

MANY = 1000
"""How many loggers may have a level of their own; where more have, the lowest of all stands for them."""

_EXACT = frozenset({type(None), bool, int, float, str, bytes})
_STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
_NEVER = 1 << 31  # a level that no record has
_UNNAMED = "MainProcess"  # so Python calls a process that nobody has named


# --- at the caller -------------------------------------------------------------------------------------


class Levels:
    """The levels of this process's loggers, for the workers to know.

    Attributes:
        told: what :meth:`current` has given last; it still holds while ``holds`` is true.
        holds: not empty until some level is changed.
    """

    __slots__ = ("_probe", "holds", "told")

    def __init__(self) -> None:
        # A logger remembers its answers, and logging forgets them all whenever a level changes: asking for the
        # level of each logger before each call would cost more than the call.
        self._probe = logging.getLogger("gtask.logbridge")
        self.holds: dict[int, bool] = self._probe._cache  # type: ignore[attr-defined]
        self.told: dict[str, int] = {}
        self._refresh()

    def current(self) -> dict[str, int]:
        """The level of each logger that differs from that of its parent, the root logger's under "".

        It is the same object until something has changed.
        """
        if not self.holds:
            self._refresh()
        return self.told

    def _refresh(self) -> None:
        self._probe.isEnabledFor(logging.CRITICAL)  # now it remembers something
        root = logging.getLogger()
        least = root.manager.disable + 1
        levels = {"": max(root.level, least)}
        for name, logger in list(root.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger) and logger.level:
                levels[name] = max(logger.level, least)
        if len(levels) > MANY:
            levels = {"": min(levels.values())}
        levels = {name: level for name, level in levels.items() if not name or _of_parent(levels, name) != level}
        if levels != self.told:
            self.told = levels


def _of_parent(levels: dict[str, int], name: str) -> int:
    """The level of a logger that has none of its own."""
    while name:
        name = name.rpartition(".")[0]
        if name in levels:
            return levels[name]
    return _NEVER


def replay(records: Iterable[object], pid: int, raises: Collection[type | ModuleType] | None = None) -> None:
    """Hand records to this process's loggers of the same names. What a handler raises is reported on stderr, as
    logging itself does it; whatever a peer sent, it does no other harm.

    Args:
        records: as :func:`describe` made them, in their order.
        pid: the process id of the worker.
        raises: as for :func:`gtask.wire.failure.rebuild`, for the exceptions in them.
    """
    for data in records:
        if type(data) is not dict:
            continue
        try:
            logger = logging.getLogger(_get(data, "name", str, "") or None)
            if logger.isEnabledFor(_get(data, "level", int, logging.INFO)):
                logger.handle(_record(data, pid, raises))
        except Exception:  # a handler or a filter of the application; the others are to have theirs
            if logging.raiseExceptions and sys.stderr is not None:
                traceback.print_exc()


def _record(data: Data, pid: int, raises: Collection[type | ModuleType] | None) -> logging.LogRecord:
    text, described = _get(data, "text", str, ""), data.get("exc")
    exc_info: Any = None
    if type(described) is dict:
        error: Any = failure.rebuild(described, text, raises=raises)
        exc_info = (type(error), error, error.__traceback__)
    args = data.get("args")
    record = logging.getLogRecordFactory()(
        _get(data, "name", str, "root"),
        _get(data, "level", int, logging.INFO),
        _get(data, "file", str, "(unknown file)"),
        _get(data, "line", int, 0),
        data.get("msg", ""),
        tuple(args) if type(args) is list else None,
        exc_info,
        _get(data, "func", str, None),
        _get(data, "stack", str, None),
    )
    if type(args) is dict:
        record.args = args
    made_at, created = record.created, float(_get(data, "created", float, record.created))
    record.created, record.msecs = created, _get(data, "msecs", float, record.msecs)
    record.relativeCreated += (created - made_at) * 1000
    record.process, record.processName = pid, _get(data, "process_name", str, None)
    record.thread, record.threadName = _get(data, "thread", int, None), _get(data, "thread_name", str, None)
    record.levelname = logging.getLevelName(record.levelno)
    if sys.version_info >= (3, 12):
        record.taskName = None
    for key, value in _get(data, "extra", dict, {}).items():
        if type(key) is str and key not in _STANDARD:
            vars(record)[key] = value  # as logging does: it may be called __class__
    for key in _get(data, "loggers", list, []):
        if type(key) is str and key not in _STANDARD:
            vars(record)[key] = logging.getLogger(record.name)
    return record


def from_deferred(ld: object) -> list[Data]:
    """The messages of a deferred log, such as a worker of AnyEvent::Task has sent, as records; garbage is ignored."""
    logs = ld.get("logs") if isinstance(ld, dict) else None
    records = []
    for entry in logs if isinstance(logs, list) else ():
        if isinstance(entry, list) and len(entry) >= 2 and isinstance(entry[1], int):
            level = next((level for known, level in _OF_DEFERRED if entry[1] <= known), logging.DEBUG)
            records.append({"name": PEER, "level": level, "msg": "%s", "args": [" ".join(map(str, entry[2:]))]})
    return records


def _get(data: Data, key: str, kind: type, default: Any) -> Any:
    value = data.get(key, default)
    return value if type(value) is kind else default


# --- in the worker -------------------------------------------------------------------------------------


class Capture:
    """Notices what is wanted of all that this process logs. The application's own handlers get what they got before.

    Args:
        tell: takes each record that is wanted, in the thread that logs it.

    Attributes:
        is_open: whether it listens; set while a call runs.
    """

    def __init__(self, tell: Callable[[logging.LogRecord], None]) -> None:
        self._tell = tell
        self._levels: dict[str, int] = {}
        self._of: dict[str, int] = {}  # of each logger that was asked for
        self.is_open = False
        self._installed = False

    def want(self, levels: dict[str, int]) -> None:
        """From now on records of these levels are wanted; of none, if the map is empty."""
        self._levels, self._of = levels, {}
        if not self._installed and levels:
            self._install()

    def _wants(self, name: str, level: int) -> bool:
        least = self._of.get(name)
        if least is None:
            least = self._levels.get("" if name == "root" else name) or _of_parent(self._levels, name)
            if len(self._of) < MANY:
                self._of[name] = least
        return level >= least

    def _install(self) -> None:
        # In the class, because a handler can neither see what its logger's level hides, nor follow loggers that do not
        # propagate, and the levels of the application's loggers must stay for its own handlers.
        self._installed = True
        enabled, call_handlers = logging.Logger.isEnabledFor, logging.Logger.callHandlers

        def is_enabled_for(logger: logging.Logger, level: int) -> bool:
            return enabled(logger, level) or (self.is_open and not logger.disabled and self._wants(logger.name, level))

        def call(logger: logging.Logger, record: logging.LogRecord) -> None:
            told = self.is_open and self._wants(logger.name, record.levelno)
            if told:
                self._tell(record)
            # Without a handler the record would go to stderr: its caller has it already.
            if enabled(logger, record.levelno) and (logger.hasHandlers() or not told):
                call_handlers(logger, record)

        logging.Logger.isEnabledFor = is_enabled_for  # type: ignore[method-assign, assignment]
        logging.Logger.callHandlers = call  # type: ignore[method-assign, assignment]


def describe(record: logging.LogRecord, process_name: str) -> Data:
    """Tell a record as plain data of a bounded size.

    Args:
        process_name: that of this process, unless the application has given it one.

    Returns:
        ``{name, level, msg, args, file, line, func, created, msecs, thread, thread_name, process_name}``, and if there
        are any ``extra``, ``loggers`` (the names of those extras that are loggers), ``exc`` with ``text`` (as
        :func:`gtask.wire.failure.describe` and ``text`` make them) and ``stack``. Where an argument is not plain data,
        ``msg`` is the formatted message and there are no ``args``. An extra that is not plain data is told by its repr.
    """
    room = Room(TEXT_LIMIT)
    named = record.processName
    data: Data = {
        "name": record.name,
        "level": record.levelno,
        "file": room.cut(record.pathname),
        "line": record.lineno,
        "func": record.funcName,
        "created": record.created,
        "msecs": record.msecs,
        "thread": record.thread,
        "thread_name": record.threadName,
        "process_name": process_name if named is None or named == _UNNAMED else named,
    }
    data["msg"], args = _message(record, room)
    if args:
        data["args"] = args
    for key, value in list(vars(record).items()):
        if key in _STANDARD:
            continue
        if isinstance(value, (logging.Logger, logging.LoggerAdapter)):
            data.setdefault("loggers", []).append(room.cut(key))
        else:
            plain = room.plain_or_none(value)
            data.setdefault("extra", {})[room.cut(key)] = (
                room.cut(_repr(value)) if plain is None and value is not None else plain
            )
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        data["exc"], data["text"] = failure.describe(error), failure.text(error)
    if record.stack_info:
        data["stack"] = room.cut(record.stack_info)
    return data


def _message(record: logging.LogRecord, room: Room) -> tuple[Any, Any]:
    """The message and its arguments, or the formatted message."""
    msg, args = record.msg, record.args
    parts: Iterable[Any] = args.values() if isinstance(args, dict) else args or ()
    if type(msg) is str and all(_is_exact(part) for part in parts):
        plain = room.plain_or_none(dict(args) if isinstance(args, dict) else list(args or ()))
        if plain is not None:
            return room.cut(msg), plain
    if not args and type(msg) in (dict, list):  # of structlog, or for a handler that writes JSON
        plain = room.plain_or_none(msg)
        if plain is not None:
            return plain, None
    try:
        return room.cut(record.getMessage()), None
    except Exception as error:  # as a handler would have found out
        return room.cut(f"{_repr(msg)} % {_repr(args)} cannot be formatted: {failure.text(error)}"), None


def _is_exact(value: Any) -> bool:
    """Whether it is the same at the other end, so that it looks the same in a message, too."""
    kind = type(value)
    if kind is list:
        return all(map(_is_exact, value))
    if kind is dict:
        return all(type(key) is str and _is_exact(item) for key, item in value.items())
    return kind in _EXACT


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # whatever its class does
        return f"<a {type(value).__name__} whose repr() raised {type(error).__name__}>"


def weight(record: logging.LogRecord) -> int:
    """About how many bytes a record has, found without formatting it."""
    msg, args = record.msg, record.args
    parts: Iterable[Any] = args.values() if isinstance(args, dict) else args or ()
    return sum(len(part) if type(part) in (str, bytes) else 8 for part in (msg, *parts))
