"""The error of a call whose worker is gone: it has died, or was given up because the call's time was over. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gtask.errors import CallTimeout, WorkerDied
from gtask.wire.exceptions import failure

if TYPE_CHECKING:
    from gtask.client.connection import Connection
    from gtask.wire.messages import Failure, LastWords

__all__ = ["died", "overdue"]


def died(connection: Connection, how: str, words: LastWords | None, now: float, midway: bool) -> WorkerDied:
    """The connection has ended.

    Args:
        connection: with the call that ran as the first of its pending ones, if one did.
        how: how the connection ended, if nobody says more of it.
        words: the worker's last words, if there are any.
        now: the time.
        midway: whether part of the reply had come.
    """
    call = connection.pending[0] if connection.pending else None
    method, elapsed = (None, None) if call is None else (call.method, now - call.sent_at)
    text = f"{connection.label} {how if words is None else _ended(words)}"
    if method is not None and elapsed is not None:
        text += f" {elapsed:.3g} s after {method} was called"
        if midway:
            text += ", half way through its reply"
    if words is not None:
        text += f"; it had used {words.maxrss / 1024:.0f} MiB of memory at the most"
    if method is not None:
        executed = (
            "the call was not executed" if connection.none_begun else "whether the call was executed is not known"
        )
        text += f"; {executed}"
    error = WorkerDied(
        text,
        pid=connection.pid or None,
        exitcode=words.exitcode if words else None,
        signal=words.signal if words else "",
        method=method,
        elapsed=elapsed,
        maxrss=words.maxrss if words else None,
        stacks=words.stacks if words else "",
        executed=False if connection.none_begun else None,
    )
    if words is not None and words.stacks:
        error.add_note(f"Where the worker was:\n{words.stacks}")
    return error


def overdue(
    connection: Connection, is_over: bool, now: float, reply: Failure | None, words: LastWords | None
) -> CallTimeout:
    """The time of the first pending call is over.

    Args:
        connection: with the call.
        is_over: whether the client's time-out has passed; else the server has ended the call.
        now: the time.
        reply: what the interrupted worker said; its traceback becomes the error's.
        words: or what its master said.
    """
    call = connection.pending[0]
    label, pid, method, elapsed = connection.label, connection.pid, call.method, now - call.sent_at
    timeout = call.timeout if is_over else None
    if timeout is not None:
        limit = f"took longer than {timeout:g} s"
        advice = "if it may take so long, raise the client's timeout"
    else:
        why = (
            f", because {words.why}"
            if words is not None and words.why
            else " (it stopped, or hung_worker_timeout had passed)"
        )
        limit = f"was ended by the server after {elapsed:.3g} s{why}"
        advice = "if it may take so long, raise the server's hung_worker_timeout"
    error = CallTimeout(
        f"{method} {limit} in {label}; the worker is given up; {advice}",
        pid=pid or None,
        method=method,
        elapsed=elapsed,
        stacks=words.stacks if words else "",
    )
    if reply is not None:
        error.__traceback__ = failure.rebuild(reply.exc, reply.text).__traceback__
    if words is not None and words.stacks:
        error.add_note(f"Where the worker was:\n{words.stacks}")
    return error


def _ended(words: LastWords) -> str:
    return f"was ended by {words.signal}" if words.signal else f"exited with status {words.exitcode}"
