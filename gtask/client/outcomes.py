"""What a caller is told when its worker died or its time is over. Pure: from the facts to the error."""

from __future__ import annotations

from gtask.errors import CallTimeout, WorkerDied
from gtask.wire.exceptions import failure
from gtask.wire.messages import Failure, LastWords

__all__ = ["died", "is_interrupted", "overdue"]


def died(
    label: str,
    pid: int,
    how: str,
    rip: LastWords | None,
    *,
    method: str | None,
    elapsed: float | None,
    midway: bool,
) -> WorkerDied:
    """The connection has ended.

    Args:
        label: which worker it was.
        pid: its process id, 0 if it is not known.
        how: how the connection ended, if nobody says more of it.
        rip: its last words, if there are any.
        method: the call that ran, if one did, and ``elapsed``, seconds since it was sent.
        midway: whether part of the reply had come.
    """
    text = f"{label} {how if rip is None else _ended(rip)}"
    if method is not None and elapsed is not None:
        text += f" {elapsed:.3g} s after {method} was called"
        if midway:
            text += ", half way through its reply"
    if rip is not None:
        text += f"; it had used {rip.maxrss / 1024:.0f} MiB of memory at the most"
    if method is not None:
        text += "; whether the call was executed is not known"
    error = WorkerDied(
        text,
        pid=pid or None,
        exitcode=rip.exitcode if rip else None,
        signal=rip.signal if rip else "",
        method=method,
        elapsed=elapsed,
        maxrss=rip.maxrss if rip else None,
        stacks=rip.stacks if rip else "",
    )
    if rip is not None and rip.stacks:
        error.add_note(f"Where the worker was:\n{rip.stacks}")
    return error


def overdue(
    label: str,
    pid: int,
    method: str,
    elapsed: float,
    timeout: float | None,
    reply: Failure | None,
    rip: LastWords | None,
) -> CallTimeout:
    """The time of a call is over.

    Args:
        label, pid: which worker it was.
        method: the call, and ``elapsed``, seconds since it was sent.
        timeout: the client's, if that has passed; None if the server has ended the call.
        reply: what the interrupted worker said; its traceback becomes the error's.
        rip: or what its master said.
    """
    if timeout is not None:
        limit = f"took longer than {timeout:g} s"
        advice = "if it may take so long, raise the client's timeout"
    else:
        why = (
            f", because {rip.why}"
            if rip is not None and rip.why
            else " (it stopped, or hung_worker_timeout had passed)"
        )
        limit = f"was ended by the server after {elapsed:.3g} s{why}"
        advice = "if it may take so long, raise the server's hung_worker_timeout"
    error = CallTimeout(
        f"{method} {limit} in {label}; the worker is given up; {advice}",
        pid=pid or None,
        method=method,
        elapsed=elapsed,
        stacks=rip.stacks if rip else "",
    )
    if reply is not None:
        error.__traceback__ = failure.rebuild(reply.exc, reply.text).__traceback__
    if rip is not None and rip.stacks:
        error.add_note(f"Where the worker was:\n{rip.stacks}")
    return error


def is_interrupted(er: Failure) -> bool:
    """Whether this is the reply of a call that the master has interrupted."""
    return er.exc is not None and er.exc.get("type") == "Interrupted" and er.exc.get("module") == "gtask.errors"


def _ended(rip: LastWords) -> str:
    return f"was ended by {rip.signal}" if rip.signal else f"exited with status {rip.exitcode}"
