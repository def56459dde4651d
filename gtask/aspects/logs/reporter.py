"""In the worker: what a call logs is told to its caller before the reply, as log records and as its deferred log.

What is urgent leaves at once: warnings and errors, and whatever is told when nothing was for a while. The rest is held
in memory that the master shares (:mod:`gtask.server.worker.replies`), and leaves with the reply. So the caller of a
worker that is killed, or hangs, has its records all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from gtask import logdefer
from gtask.aspects.aspect import WorkerAspect
from gtask.aspects.logs.capture import Capture
from gtask.aspects.logs.levels import bounded
from gtask.aspects.logs.record import describe, weight
from gtask.errors import EncodeError
from gtask.target import NEVER
from gtask.wire.limits import DEFAULTS
from gtask.wire.messages import LogRecords

if TYPE_CHECKING:
    from gtask.server.worker.worker import Worker
    from gtask.wire.messages import Preamble, Request

__all__ = ["LIMIT", "Reporter"]

LIMIT = DEFAULTS.records
"""Bytes of log records that one call may tell; as much again for warnings and errors."""

PAUSE = 0.1
"""Seconds after which what is told leaves at once."""


class Reporter(WorkerAspect):
    """Tells what the calls of one worker log. Any of its threads may log while a call runs.

    A call that wants its deferred log has the reporter for a companion, and so has a call from its first record on.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._capture = Capture(self._record, lambda: worker.request is not None)
        name = "" if worker.config.private else worker.config.peer_logs  # a private server's client is its program
        self._least = {"": 0, NEVER: None}.get(name, getattr(logging, name.upper(), 0))
        self._process_name = f"{worker.config.name} worker"
        self._comes_along = False
        self._wants_ld = False
        self._told_at = 0.0
        self._told = 0
        self._dropped = 0
        self._dropped_size = 0
        logdefer.watch(self._deferred)

    def heard(self, preamble: Preamble) -> None:
        """The client says which records it wants from now on."""
        if preamble.levels is not None:
            self._capture.want(bounded(preamble.levels, self._least))

    def begin(self, request: Request, method: str) -> Reporter | None:
        if request.meta is None or not request.meta.ld or self._worker.dialect.is_terse:
            return None
        self._wants_ld = self._comes_along = True
        logdefer.begin_call()
        return self

    def enter(self) -> None:
        """There is nothing to be loaded."""

    def leave(self, error: BaseException | None) -> None:
        """Tell the rest of the deferred log, and how many records were left out."""
        self._comes_along = False
        if self._wants_ld:
            self._wants_ld = False
            self._told_at = monotonic()  # the reply follows
            self._tell_deferred(urgent=False)
            logdefer.end_call()
        self._told = 0
        if self._dropped:
            missing = LogRecords(dropped=self._dropped, size=self._dropped_size)
            self._dropped = self._dropped_size = 0
            self._worker.replies.tell(self._encode(missing), False)

    def _encode(self, message: LogRecords) -> bytes:
        return self._worker.dialect.encode(message)

    def _deferred(self, level: int) -> None:
        """A message of this level was written into the call's deferred log."""
        self._tell(lambda: self._tell_deferred(urgent=level <= logdefer.WARN))

    def _tell_deferred(self, urgent: bool) -> None:
        part = logdefer.take()
        if part is None:
            return
        try:
            frame = self._encode(LogRecords(ld=part))
        except EncodeError:  # over a small limit_message
            self._dropped += len(part.get("logs", ()))
            return
        self._tell_frame(frame, urgent)

    def _record(self, record: logging.LogRecord) -> None:
        self._tell(lambda: self._tell_record(record))

    def _tell_record(self, record: logging.LogRecord) -> None:
        if not self._comes_along:
            self._comes_along = True
            self._worker.companions.append(self)
        urgent = record.levelno >= logging.WARNING
        if self._told >= (2 * LIMIT if urgent else LIMIT):
            self._drop(record)
            return
        try:
            frame = self._encode(LogRecords([describe(record, self._process_name)]))
        except Exception:  # over a small limit_message, or a record that somebody has made of anything
            frame = b""
        if not frame or self._told + len(frame) > 2 * LIMIT:
            self._drop(record)
            return
        self._told += len(frame)
        self._tell_frame(frame, urgent)

    def _drop(self, record: logging.LogRecord) -> None:
        self._dropped += 1
        self._dropped_size += weight(record)

    def _tell_frame(self, frame: bytes, urgent: bool) -> None:
        now = monotonic()
        if urgent or now - self._told_at >= PAUSE:
            urgent, self._told_at = True, now
        self._worker.replies.tell(frame, urgent)

    def _tell(self, act: Callable[[], Any]) -> None:
        if not self._worker.dialect.is_terse:
            self._worker.teller.tell(act)
