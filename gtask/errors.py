"""Everything a caller may catch. All derive from :class:`Error`.

A *sticky* error ends its checkout: every later call on that checkout raises it again, so that a
program which overlooked it once cannot go on half way through a transaction.
"""

from __future__ import annotations

import sys
from typing import ClassVar

__all__ = [
    "AcquireTimeout",
    "CallDropped",
    "CallTimeout",
    "Cancelled",
    "CheckoutReleased",
    "ClientClosed",
    "EncodeError",
    "Error",
    "FatalError",
    "Interrupted",
    "NestedCheckout",
    "Overloaded",
    "ProtocolError",
    "RemoteError",
    "SetupError",
    "StayedInWorker",
    "UsedWhileLoading",
    "WorkerDied",
    "WrongThread",
]


class Error(Exception):
    """The base of all errors that gtask raises."""

    sticky: ClassVar[bool] = False

    if sys.version_info < (3, 11):

        def add_note(self, note: str) -> None:
            """As Python 3.11's: a note that tracebacks show, and 3.10's do not."""
            self.__notes__ = [*getattr(self, "__notes__", ()), note]


class FatalError(Error):
    """The worker of this checkout is lost; the checkout raises this error from now on."""

    sticky = True


class Interrupted(BaseException):
    """Raised in a worker, at the line that runs, when its client has given up the call or ``hung_worker_timeout`` has
    passed. Application code may catch it to clean up. The call is over whatever the code does then; the hooks still
    run, and the worker exits."""


class RemoteError(Error):
    """The worker's code raised.

    Where the original class can be named here without importing anything, what is raised is both a
    RemoteError and that class: ``except KeyError`` and ``except gtask.RemoteError`` catch a worker's
    KeyError. Its traceback goes on into the worker's frames.

    Attributes:
        remote_type: the full name of the class in the worker, such as ``"sqlite3.IntegrityError"``.
        worker_pid: the worker's process id, or None.
        worker_address: where its server is, or "".
    """

    remote_type: str = ""
    worker_pid: int | None = None
    worker_address: str = ""


class StayedInWorker(Error, AttributeError, TypeError):
    """A part of a worker's exception was used that has not travelled, such as an open connection; the message names it.
    The exception itself, with all else that it has, is there."""


class SetupError(RemoteError):
    """The worker's ``setup`` raised, so this checkout has no worker. Also of the original class; a PermissionError says
    that the server gives this user no worker (``--allow-uid``)."""

    sticky = True


class CallTimeout(FatalError, TimeoutError):
    """The worker took longer than the call's time-out, or than the server's ``hung_worker_timeout``.

    Its traceback goes on into the worker's frames where the call could be interrupted; where it could not, a note shows
    where the worker's threads were.

    Attributes:
        pid: the worker's process id, or None.
        method: the method that was called.
        elapsed: seconds from the call to its end.
        stacks: where the worker's threads were, or "".
    """

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        method: str | None = None,
        elapsed: float | None = None,
        stacks: str = "",
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.method = method
        self.elapsed = elapsed
        self.stacks = stacks


class AcquireTimeout(FatalError, TimeoutError):
    """No worker could be had within the time-out; the message says whether the server could not be
    reached or all workers were busy. The call was never sent."""


class WorkerDied(FatalError, ConnectionError):
    """The worker's process ended, or its connection broke, before it had replied.

    Attributes:
        pid: the worker's process id, or None if it never said it.
        exitcode: its exit status, or None if a signal ended it or nobody could tell.
        signal: the name of the signal that ended it, or "".
        method: the method that was called, or None.
        elapsed: seconds from the call to its worker's death, or None.
        maxrss: the most memory that it used, in KiB, or None.
        stacks: where its threads were, if faulthandler could write it down, or "".
        executed: False if the request provably never left or was not begun, None if it may have been executed.
    """

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        exitcode: int | None = None,
        signal: str = "",
        maxrss: int | None = None,
        stacks: str = "",
        method: str | None = None,
        elapsed: float | None = None,
        executed: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.exitcode = exitcode
        self.signal = signal
        self.maxrss = maxrss
        self.stacks = stacks
        self.method = method
        self.elapsed = elapsed
        self.executed = executed


class Cancelled(FatalError):
    """The checkout was cancelled, by ``checkout.cancel(reason)`` or by an interruption of its caller."""


class CallDropped(Error):
    """This call never ran, because an earlier call of the same checkout's queue raised."""


class NestedCheckout(FatalError):
    """This greenlet waits for a worker that it can never get, because all are held, each in a ``with`` block, by itself
    or by others that wait in the same way. The call was never sent."""


class Overloaded(Error):
    """A queue is full, or the checkout had waited too long while all others did, too. The call never ran."""

    sticky = True


class EncodeError(Error, TypeError):
    """An argument or a result cannot travel. Nothing was sent; the worker is unharmed."""


class ProtocolError(FatalError):
    """The peer broke the protocol, or does not speak it."""


class CheckoutReleased(Error):
    """A checkout was used after its end."""


class ClientClosed(Error):
    """The client was used after ``close()``; or, in a forked process, a checkout that was made before the fork."""


class WrongThread(Error, RuntimeError):
    """A client was used in another OS thread than the one that it belongs to. Nothing was done."""


class UsedWhileLoading(Error, RuntimeError):
    """A client was used, or a server started, by a module while a server was loading it. Nothing was done."""


def reason_of(error: OSError) -> str:
    """The operating system's reason for an error, in lower case, as a part of a message."""
    return (error.strerror or str(error)).lower()
