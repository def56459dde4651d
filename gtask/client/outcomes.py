"""How a call ends: its outcome, and the error that its caller gets for it. Pure: from the facts to the error."""

from __future__ import annotations

from collections.abc import Collection
from copy import copy as copy_of
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from gtask.errors import CallDropped, EncodeError, Error, Overloaded, RemoteError, SetupError
from gtask.wire.exceptions import failure
from gtask.wire.messages import Failure, Greeting, Skipped, Value

if TYPE_CHECKING:
    from gtask.client.connection import Connection

__all__ = [
    "Outcome", "copy_to_raise", "dropped", "is_interrupted", "never_began", "not_sent", "overloaded", "raised",
    "setup_raised",
]  # fmt: skip

Outcome = Value | Failure | Skipped | Error
"""How a call ended: with the worker's reply, or with the error that ended its connection."""


def raised(
    reply: Failure, method: str, connection: Connection | None, raises: Collection[type | ModuleType] | None
) -> Error:
    """The worker's code raised.

    Args:
        reply: the worker's.
        method: the call.
        connection: to the worker, if there still is one.
        raises: the classes that may be raised here, and modules of such; None for all that this process has imported.
    """
    if connection is None:
        return failure.rebuild(reply.exc, reply.text, raises=raises, note=f"{method} raised this in a worker")
    note = f"{method} raised this in {connection.place}"
    error = failure.rebuild(reply.exc, reply.text, raises=raises, note=note, unpickle=connection.unpickle)
    error.worker_pid, error.worker_address = connection.pid or None, str(connection.address)
    return error


def never_began(reply: Failure) -> bool:
    """Whether the call is known not to have begun, so that its worker is as it was: a worker that says so has shown no
    line of the application."""
    exc = reply.exc
    if exc is None or exc.get("module") != "builtins" or exc.get("type") not in ("TypeError", "AttributeError"):
        return False
    attributes = exc.get("attrs")
    return isinstance(attributes, dict) and attributes.get("executed") is False and not exc.get("frames")


def setup_raised(greeting: Greeting, place: str) -> Error:
    """The setup of a worker at this place has raised, before its first call."""
    note = f"setup raised this in {place}"
    return failure.rebuild(greeting.exc, greeting.text, mixin=SetupError, note=note)


def dropped(method: str, for_client: str) -> CallDropped:
    """An earlier call of the same queue raised."""
    return CallDropped(f"{method}{for_client} did not run: an earlier call queued on this checkout raised")


def not_sent(method: str, for_client: str, why: str) -> EncodeError:
    """The call cannot travel."""
    called = method if isinstance(method, str) else f"a call of {type(method).__name__} {method!r:.80}"
    return EncodeError(f"{called}{for_client} was not sent: {why}")


def overloaded(method: str, for_client: str, waiting: int) -> Overloaded:
    """As many calls are queued on the checkout as max_queue allows."""
    return Overloaded(
        f"{method}{for_client} was not sent: {waiting} calls are queued on this checkout already "
        "(max_queue). Wait for some of their results before you submit more"
    )


def copy_to_raise(error: Error, traceback: TracebackType | None) -> Error:
    """A copy, to be raised, of an error that is kept.

    A raised error keeps the frames that it passes, and all that their variables hold. As long as the lease or the
    result kept that error none of that could be freed.

    Args:
        error: the error that is kept.
        traceback: the traceback that it had at first.
    """
    if isinstance(error, RemoteError):
        return copy_of(error).with_traceback(traceback or error.__traceback__)
    copy = type(error).__new__(type(error), *error.args)
    copy.args = error.args
    vars(copy).update(vars(error))
    copy.__cause__, copy.__context__ = error.__cause__, error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.with_traceback(traceback or error.__traceback__)


def is_interrupted(er: Failure) -> bool:
    """Whether this is the reply of a call that the master has interrupted."""
    return er.exc is not None and er.exc.get("type") == "Interrupted" and er.exc.get("module") == "gtask.errors"
