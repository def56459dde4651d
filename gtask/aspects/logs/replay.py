"""Hands log records that have come from a worker to the loggers of the same names, as if they had been made here.

A record travels as it was made: its message is formatted by its handlers, unless an argument of it is not plain data.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Any

from gtask.aspects.logs.record import STANDARD, Data
from gtask.wire.exceptions import failure

__all__ = ["from_deferred", "replay"]

PEER = "gtask.peer"
"""The logger of what a foreign worker logs, which knows no loggers."""

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
        if type(key) is str and key not in STANDARD:
            vars(record)[key] = value  # as logging does: it may be called __class__
    for key in _get(data, "loggers", list, []):
        if type(key) is str and key not in STANDARD:
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
