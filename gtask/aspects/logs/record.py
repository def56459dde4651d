"""A log record as plain data of a bounded size, as a worker sends it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from gtask.wire.exceptions import failure
from gtask.wire.plain import Room

__all__ = ["STANDARD", "Data", "describe", "size_of", "weight"]

Data = dict[str, Any]

TEXT_LIMIT = 65536
"""Characters of one text of a record."""

STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""The attributes that every record has."""

_EXACT = frozenset({type(None), bool, int, float, str, bytes})
_UNNAMED = "MainProcess"  # so Python calls a process that nobody has named


def describe(record: logging.LogRecord, process_name: str) -> Data:
    """Tell a record as plain data of a bounded size.

    Args:
        process_name: that of this process, unless the application has given it one.

    Returns:
        ``{name, level, msg, args, file, line, func, created, msecs, thread, thread_name, process_name}``, and if there
        are any ``extra``, ``loggers`` (the names of those extras that are loggers), ``exc`` with ``text`` (as
        :func:`gtask.wire.exceptions.failure.describe` and ``text`` make them) and ``stack``. Where an argument is not
        plain data, ``msg`` is the formatted message and there are no ``args``. An extra that is not plain data is told
        by its repr.
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
        if key in STANDARD:
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


def size_of(value: object, nesting: int = 8) -> int:
    """About how many characters plain data has."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if nesting and isinstance(value, dict):
        return 20 + sum(size_of(key) + size_of(item, nesting - 1) for key, item in value.items())
    if nesting and isinstance(value, (list, tuple, set, frozenset)):
        return 20 + sum(size_of(item, nesting - 1) for item in value)
    return 10
