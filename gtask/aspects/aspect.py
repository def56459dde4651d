"""Aspects of a call: what a call may carry beside its arguments and its value.

An aspect belongs to a client or to a worker, and may take part in each of its calls. For a call that concerns it the
aspect makes a *companion*, which lives as long as the call. The core knows tuples of aspects and never their members; a
call without companions pays for nothing.

The idea of a list of instruments is trio's; structlog's processors and the extensions of websockets work in this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.outcomes import Outcome
    from gtask.errors import Error
    from gtask.server.worker.worker import Worker
    from gtask.wire.messages import Message, Preamble, Request

__all__ = ["CallerAspect", "Companion", "StandingOrders", "WorkerAspect", "WorkerAspectFactory", "WorkerCompanion"]


class Companion:
    """Follows one call at its caller. A companion overrides what concerns it.

    Attributes:
        needs_replay: whether :meth:`replay` has something to do.
        withholds_value: whether the caller cannot have the value before :meth:`replay` has run to its end.
    """

    __slots__ = ()

    needs_replay = False
    withholds_value = False

    def heard(self, message: Message, pid: int) -> None:
        """Something has come for the call from the worker with this process id; in the hub, never blocks."""

    def ended(self, call: Call, outcome: Outcome | None, error: BaseException | None) -> None:
        """The call has ended; perhaps in the hub, never blocks. A second call, after an interruption, does nothing.

        Args:
            call: the call.
            outcome: what has come from the worker; None if the call was not sent or was interrupted.
            error: the exception that the caller gets; None for a value.
        """

    def replay(self, call: Call) -> Error | None:
        """Do what may block or runs the program's own code; in a greenlet, after the call has ended.

        Returns:
            the error that takes the place of the call's value; None to leave it.
        """
        return None


class CallerAspect:
    """An aspect of the calls of a client, at their caller. An aspect overrides what concerns it.

    Attributes:
        key: the name of its value in the ``meta`` of a request.
    """

    key = ""

    def begin(self, call: Call) -> tuple[Any, Companion | None] | None:
        """A call begins, in its caller's greenlet.

        Returns:
            the value for ``meta`` and the companion of this call, each None for none; or None for neither.
        """

    def hear(self, call: Call, message: Message) -> Companion | None:
        """Something has come for a call that has no companion of this aspect yet; in the hub, never blocks.

        Args:
            call: the call.
            message: what came before its reply, or a reply that needs more than to be handed over.

        Returns:
            the companion that the call has from now on; None for none. Its ``heard`` is called next.
        """
        return None


class StandingOrders(Protocol):
    """What each worker must know before its next call, for as long as it does not change.

    Attributes:
        holds: true until something has changed; after a change :meth:`current` makes another object.
        told: the orders as :meth:`current` has given them last.
    """

    @property
    def holds(self) -> Any: ...
    @property
    def told(self) -> Any: ...
    def current(self) -> Any:
        """The orders; the same object until something has changed."""


class WorkerCompanion(Protocol):
    """What an aspect does for one call of a worker."""

    def enter(self) -> None:
        """The function is about to be called. What this raises is the outcome of the call; SIGALRM may interrupt it."""

    def leave(self, error: BaseException | None) -> None:
        """The call is over, and its reply is sent next. Called in any case, last begun first.

        Args:
            error: what the call has raised.
        """


class WorkerAspect:
    """An aspect of the calls of one worker. An aspect overrides what concerns it.

    Attributes:
        every_call: whether plain calls begin with it, too. Else only calls do that carry more than an epoch and keyword
            arguments, and other calls pay nothing for it.
    """

    every_call = False

    def begin(self, request: Request, method: str) -> WorkerCompanion | None:
        """A call begins.

        Args:
            request: the call; read it only. After a call without companions the object serves the next call, so keep
                nothing but its values.
            method: the method's name; ``()`` if the interface is a callable.

        Returns:
            what comes along with this call, or None if the aspect has nothing to do for it.
        """
        return None

    def heard(self, preamble: Preamble) -> None:
        """The client has said this before its next call."""

    def close(self) -> None:
        """The worker ends; its hooks have run."""


class WorkerAspectFactory(Protocol):
    """Makes the aspect of a worker that is about to greet its client; usually a class of aspects."""

    def __call__(self, worker: Worker) -> WorkerAspect: ...
