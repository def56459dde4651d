"""The lease of one worker: a place in line, then the worker itself, until it is given back.

The pool and the connection know it. What the user holds is a :class:`gtask.client.checkout.Checkout`, to which nothing
here refers: dropping that releases the lease.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Collection
from time import monotonic
from traceback import StackSummary
from types import ModuleType, TracebackType
from typing import Any, Protocol

from gtask.aspects import context as contextbridge
from gtask.aspects import tracing
from gtask.aspects.caller import CallReport, RequestLog
from gtask.client.calls import BlockingCall, Call, Outcome, Result
from gtask.client.connection import Connection
from gtask.client.counters import Counters
from gtask.client.loop import thread_ident
from gtask.client.submitted import Replay, SubmittedCall
from gtask.errors import CallDropped, Cancelled, CheckoutReleased, EncodeError, Error, Overloaded
from gtask.wire.exceptions import failure
from gtask.wire.messages import Failure, RequestMeta, Skipped, Value
from gtask.wire.values.agreement import ConditionalFrame
from gtask.wire.values.pickles import unseal

__all__ = ["Lease", "Lender", "Terms"]

_epochs = itertools.count(1)

_EMPTY: deque[Call] = deque()
"""The queue of every lease that has none. Nothing is ever put into it; to have one each would cost 700 bytes."""


class Terms(Protocol):
    """What the client asked for, as far as a checkout must know it."""

    @property
    def name(self) -> str: ...
    @property
    def max_queue(self) -> int: ...
    @property
    def raises(self) -> Collection[type | ModuleType] | None: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def context(self) -> contextbridge.Named: ...


class Lender(Protocol):
    """Where workers come from and go back to."""

    @property
    def terms(self) -> Terms: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def thread(self) -> int:
        """The OS thread in which alone it may be used."""

    @property
    def peer(self) -> str:
        """Where the server is."""

    def encode(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], epoch: int, extras: RequestMeta | None, /
    ) -> bytes | ConditionalFrame:
        """The frame of a call; raises EncodeError."""

    def spawn(self, function: Callable[..., object], /) -> None:
        """Run a function in a greenlet of its own."""

    def enter(self, lease: Lease) -> None:
        """This greenlet has entered the ``with`` block of the lease's checkout."""

    def never(self, lease: Lease) -> Error | None:
        """This greenlet is about to block until the lease gets a worker: the error if that can never be."""

    def wrong_thread(self) -> Error:
        """The error for a use in another thread."""

    def rejoin(self, lease: Lease) -> None:
        """The lease, whose worker was lost unused, is the first in line again."""

    def leave(self, lease: Lease) -> None:
        """The lease, which has no worker yet, gives up its place in line."""

    def take_back(self, connection: Connection, errored: bool) -> None:
        """The lease of this idle connection is over; ``errored`` says whether a call raised in it."""

    def set_alarm(self, lease: Lease, seconds: float) -> Callable[[], None]:
        """Call ``lease.overdue`` in so many seconds, unless the function given back is called before."""

    def drop_later(self, lease: Lease) -> None:
        """Call ``lease.release`` from the hub: a finaliser may run anywhere, also amid the pool's own work."""

    def later(self, function: Callable[[], object], /) -> None:
        """Call a function from the hub, for a finaliser."""

    def interrupted(self) -> None:
        """An exception came amid some change: check the books in the hub's next turn."""

    def overdue(self, lease: Lease, call: Call) -> Error:
        """The error for a lease that got no worker in time for its first call, with the reason."""


