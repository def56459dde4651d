"""The server's log: one line per event on stderr, as text or JSON. A broken stderr stops nothing."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback

from gtask.aspects.logs.capture import is_told
from gtask.printable import printable

__all__ = ["complain", "leave_to_callers", "setup"]

LONGEST = 10_000
"""Characters of a message of gtask itself."""

TEXT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


def setup(level: str, as_json: bool) -> None:
    """Log from now on to stderr.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        as_json: each line is a JSON object with time, level, pid, logger, message and, if there is one, exception.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Json() if as_json else _Text(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def leave_to_callers() -> None:
    """Handlers that there are leave out the records that go to their callers: both write to the same place.

    For the server of a program, whose handlers (or whose stderr) the program has, too.
    """
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if handler is not None:
            handler.addFilter(_is_not_told)


def _is_not_told(record: logging.LogRecord) -> bool:
    return not is_told(record)


def complain(text: str, error: BaseException | None = None) -> None:
    """Say why this process cannot serve: in a line for the terminal, or in a record if the log is JSON.

    Args:
        text: the reason.
        error: the exception, whose traceback says more; then the text is for a JSON log alone.
    """
    if any(isinstance(handler.formatter, _Json) for handler in logging.getLogger().handlers):
        logging.getLogger("gtask.server").error("%s", text, exc_info=error)
    elif error is not None:
        traceback.print_exception(error)
    else:
        print(f"gtask-server: {text}", file=sys.stderr)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: stderr is broken, and there is no other place to report that."""


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line. What gtask itself says is one, whatever it repeats of a peer's words."""
        if record.name.startswith("gtask."):
            record.message = printable(record.message, LONGEST)
        return super().formatMessage(record)


class _Json(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
