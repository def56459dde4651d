"""The lease of one worker: a place in line, then the worker itself, until it is given back.

The pool and the connection know it. The user holds a :class:`gtask.client.checkout.Checkout`, to which nothing here
refers: dropping the Checkout releases the lease.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gtask.client import in_line, outcomes
from gtask.client.calls import BlockingCall, Call, Result
from gtask.client.forks import HERE, look
from gtask.client.in_line import NONE, epochs
from gtask.client.loop import getcurrent, thread_ident
from gtask.client.refusals import no_more, overload, unsendable
from gtask.client.submitted import SubmittedCall
from gtask.errors import Cancelled, EncodeError, Error, Overloaded
from gtask.wire.messages import Failure, RequestMeta, Skipped, Value

if TYPE_CHECKING:
    from traceback import StackSummary
    from types import TracebackType

    from gtask.aspects.aspect import CallerAspect
    from gtask.client.connection import Connection
    from gtask.client.outcomes import Outcome
    from gtask.client.pool.pool import Pool

__all__ = ["Lease"]


class Lease:
    """A place in line and then a worker; the view that the pool and the connection have of a checkout.

    Args:
        lender: the pool.
        timeout: seconds that each of its calls may take; None for no limit.
        aspects: of its calls.

    Attributes:
        connection: the worker, once there is one and until it is given back or lost.
        queue: the calls that were made before there was a worker to send them to.
        thread: in which calls may be made; 0 when none may be made any more.
        epoch: of its next call.
        error: the sticky error, once there is one.
        traceback: of the sticky error, as it was at first.
        lender: the pool.
        released: whether the user has ended it.
        is_single: whether its next call is its only one.
        entered_by: a weak reference to the greenlet that is in its ``with`` block, if one is.
        replays: the submitted calls whose companions are being replayed, in order; None while there are none.
        made_at: where it was made, innermost frame first, if the pool reports leaks.
    """

    __slots__ = (
        "_aspects", "_has_raised", "_meta", "_timeout", "connection", "entered_by", "epoch", "error", "is_single",
        "lender", "made_at", "queue", "released", "replays", "thread", "traceback",
    )  # fmt: skip

    def __init__(self, lender: Pool, timeout: float | None, aspects: tuple[CallerAspect, ...] = ()) -> None:
        self.connection: Connection | None = None
        self.error: Error | None = None
        self.released = self.is_single = False
        self.entered_by: Callable[[], Any] | None = None
        self.made_at: StackSummary | None = None
        self.replays: deque[SubmittedCall] | None = None
        self.lender = lender
        self.thread = lender.thread
        self._timeout = timeout
        self._aspects = aspects
        self._meta = None if timeout == lender.terms.timeout else RequestMeta(timeout, True)
        self.epoch = next(epochs)
        self.traceback: TracebackType | None = None
        self._has_raised = False
        self.queue = NONE

    def __repr__(self) -> str:
        if self.error is not None:
            return f"ended by {type(self.error).__name__}"
        if self.connection is not None:
            return f"{'releasing' if self.released else 'holding'} {self.connection!r}"
        return "released" if self.released and not self.queue else f"in line with {len(self.queue)} calls"

    # --- the user calls --------------------------------------------------------------------------------

    def call(self, name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, by no name if the interface is a function; block this greenlet until its outcome is there."""
        connection = self.connection
        if connection is None or connection.spare_call is None:
            call = BlockingCall(name, self._timeout)
        else:
            call, connection.spare_call = connection.spare_call, None
            call.name, call.timeout, call.deadline = name, self._timeout, 0.0
        self._prepare(call, args, kwargs)
        try:
            connection = self.connection
            if connection is not None:
                connection.send(call)
            else:
                self.wait_in_line(call)
                deadlock = self.lender.deadlock_of(self)
                if deadlock is not None:
                    self.fail(deadlock)
            call.greenlet = getcurrent()
            value = self.lender.hub.switch()
            call.greenlet = None
        except BaseException as interruption:
            call.greenlet = None
            self._interrupted(call, interruption)
            call.end(None, interruption)
            call.replay()
            raise
        if value is not call and call.companions is None:
            if connection is not None:
                call.frame = b""  # or the arguments would stay as long as the worker
                connection.spare_call, connection.in_hand = call, None  # it has its outcome, and may have another soon
            return value
        return self._conclude_and_replay(call, call.outcome if value is call else Value(value))

    def _conclude_and_replay(self, call: Call, outcome: Outcome) -> Any:
        """The value of a call that has ended with more than a plain value, or its error is raised."""
        error = self.conclude(call, outcome)
        error = call.replay() or error
        if error is None:
            assert isinstance(outcome, Value)
            return outcome.value
        try:
            raise error
        finally:
            del error  # which knows this frame

    def submit(self, name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
        """Send a call behind those already made, without waiting."""
        call = SubmittedCall(name, self._timeout, self)
        self._prepare(call, args, kwargs)
        try:
            if self.connection is not None:
                self.connection.send(call)
            else:
                self.wait_in_line(call)
        except BaseException as interruption:
            self._interrupted(call, interruption)
            raise
        return call.result

    def cancel(self, reason: str) -> None:
        """End the checkout and the call that runs in it, now, with this reason."""
        look()
        if self.error is not None and not isinstance(self.error, Overloaded):
            return  # it has ended already; after a fork, as the parent's
        if thread_ident() != self.lender.thread:
            raise self.lender.wrong_thread()
        if self.connection is not None or self.queue or not self.released:
            try:
                self.fail(Cancelled(reason))
            except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
                self.lender.interrupted()
                raise

    def release(self) -> None:
        """End the checkout: give the worker back when the calls already made are through. Never blocks."""
        lender = self.lender
        if thread_ident() != lender.thread:
            lender.drop_later(self)
            return
        try:
            self.released = True
            self.thread = 0
            self._aspects = ()
            if self.entered_by is not None:
                lender.blocks.leave(self)
            connection = self.connection
            if connection is None:
                if not self.queue:
                    lender.leave(self)
            elif connection.pending or connection.behind:
                connection.end_behind()
            else:
                self.connection = None
                lender.take_back(connection, self._has_raised)
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            lender.interrupted()
            raise

    # --- the pool and the connection call --------------------------------------------------------------

    # These stand in in_line.py, for a lease with a worker needs none of them.
    wait_in_line = in_line.wait_in_line
    withdraw = in_line.withdraw
    accept = in_line.accept
    stand_again = in_line.stand_again
    overdue = in_line.overdue

    def abandon(self, error: Error) -> None:
        """In a forked child: the lease is the parent's. Nobody is woken, for its greenlets are the parent's, too."""
        self.error = error
        self.thread = 0
        self.connection = None
        self.lender.stop_clock(self)

    @property
    def is_over(self) -> bool:
        """Whether it is released and has no worker."""
        return self.released and self.connection is None

    @property
    def wants(self) -> bool:
        """Whether it still waits for a worker."""
        return self.connection is None and self.error is None and (bool(self.queue) or not self.released)

    def give_back(self) -> None:
        """Part with the worker: the lease is over and its calls are through."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self.lender.take_back(connection, self._has_raised)

    def fail(self, error: Error) -> None:
        """End the lease with a sticky error: all its calls, queued, running and later, raise it."""
        if self.error is None:
            self.error, self.traceback = error, error.__traceback__
        self.thread = 0
        self._aspects = ()
        self.lender.stop_clock(self)
        queue, self.queue = self.queue, NONE
        connection, self.connection = self.connection, None
        if connection is None:
            self.lender.leave(self)
        else:
            connection.hang_up(error)
        for call in queue:
            call.post(error)

    def conclude(self, call: Call, outcome: Outcome) -> Error | None:
        """A call has ended: let its companions know. Never blocks.

        Returns:
            the exception that its caller gets; None for a value.
        """
        error = None if type(outcome) is Value else self._error_of(call.method, outcome)
        if call.companions is not None:
            call.end(outcome, error)
        return error

    # --- helpers ---------------------------------------------------------------------------------------

    def _prepare(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See whether the call may be made now; begin its aspects and encode it."""
        lender, connection = self.lender, self.connection
        if thread_ident() != self.thread or not HERE[0]:
            raise no_more(self)
        if connection is None or connection.pending:
            waiting = len(self.queue) if connection is None else connection.waiting
            if waiting >= lender.terms.max_queue:
                raise overload(self, call, waiting)
        refusal = ""
        meta = call.begin(self._aspects, self._meta) if self._aspects else self._meta
        try:
            encode = lender.encode
            call.frame = frame = encode(args, kwargs, self.epoch, meta, call.name)
            if type(frame) is not bytes and connection is not None:
                refusal = connection.prepare(call)
        except EncodeError as error:
            refusal = str(error)
        if refusal:
            raise unsendable(self, call, refusal)
        lender.counters.calls += 1

    def _interrupted(self, call: Call, interruption: BaseException) -> None:
        # What was not yet sent never will be; what was, or may have been, has made the connection dirty.
        if call in self.queue:
            self.withdraw(call)
        connection = self.connection
        if connection is not None and (
            call in connection.pending or call in connection.behind or not connection.is_sound
        ):
            self.fail(Cancelled(f"{call.method} was interrupted in its caller by {type(interruption).__name__}"))
        self.lender.interrupted()

    def _error_of(self, method: str, outcome: Outcome) -> Error:
        """The exception that a caller gets for an outcome that is no value."""
        if isinstance(outcome, Failure):
            self._has_raised = self._has_raised or not outcomes.never_began(outcome)
            self.lender.counters.errors += 1
            self.epoch = next(epochs)
            return outcomes.raised(outcome, method, self.connection, self.lender.terms.raises)
        if isinstance(outcome, Skipped):
            return outcomes.dropped(method, self.lender.terms.remark)
        assert isinstance(outcome, Error)
        return outcomes.copy_to_raise(outcome, self.traceback)