class Lease:
    """A place in line and then a worker; what the pool and the connection know of a checkout.

    Attributes:
        connection: the worker, once there is one and until it is given back or lost.
        error: the sticky error, once there is one.
        released: whether the user has ended it.
        entered_by: a weak reference to the greenlet that is in its ``with`` block, if one is.
        replays: what submitted calls have logged and is still to be replayed, if there is any.
        made_at: where it was made, innermost frame first, if somebody wants to know.
    """

    __slots__ = (
        "_epoch",
        "_errored",
        "_is_plain",
        "_lender",
        "_queue",
        "_request_log",
        "_stop_alarm",
        "_timeout",
        "_traceback",
        "connection",
        "entered_by",
        "error",
        "made_at",
        "released",
        "replays",
    )

    def __init__(self, lender: Lender, timeout: float | None, request_log: RequestLog | None = None) -> None:
        self.connection: Connection | None = None
        self.error: Error | None = None
        self.released = False
        self.entered_by: Callable[[], Any] | None = None
        self.made_at: StackSummary | None = None
        self._lender = lender
        self._timeout = timeout
        self._traceback: TracebackType | None = None
        self._epoch = next(_epochs)
        self._errored = False
        self._queue = _EMPTY  # calls made before there was a worker to send them to
        self._stop_alarm: Callable[[], None] | None = None
        self._request_log = request_log
        terms = lender.terms
        self._is_plain = request_log is None and timeout == terms.timeout and not terms.context
        self.replays: deque[Replay] | None = None  # while there are any

    def __repr__(self) -> str:
        if self.error is not None:
            return f"ended by {type(self.error).__name__}"
        if self.connection is not None:
            return f"{'releasing' if self.released else 'holding'} {self.connection!r}"
        return "released" if self.released and not self._queue else f"in line with {len(self._queue)} calls"

    # --- the user calls --------------------------------------------------------------------------------

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call and block this greenlet until its outcome is there."""
        self._check_open(method)
        extras, story = (None, None) if self._is_plain and not tracing.is_wanted() else self._prepare(method)
        call = BlockingCall(method, self._encode(method, args, kwargs, extras, story), self._timeout)
        call.story = story
        try:
            if self.connection is not None:
                self.connection.send(call)
            else:
                self._wait_in_line(call)
                never = self._lender.never(self)
                if never is not None:
                    self.fail(never)
            outcome = call.wait()
        except BaseException as interruption:
            self._interrupted(call, interruption)
            story = call.story
            if story is not None:
                story.end(None, interruption, call.sent_at, monotonic())
                story.replay(method, self.raises)
            raise
        if type(outcome) is Value and call.story is None and not outcome.used:
            return outcome.value
        error = self.conclude(call, outcome)
        if call.story is not None and call.story.has_records:
            call.story.replay(method, self.raises)
        if isinstance(outcome, Value):
            error = self.unseal(method, outcome)
            if error is None:
                return outcome.value
        assert error is not None
        try:
            raise error
        finally:
            del error  # which knows this frame

    def submit(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
        """Send a call behind those already made, without waiting."""
        self._check_open(method)
        extras, story = (None, None) if self._is_plain and not tracing.is_wanted() else self._prepare(method)
        call = SubmittedCall(method, self._encode(method, args, kwargs, extras, story), self._timeout, self)
        call.story = story
        try:
            if self.connection is not None:
                self.connection.send(call)
            else:
                self._wait_in_line(call)
        except BaseException as interruption:
            self._interrupted(call, interruption)
            raise
        return call.result

    def cancel(self, reason: str) -> None:
        """End the checkout and whatever runs in it, now, with this reason."""
        if self.error is not None and not isinstance(self.error, Overloaded):
            return  # it has ended already; after a fork, as the parent's
        if thread_ident() != self._lender.thread:
            raise self._lender.wrong_thread()
        if self.connection is not None or self._queue or not self.released:
            try:
                self.fail(Cancelled(reason))
            except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
                self._lender.interrupted()
                raise

    def later(self, function: Callable[[], object]) -> None:
        """Call a function of this lease from the hub's next turn: for a finaliser, which may run anywhere."""
        self._lender.later(function)

    def release(self) -> None:
        """End the checkout: give the worker back when the calls already made are through. Never blocks."""
        if thread_ident() != self._lender.thread:
            self._lender.drop_later(self)
            return
        try:
            self.released = True
            self._request_log = None
            connection = self.connection
            if connection is None:
                if not self._queue:
                    self._lender.leave(self)
            elif connection.pending:
                connection.tell_when_drained()
            else:
                self.give_back()
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            self._lender.interrupted()
            raise

    # --- the pool and the connection call --------------------------------------------------------------

    def accept(self, connection: Connection) -> bool:
        """Take this worker, and send it what has been queued.

        Returns:
            False if the lease has ended meanwhile; the worker is the next one's then.
        """
        if not self._queue and (self.error is not None or self.released):
            return False
        if self._stop_alarm is not None:
            self._disarm()
        self.connection = connection
        connection.lend()
        while self._queue and self.connection is not None:
            call = self._queue[0]
            if type(call.frame) is ConditionalFrame and (why := call.frame.refusal(connection.agreement)):
                self._refuse_queue(EncodeError(f"{call.method}{self._for_client} was not sent: {why}"))
                break
            connection.send(call)
            if self.connection is not None and self._queue and self._queue[0] is call:
                self._queue.popleft()  # unless the sending has shown that the worker is dead
        if self.released and self.connection is not None:
            if not connection.pending:  # all were refused
                self.connection = None
                return False
            connection.tell_when_drained()
        return True

    def stand_again(self, unsent: list[Call]) -> None:
        """The worker was found dead before anything had been sent: wait for another, first in line."""
        self.connection = None
        self._queue = deque([*unsent, *(call for call in self._queue if call not in unsent)])
        if self._queue:
            self._start_clock()
        self._lender.rejoin(self)

    def holds(self, connection: Connection) -> bool:
        """Whether it really has this worker, and is not half way through some change."""
        over = self.released and not connection.pending
        ended = self.error is not None and not isinstance(self.error, Overloaded)
        return self.connection is connection and not self._queue and not over and not ended

    @property
    def entrant(self) -> Any:
        """The greenlet that is in its ``with`` block, or None."""
        return self.entered_by() if self.entered_by is not None else None

    @property
    def blocked(self) -> list[Any]:
        """The greenlets that wait for its worker."""
        return [call.greenlet for call in self._queue if call.greenlet is not None]

    def abandon(self, error: Error) -> None:
        """In a forked child: it is the parent's. Nobody is woken, for whoever waits is the parent's, too."""
        self.error = error
        self.connection = None
        self._disarm()

    @property
    def is_over(self) -> bool:
        return self.released and self.connection is None

    @property
    def wants(self) -> bool:
        """Whether it still waits for a worker."""
        return self.connection is None and self.error is None and (bool(self._queue) or not self.released)

    def give_back(self) -> None:
        """Part with the worker: the lease is over and its calls are through."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._lender.take_back(connection, self._errored)

    def overdue(self) -> None:
        """No worker came within the time-out of the first call."""
        self._stop_alarm = None
        if self._queue:
            self.fail(self._lender.overdue(self, self._queue[0]))

    def fail(self, error: Error) -> None:
        """End the lease with a sticky error: all its calls, queued, running and later, raise it."""
        if self.error is None:
            self.error, self._traceback = error, error.__traceback__
        self._request_log = None
        self._disarm()
        queue, self._queue = self._queue, _EMPTY
        connection, self.connection = self.connection, None
        if connection is None:
            self._lender.leave(self)
        else:
            connection.hang_up(error)
        for call in queue:
            call.post(error)

    @property
    def raises(self) -> Collection[type | ModuleType] | None:
        """What may be raised here, as the client was told."""
        return self._lender.terms.raises

    def spawn(self, function: Callable[[], object]) -> None:
        """Run a function in a greenlet of its own."""
        self._lender.spawn(function)

    # --- helpers ---------------------------------------------------------------------------------------

    def _check_open(self, method: str) -> None:
        if isinstance(self.error, Overloaded):
            raise Overloaded(*self.error.args)
        if self.error is not None:
            raise self._twin(self.error)
        if self.released:
            raise CheckoutReleased("this checkout is over: make a new one with client.checkout()")
        if thread_ident() != self._lender.thread:
            raise self._lender.wrong_thread()
        waiting = len(self._queue if self.connection is None else self.connection.pending)
        if waiting >= self._lender.terms.max_queue:
            self.error = Overloaded(
                f"{method}{self._for_client} was not sent: {waiting} calls are queued on this checkout already "
                "(max_queue). Wait for some of their results before you submit more"
            )
            # A copy is raised: the frames that it passes know the checkout, which could never be dropped then.
            raise Overloaded(*self.error.args)

    def _prepare(self, method: str) -> tuple[RequestMeta | None, CallReport | None]:
        """What this call carries that few do, and what will come with its outcome."""
        terms, request_log = self._lender.terms, self._request_log
        has_timeout = self._timeout != terms.timeout
        span = tracing.start_call(method, self._lender.peer) if tracing.is_wanted() else None
        story = CallReport(request_log, method, span) if request_log is not None or span is not None else None
        headers = span.headers if span is not None else {}
        context = contextbridge.values(terms.context)
        return RequestMeta(self._timeout, has_timeout, request_log is not None, headers, context), story

    def _encode(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        extras: RequestMeta | None,
        story: CallReport | None,
    ) -> bytes | ConditionalFrame:
        why = ""
        try:
            frame = self._lender.encode(args, kwargs, self._epoch, extras)
        except EncodeError as error:
            why = str(error)
        else:
            if type(frame) is ConditionalFrame and self.connection is not None:
                why = frame.refusal(self.connection.agreement)
        if why:
            refused = EncodeError(f"{method}{self._for_client} was not sent: {why}")
            if story is not None:
                now = monotonic()
                story.end(None, refused, now, now)
            raise refused
        self._lender.counters.calls += 1
        return frame

    @property
    def _for_client(self) -> str:
        name = self._lender.terms.name
        return f" (client {name!r})" if name else ""

    def _wait_in_line(self, call: Call) -> None:
        if self._queue:
            self._queue.append(call)
        else:
            self._queue = deque((call,))
            self._start_clock()

    def _refuse_queue(self, error: EncodeError) -> None:
        """The first call in the queue is nothing for this worker. As if it had raised, those behind it do not run."""
        self._epoch = next(_epochs)
        outcome: Error | Skipped = error
        while self._queue:
            self._queue[0].post(outcome)
            self._queue.popleft()
            outcome = Skipped()

    def _start_clock(self) -> None:
        """The first call of the queue waits for a worker, and its time runs."""
        now = monotonic()
        deadline = self._queue[0].reach_head(now)
        if deadline < math.inf:
            self._stop_alarm = self._lender.set_alarm(self, max(0.0, deadline - now))

    def _disarm(self) -> None:
        if self._stop_alarm is not None:
            self._stop_alarm()
            self._stop_alarm = None

    def _interrupted(self, call: Call, interruption: BaseException) -> None:
        # What was not yet sent never will be; what was, or may have been, has made the connection dirty.
        if call in self._queue:
            self._queue.remove(call)
            self._disarm()
            if self._queue:
                self._start_clock()
            elif self.released and self.connection is None:
                self._lender.leave(self)
        connection = self.connection
        if connection is not None and (call in connection.pending or not connection.is_sound):
            self.fail(Cancelled(f"{call.method} was interrupted in its caller by {type(interruption).__name__}"))
        self._lender.interrupted()

    def error_of(self, method: str, outcome: Outcome) -> Error:
        """The exception that a caller gets for an outcome that is no value."""
        if isinstance(outcome, Failure):
            self._errored = True
            self._lender.counters.errors += 1
            self._epoch = next(_epochs)
            terms = self._lender.terms
            worker = self.connection.label if self.connection is not None else "a worker"
            return failure.rebuild(
                outcome.exc, outcome.text, raises=terms.raises, note=f"{method} raised this in {worker}"
            )
        if isinstance(outcome, Skipped):
            return CallDropped(
                f"{method}{self._for_client} did not run: an earlier call queued on this checkout raised"
            )
        assert isinstance(outcome, Error)
        return self._twin(outcome)

    def unseal(self, method: str, ok: Value) -> EncodeError | None:
        """Load what has come pickled in a value. This runs the classes' own code, so it is done in a greenlet.

        Returns:
            the error, if that is what it came to.
        """
        if ok.used:
            holder = [ok.value]
            try:
                unseal(holder, lambda _: f"{method} was executed, but its result")
            except EncodeError as error:
                return error
            ok.value, ok.used = holder[0], frozenset()
        return None

    def _twin(self, error: Error) -> Error:
        """A copy, to be raised: the frames that a raised error passes know this lease and all that its user has, and
        as long as the lease kept that error they could not be freed."""
        twin = type(error).__new__(type(error), *error.args)
        twin.args = error.args
        vars(twin).update(vars(error))
        twin.__cause__, twin.__context__ = error.__cause__, error.__context__
        twin.__suppress_context__ = error.__suppress_context__
        return twin.with_traceback(self._traceback or error.__traceback__)

    def conclude(self, call: Call, outcome: Outcome) -> Error | None:
        """A call has ended: take note of all that has come with it. Never blocks.

        Returns:
            the exception that its caller gets, if it gets one.
        """
        error = None if type(outcome) is Value else self.error_of(call.method, outcome)
        if call.story is not None:
            call.story.end(outcome, error, call.sent_at, monotonic())
        return error
