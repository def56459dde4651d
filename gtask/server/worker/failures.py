"""An error as a worker tells it to its client, whether a call has raised it or setup."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gtask.errors import EncodeError
from gtask.server.config import TEXT
from gtask.server.worker.interruption import Interruption
from gtask.wire.exceptions import failure
from gtask.wire.limits import LimitExceededError
from gtask.wire.messages import Failure

if TYPE_CHECKING:
    from gtask.server.worker.worker import Worker

__all__ = ["SHORT", "described", "tell", "told"]

log = logging.getLogger("gtask.server")

SHORT = 200
"""Characters of an error's text that fit into any message."""

OURS = ("gtask.server.", "gtask.aspects.")
"""Modules whose frames are none of the application's."""


def tell(worker: Worker, error: BaseException, prefix: str = "") -> None:
    """Reply with an error to the call that the client has made.

    Args:
        worker: of the call.
        error: what the call, or the setup before it, has raised.
        prefix: what its text begins with.
    """
    text = prefix + failure.text(error)
    try:
        worker.say(Failure(text, described(error, worker)))
    except EncodeError:  # over a small limit_message
        worker.say(Failure(text[:SHORT]))


@contextlib.contextmanager
def told(worker: Worker) -> Iterator[None]:
    """Tell the client, if it has sent a message beyond a limit, why the connection ends: its call waits for a reply."""
    try:
        yield
    except LimitExceededError as error:
        worker.interruption.began = 0.0  # the client may hang up as soon as it is told, and the log is to know, too
        with contextlib.suppress(OSError):  # the client is gone, or has read nothing for long
            worker.replies.flush()
            frame = worker.dialect.encode(Failure(failure.text(error), failure.describe(error)))
            worker.socket.send(frame, socket.MSG_DONTWAIT)
        raise


def described(error: BaseException, worker: Worker) -> dict[str, Any]:
    """The error as plain data, with a traceback that begins and ends in the application.

    Where clients are told its type and message alone the log has the rest.
    """
    error = _without_our_frames(error)
    if worker.config.peer_errors == TEXT:
        log.error("worker %d tells its client the text of this alone (peer_errors)", os.getpid(), exc_info=error)
        return failure.brief(error)
    return failure.describe(error, pickle=worker.dialect.pickle)


def _without_our_frames(error: BaseException) -> BaseException:
    # By way of BaseException: the error's own attributes may be code of the application.
    first: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    while first is not None and str(first.tb_frame.f_globals.get("__name__")).startswith(OURS):
        first = first.tb_next
    last = first
    while last is not None and last.tb_next is not None:
        if last.tb_next.tb_frame.f_code is Interruption.on_alarm.__code__:
            last.tb_next = None
        else:
            last = last.tb_next
    return BaseException.with_traceback(error, first)
