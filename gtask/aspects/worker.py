"""What a call tells its caller before its reply: log records, deferred messages, the wish for more time.

What is urgent leaves at once: warnings and errors, and whatever is told when nothing was for a while. The rest is held
in memory that the master shares (:mod:`gtask.server.worker.replies`), and leaves with the reply. So a worker that is
killed, or hangs, has told its story all the same.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from gtask import logdefer
from gtask.aspects.logs.capture import Capture
from gtask.aspects.logs.record import describe, weight
from gtask.errors import EncodeError
from gtask.wire.messages import Extend, LogRecords, Message

if TYPE_CHECKING:
    from gtask.server.worker.replies import ReplyBuffer

__all__ = ["LIMIT", "Reporter"]

LIMIT = 1024 * 1024
"""Bytes of log records that one call may tell; as much again for warnings and errors."""

PAUSE = 0.1
"""Seconds after which what is told leaves at once."""


class Reporter:
    """What the calls of one worker tell. Any of its threads may tell something while a call runs.

    Args:
        replies: where it goes.
        encode: makes the frame of a message; raises EncodeError.
        process_name: of this worker, for its log records.
        alarm: to be called after SIGALRM has come in while something was being told.

    Attributes:
        capture: which listens while a call runs: its ``is_open`` is set then, and reset with ``lock`` held, after which
            nothing can be told before the reply any more.
        has_told: whether the call has told anything, so that :meth:`end` is to be called.
        is_terse: whether the client hears nothing but replies: what is deferred goes with those, the rest to nobody.
    """

    def __init__(
        self,
        replies: ReplyBuffer,
        encode: Callable[[Message], bytes],
        process_name: str,
        alarm: Callable[[], None],
    ) -> None:
        self.capture = Capture(self._record)
        self._replies = replies
        self._encode = encode
        self._process_name = process_name
        self._alarm = alarm
        self._pid = os.getpid()
        self._main = threading.get_ident()
        self.lock = threading.RLock()
        self._writing = False  # in the main thread
        self._alarmed = False
        self._wants_ld = False
        self.is_terse = False
        self.has_told = False
        self._told_at = 0.0
        self._told = 0
        self._dropped = 0
        self._dropped_size = 0

    def defer(self) -> None:
        """A call begins whose caller wants to have its deferred log."""
        self._wants_ld = self.has_told = True
        logdefer.begin_call()

    def end(self) -> dict[str, Any] | None:
        """The call is over, and has told something.

        Returns:
            what the reply itself has to tell, as ``ld``.
        """
        self.has_told = False
        part = None
        if self._wants_ld:
            self._wants_ld = False
            if self.is_terse:
                part = logdefer.take()
            else:
                self._told_at = monotonic()  # the reply follows
                self._tell_deferred(urgent=False)
            logdefer.end_call()
        self._told = 0
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._replies.tell(self._encode(LogRecords(dropped=dropped, size=self._dropped_size)), False)
            self._dropped_size = 0
        return part

    def on_alarm(self) -> bool:
        """SIGALRM has come in, in the main thread.

        Returns:
            whether it must wait: something was half written. ``alarm`` is called when that is written.
        """
        if self._writing:
            self._alarmed = True
            return True
        with self.lock:
            self._replies.flush()
        return False

    def extend(self, seconds: float) -> None:
        """Ask the caller for more time."""
        self._tell(lambda: self._replies.tell(self._encode(Extend(seconds)), True))

    def deferred(self, level: int) -> None:
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
        self.has_told = True
        urgent = record.levelno >= logging.WARNING
        if self._told >= (2 * LIMIT if urgent else LIMIT):
            self._dropped += 1
            self._dropped_size += weight(record)
            return
        try:
            frame = self._encode(LogRecords([describe(record, self._process_name)]))
        except Exception:  # over a small limit_message, or a record that somebody has made of anything
            frame = b""
        if not frame or self._told + len(frame) > 2 * LIMIT:
            self._dropped += 1
            self._dropped_size += weight(record)
            return
        self._told += len(frame)
        self._tell_frame(frame, urgent)

    def _tell_frame(self, frame: bytes, urgent: bool) -> None:
        now = monotonic()
        if urgent or now - self._told_at >= PAUSE:
            urgent, self._told_at = True, now
        self._replies.tell(frame, urgent)

    def _tell(self, act: Callable[[], Any]) -> None:
        if self.is_terse:
            return
        if os.getpid() != self._pid:
            return  # the connection is not that of a process which the application has forked
        is_main = threading.get_ident() == self._main
        if is_main:
            if self._writing:
                return  # what is told has logged something itself
            self._writing = True
        try:
            with self.lock:
                if self.capture.is_open:
                    act()
        except (ConnectionError, TimeoutError):
            pass  # the client is gone; whoever reads from it next finds out
        finally:
            if is_main:
                self._writing = False
                if self._alarmed:
                    self._alarmed = False
                    self._alarm()
