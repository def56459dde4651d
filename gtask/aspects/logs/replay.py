"""Hands log records that have come from a worker to the loggers of the same names, as if they had been made here.

A record travels as it was made: its message is formatted by its handlers, unless an argument of it is not plain data.

Nothing in a record is believed. No logger is made for it, for logging keeps each for ever: it is handled as a new
logger of its name would handle it. Only for records that refer to their logger, as those of structlog do, a few are
made, below loggers of this process. A message that would become very long when it is formatted stays as it is.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import traceback
from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Any

from gtask.aspects.logs.record import STANDARD, Data, size_of
from gtask.printable import printable
from gtask.wire.exceptions import failure

__all__ = ["from_deferred", "replay"]

PEER = "gtask.peer"
"""The logger of what a foreign worker logs, which knows no loggers."""

NAME = 1000
"""Characters of a name that are kept: of a logger, a file, a function, a thread."""

LONGEST = 1024 * 1024
"""About how many characters a message may have when it is formatted."""

MOST_MADE = 1000
"""Loggers that are made for records which refer to their logger, below loggers of this process."""
_made = 0

DEEPEST = 20
"""Points in the name of such a logger."""

WIDE = re.compile(r"[%.)][-#0 +]*(?:\*|[0-9]{4})")
"""What may be a width or a precision of a thousand characters and more."""
WIDEST = 999
"""The largest width that is not."""

MOST = 1 << 63
"""The largest number of a line, a level or a thread."""

LAST = 1e11
"""The seconds of a time that any calendar has."""

_OF_DEFERRED = ((10, logging.ERROR), (20, logging.WARNING), (30, logging.INFO))


def replay(records: Iterable[object], pid: int, raises: Collection[type | ModuleType] | None = None) -> None:
    """Hand records to this process's loggers of the same names. What a handler raises is reported on stderr, as
    logging itself does it; whatever a peer sent, it does no other harm.

    Args:
        records: as :func:`gtask.aspects.logs.record.describe` made them, in their order.
        pid: the process id of the worker.
        raises: as for :func:`gtask.wire.exceptions.failure.rebuild`, for the exceptions in them.
    """
    for data in records:
        if type(data) is not dict:
            continue
        try:
            name, level = printable(_get(data, "name", str, "root"), NAME), _get(data, "level", int, logging.INFO)
            logger = _nearest(name)
            if logger.name == name:
                if logger.isEnabledFor(level):
                    logger.handle(_record(data, name, level, logger, pid, raises))
            elif logger.manager.disable < level >= logger.getEffectiveLevel():  # its filters are for its own records
                logger.callHandlers(_record(data, name, level, logger, pid, raises))
        except Exception:  # a handler or a filter of the application; the others are to have theirs
            if logging.raiseExceptions and sys.stderr is not None:
                traceback.print_exc()


def _nearest(name: str) -> logging.Logger:
    """The logger of this name, or else the one that would be its parent."""
    found = logging.root.manager.loggerDict
    while name:
        logger = found.get(name)
        if isinstance(logger, logging.Logger):
            return logger
        name = name.rpartition(".")[0]
    return logging.root


def _record(
    data: Data, name: str, level: int, logger: logging.Logger, pid: int, raises: Collection[type | ModuleType] | None
) -> logging.LogRecord:
    text, described = _get(data, "text", str, ""), data.get("exc")
    exc_info: Any = None
    if type(described) is dict:
        error: Any = failure.rebuild(described, text, raises=raises)
        exc_info = (type(error), error, error.__traceback__)
    args, msg = data.get("args"), data.get("msg", "")
    if args and is_long(msg, args):
        args, msg = None, f"{msg} (not formatted, for it would be too long)" if type(msg) is str else msg
    record = logging.getLogRecordFactory()(
        name,
        level,
        printable(_get(data, "file", str, "(unknown file)"), NAME),
        _get(data, "line", int, 0),
        msg,
        tuple(args) if type(args) is list else None,
        exc_info,
        _shown(data, "func"),
        _get(data, "stack", str, None),
    )
    if type(args) is dict:
        record.args = args
    made_at, created = record.created, _get(data, "created", float, record.created)
    if not 0 <= created < LAST:
        created = made_at
    record.created, record.msecs = created, _get(data, "msecs", float, record.msecs)
    record.relativeCreated += (created - made_at) * 1000
    record.process, record.processName = pid, _shown(data, "process_name")
    record.thread, record.threadName = _get(data, "thread", int, None), _shown(data, "thread_name")
    record.levelname = logging.getLevelName(record.levelno)
    if sys.version_info >= (3, 12):
        record.taskName = None
    _add_extra(record, data, logger)
    return record


def _add_extra(record: logging.LogRecord, data: Data, logger: logging.Logger) -> None:
    for key, value in _get(data, "extra", dict, {}).items():
        if type(key) is str and key not in STANDARD:
            vars(record)[key] = value  # as logging does: it may be called __class__
    for key in _get(data, "loggers", list, []):
        if type(key) is str and key not in STANDARD:
            vars(record)[key] = _named(record.name, logger)


def _named(name: str, nearest: logging.Logger) -> logging.Logger:
    """The logger of this name, which may be made below another one; or else the nearest."""
    global _made
    if nearest.name != name and nearest is not logging.root and _made < MOST_MADE and name.count(".") < DEEPEST:
        _made += 1
        return logging.getLogger(name)
    return nearest


def is_long(msg: object, args: object) -> bool:
    """Whether a message with these arguments may be very long when it is formatted."""
    if type(msg) is not str or WIDE.search(msg):
        return True  # logging formats the text of any object; no worker sends arguments for it
    count = msg.count("%")
    times = count if type(args) is dict else 1  # by its name an argument may come again and again
    try:
        return len(msg) + count * WIDEST + times * size_of(args, nesting=sys.maxsize) > LONGEST
    except RecursionError:
        return True


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
    if type(value) is int and abs(value) > MOST:
        return default
    if type(value) is float and not math.isfinite(value):
        return default
    return value if type(value) is kind else default


def _shown(data: Data, key: str) -> str | None:
    name = _get(data, key, str, None)
    return None if name is None else printable(name, NAME)
