"""One socket to one worker, and the conversation on it.

A connection reads in a callback of the hub, never in a greenlet: what has come is delivered to the calls
that wait, in order, and the end of the stream is noticed at once, also while nobody calls. It is *dirty* from
the first byte of a request to the last byte of its reply; whoever interrupts that closes it.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

import gevent
from gevent.hub import Waiter

from gtask.address import Address
from gtask.aspects.caller import CallReport
from gtask.aspects.logs.levels import Levels
from gtask.client import outcomes as verdicts
from gtask.client.calls import Call
from gtask.client.loop import SHORTEST
from gtask.errors import Cancelled, ClientClosed, EncodeError, Error, ProtocolError
from gtask.wire.conversation import Conversation
from gtask.wire.frames import Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.messages import (
    Done,
    Extend,
    Failure,
    Greeting,
    LastWords,
    LogRecords,
    Message,
    Preamble,
    Request,
    Retire,
    Skipped,
    Value,
)
from gtask.wire.values import offers
from gtask.wire.values.agreement import ConditionalFrame

__all__ = ["Connection", "Owner"]

READ, WRITE = 1, 2
SHUT_WR = 1

LAST_WORDS = 0.25
"""Seconds that a call waits past its deadline to hear where its worker hung."""

GREETING_LOOK = 0.25
"""Seconds between looks whether a greeting is overdue, or its reader was stopped by an interruption."""

SETTLE = 0.05
"""Seconds after which a stream that could end here goes on."""

BUSY_WITH, BURST = 8, 16
"""A request that finds fewer than so many unanswered ones before it is sent at once. Others are gathered until
there are so many of them, or until the hub's next turn."""


class Owner(Protocol):
    """Who hears what befalls a connection. Called in the hub or in whatever greenlet ends the connection."""

    def drained(self, connection: Connection) -> None:
        """The last reply that was owed has come, and :meth:`Connection.tell_when_drained` had been called."""

    def settled(self, connection: Connection) -> None:
        """The worker's checkout_done hook has run."""

    def asked(self, connection: Connection, why: str) -> None:
        """The worker asks not to be lent again, for this reason."""

    def interrupted(self) -> None:
        """An exception came amid some change: check the books in the hub's next turn."""

    def lost(self, connection: Connection, error: Error, unsent: list[Call]) -> None:
        """The connection is closed, though its owner had not closed it.

        If nothing had been sent since it was lent, its calls are ``unsent``, and another worker may have them.
        """


class Writer(Protocol):
    """Writes messages: an encoder of :mod:`gtask.wire.frames` or :mod:`gtask.wire.json.text`."""

    def encode(self, message: Message, /) -> bytes: ...


class Reader(Protocol):
    """Reads what the worker sends: the ReplyDecoder of :mod:`gtask.wire.lastwords` or :mod:`gtask.wire.json.text`."""

    space: memoryview

    @property
    def withheld(self) -> bool: ...
    @property
    def midway(self) -> bool: ...
    def received(self, count: int, /) -> list[Message]: ...
    def settle(self) -> list[Message]: ...
    def ended(self) -> tuple[list[Message], LastWords | None]: ...


class Connection:
    """A worker, as its client sees it.

    Attributes:
        pending: the calls that have been sent and are owed a reply, in order.
        pid: the worker's process id, once it has greeted.
        server: the name of the server, once the worker has greeted.
        agreement: what may be sent beyond what any worker can read, once the worker has greeted.
        error: why the connection is closed, or None while it is open.
        untouched: whether nothing has been sent since it was lent.
    """

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_burst",
        "_client",
        "_closed",
        "_decoder",
        "_encoder",
        "_exchange",
        "_greeting",
        "_in_hand",
        "_levels",
        "_loop",
        "_offers",
        "_overdue",
        "_owes_done",
        "_owner",
        "_reader",
        "_settle_alarm",
        "_socket",
        "_tell_drained",
        "_timeout",
        "_told_levels",
        "_unsent",
        "_writer",
        "address",
        "agreement",
        "error",
        "pending",
        "pid",
        "server",
        "slot",
        "untouched",
    )

    done_frame = Encoder().encode(Done())
    """What tells the worker that its checkout is over."""

    exchange_class: type[Conversation] = Conversation
    decoder_class: type[Any] = ReplyDecoder

    def __init__(
        self,
        sock: Any,
        address: Address,
        owner: Owner,
        encoder: Writer,
        limit: int,
        client: str = "",
        timeout: float | None = None,
        levels: Levels | None = None,
        pickle: bool = False,
    ) -> None:
        self.address = address
        self.agreement = offers.NOTHING
        self._offers = offers.consented(pickle)
        self._client = client
        self._timeout = timeout
        self._levels = levels
        self._told_levels: dict[str, int] | None = None
        self._closed = False
        self.pid = 0
        self.server = ""
        self.error: Error | None = None
        self.slot: Any = None
        self._owner = owner
        self._socket = sock
        self._exchange = self.exchange_class()
        self._encoder = encoder
        self._decoder: Reader = self.decoder_class(limit)
        self.pending: deque[Call] = deque()
        self._unsent: deque[memoryview] = deque()
        self._burst: list[bytes] = []
        self._in_hand: Call | None = None
        self._owes_done = False
        self._tell_drained = False
        self._greeting: Waiter[Greeting | Error] | None = None
        self._loop = gevent.get_hub().loop
        self._alarm: Any = None
        self._alarm_at = math.inf
        self._settle_alarm: Any = None
        self._overdue = False
        self.untouched = True
        self._writer = self._loop.io(sock.fileno(), WRITE)
        self._reader: Any = self._loop.io(sock.fileno(), READ)
        self._reader.start(self._on_readable)

    def __repr__(self) -> str:
        if self.error is not None:
            state = f"closed: {self.error}"
        elif self.pending:
            call = self.pending[0]
            state = f"in {call.method} for {monotonic() - call.sent_at:.3g} s, {len(self.pending) - 1} calls behind it"
        else:
            state = self._exchange.state
        return f"<worker {self.pid or '?'} of {self.server or 'the server'} at {self.address}, {state}>"

    # --- the client speaks -----------------------------------------------------------------------------

    def greet(self, timeout: float) -> Greeting:
        """Say hi and wait until the worker's setup has run; blocks this greenlet.

        Args:
            timeout: seconds to wait for the worker's greeting.

        Raises:
            Error: the worker did not greet.
        """
        hi = Greeting(name=self._client, timeout=self._timeout, offers=offers.offered(self._offers))
        self._exchange.client_says(hi)
        waiter: Waiter[Greeting | Error] = Waiter()
        self._greeting = waiter
        look = max(SHORTEST, min(timeout, GREETING_LOOK))
        alarm = self._loop.timer(look, look)
        alarm.start(self._look_for_greeting, monotonic() + timeout, timeout, update=True)
        try:
            self._write(self._encoder.encode(hi))
            answer = waiter.get()
        finally:
            self._greeting = None
            alarm.stop()
            alarm.close()
        if isinstance(answer, Error):
            raise answer
        self.pid, self.server = answer.pid, answer.name
        return answer

    def send(self, call: Call) -> None:
        """Send a request behind those already sent; its outcome goes to ``call.deliver``. Never blocks."""
        self._exchange.client_says(_A_DO)
        now = call.sent_at = monotonic()
        pending = self.pending
        pending.append(call)
        frame = call.frame
        if type(frame) is ConditionalFrame:
            frame = frame.data
        levels = self._levels
        if call.deadline or (levels is not None and (not levels.holds or levels.told is not self._told_levels)):
            frame = self._before(call.deadline - now) + frame
        if len(pending) == 1:
            deadline = call.reach_head(now)
            if deadline < self._alarm_at:
                self._set_alarm(deadline, now)
        if self._owes_done:
            self._owes_done = False
            frame = self.done_frame + frame
        if len(pending) <= BUSY_WITH:
            self._write(frame)
            return
        # The worker has enough to do: gather what follows, which saves most of the cost of sending it.
        burst = self._burst
        burst.append(frame)
        if len(burst) == 1:
            self._loop.run_callback(self._guarded, self._flush)
        elif len(burst) == BURST:
            self._flush()

    def _before(self, left: float) -> bytes:
        """What the worker must know before the next call: which records are wanted, and what is left of its time."""
        before = Preamble()
        levels = None if self._levels is None else self._levels.current()
        if levels is not self._told_levels:
            self._told_levels = before.levels = levels
        if 0 < left < math.inf:
            before.left = left
        if before.levels is None and before.left is None:
            return b""
        self._exchange.client_says(before)
        try:
            return self._encoder.encode(before)
        except EncodeError:  # over a small limit_message: fewer words, and perhaps more records than are wanted
            before.levels = {"": min((levels or {}).values(), default=0)}
            return self._encoder.encode(before)

    def end_checkout(self) -> bool:
        """Tell the worker that the checkout is over.

        Returns:
            whether the worker may be lent again at once; if not, its owner hears ``settled`` when
            checkout_done has run.
        """
        self._exchange.client_says(_A_DONE)
        self._tell_drained = False  # whoever wanted to know has released it a second time meanwhile
        if self._exchange.state == "idle":
            self._owes_done = True  # rides with the next request
            return True
        self._write(self.done_frame)
        return False

    def tell_done(self) -> None:
        """Nobody has wanted the worker for a while: tell it now that its checkout is over, unless it knows."""
        if self._owes_done:
            self._owes_done = False
            self._write(self.done_frame)

    def tell_when_drained(self) -> None:
        """Call the owner's ``drained`` once the last reply that is owed has come."""
        self._tell_drained = True

    def lend(self) -> None:
        """It is lent from now on: until something is sent, its loss does no harm."""
        self.untouched = True

    @property
    def is_sound(self) -> bool:
        """Whether it is open, and no interruption has left it half way through some change."""
        # gevent stops the reader if a KeyboardInterrupt strikes before our own handler is entered.
        return self.error is None and self._exchange.owed == len(self.pending) and bool(self._reader.active)

    @property
    def state(self) -> str:
        """That of its exchange: ``idle``, ``busy``, ``settling``..."""
        return self._exchange.state

    @property
    def label(self) -> str:
        """Which worker this is, for messages."""
        client = f", for client {self._client!r}" if self._client else ""
        return f"worker {self.pid or '(not yet greeted)'} of {self.server or 'the server'} at {self.address}{client}"

    # --- the end ---------------------------------------------------------------------------------------

    def close(self, error: Error) -> None:
        """Hang up. Calls that are still owed a reply end with ``error``.

        Closing again does nothing, or ends what an interruption has left half done.
        """
        if self._closed:
            return
        if self.error is None:
            self.error = error
        self._stop_watchers()
        self._socket.close()
        self._unsent.clear()
        self._burst.clear()
        if self._greeting is not None:
            self._loop.run_callback(self._greeting.switch, self.error)
        if self._in_hand is not None:
            self._in_hand.post(self.error)  # an interruption has come just before it was delivered
        while self.pending:
            self.pending[0].post(self.error)
            self.pending.popleft()
        self._closed = True

    def hang_up(self, error: Error) -> None:
        """Close it, and let the owner know. The server hears it, and stops the worker if it is in a call."""
        if self.error is None:
            self.close(error)
            self._owner.lost(self, error, [])

    def abandon(self, error: ClientClosed) -> None:
        """In a forked child, or when its thread has ended: close this process's socket. Nobody is told."""
        self._closed = True
        self.error = error
        self._stop_watchers()
        self._socket.close()

    def _stop_watchers(self) -> None:
        for watcher in (self._reader, self._writer, self._alarm, self._settle_alarm):
            if watcher is not None:
                with suppress(ValueError):  # the hub was destroyed, and all its watchers with it
                    watcher.stop()
                    watcher.close()

    def _die(self, how: str, rip: LastWords | None = None) -> None:
        """The other side has ended the connection."""
        if self.error is not None:
            return
        unsent: list[Call] = []
        if self.untouched:
            unsent, self.pending = list(self.pending), deque()
        if self.pending and (self._overdue or (rip is not None and rip.why)):
            error: Error = self._overdue_error(rip=rip)
        else:
            call = self.pending[0] if self.pending else None
            error = verdicts.died(
                self.label,
                self.pid,
                how,
                rip,
                method=None if call is None else call.method,
                elapsed=None if call is None else monotonic() - call.sent_at,
                midway=self._decoder.midway,
            )
        self.close(error)
        self._owner.lost(self, error, unsent)

    def _overdue_error(self, reply: Failure | None = None, rip: LastWords | None = None) -> Error:
        call = self.pending[0]
        timeout = call.timeout if self._overdue else None
        return verdicts.overdue(self.label, self.pid, call.method, monotonic() - call.sent_at, timeout, reply, rip)

    # --- the hub calls ---------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        decoder = self._decoder
        try:
            count = self._socket.recv_into(decoder.space)
            if not count:
                self._end("closed the connection")
                return
            self._take_all(decoder.received(count))
            if decoder.withheld:
                self._settle_later()
        except BlockingIOError:
            return
        except ProtocolError as error:
            self.hang_up(ProtocolError(f"{self.label}: {error}"))
        except OSError as error:
            self._end(f"broke the connection ({_reason(error)})")
        except BaseException:  # a Ctrl-C strikes in the hub, too
            self._torn()
            raise

    def _end(self, how: str) -> None:
        """Nothing more will come: take what has come, and the last words."""
        try:
            messages, rip = self._decoder.ended()
            self._take_all(messages)
        except ProtocolError as error:
            self.hang_up(ProtocolError(f"{self.label}: {error}"))
        else:
            self._die(how, rip)

    def _guarded(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException:  # a Ctrl-C strikes in the hub, too
            self._torn()
            raise

    def _torn(self) -> None:
        # A KeyboardInterrupt in the hub: what was read or written meanwhile is lost, so nothing after it would fit.
        self.hang_up(Cancelled(f"the hub was interrupted while it read from or wrote to {self.label}"))
        self._owner.interrupted()

    def _take_all(self, messages: list[Message]) -> None:
        for message in messages:
            if self.error is not None:
                return
            self._take(message)

    def _take(self, message: Message) -> None:
        self._exchange.worker_says(message)
        if isinstance(message, (Value, Failure, Skipped)):
            pending = self.pending
            if (isinstance(message, Failure) and verdicts.is_interrupted(message)) or (
                self._overdue and len(pending) == 1
            ):
                # The last call is the one that hung: whatever it says now, its time was over.
                self.hang_up(self._overdue_error(message if isinstance(message, Failure) else None))
                return
            self._in_hand = call = pending[0]
            pending.popleft()
            if pending:
                now = monotonic()
                deadline = pending[0].reach_head(now)
                if deadline < self._alarm_at:
                    self._set_alarm(deadline, now)
            call.deliver(message)
            self._in_hand = None
            if self._tell_drained and not self.pending and self.error is None:
                self._tell_drained = False
                self._owner.drained(self)
        elif isinstance(message, LogRecords):
            call = self.pending[0]
            story = call.story
            if story is None:
                story = call.story = CallReport()
            story.take(message, self.pid)
        elif isinstance(message, Extend):
            call = self.pending[0]
            call.deadline = max(call.deadline, monotonic() + message.seconds)  # the alarm looks again when it is due
        elif isinstance(message, Done):
            self._owner.settled(self)
        elif isinstance(message, Retire):
            self._owner.asked(self, message.why or "asked to be retired")
        elif isinstance(message, Greeting) and self._greeting is not None:
            assert isinstance(self._decoder, ReplyDecoder)  # nobody else hears a greeting
            self.agreement = offers.at_client(offers.offered(self._offers), message)
            self._decoder.agree(self.agreement)
            self._greeting.switch(message)

    def _on_writable(self) -> None:
        while self._unsent:
            data = self._unsent[0]
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                return
            except OSError as error:
                self._die(f"broke the connection ({_reason(error)})")
                return
            if sent < len(data):
                self._unsent[0] = data[sent:]
                return
            self._unsent.popleft()
        self._writer.stop()

    def _set_alarm(self, deadline: float, now: float) -> None:
        # Set only when the deadline comes before the alarm that is already set: on a busy connection once per
        # time-out instead of once per call.
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm.close()
        self._alarm_at = deadline
        self._alarm = self._loop.timer(max(SHORTEST, deadline - now))
        self._alarm.start(self._guarded, self._on_alarm, update=True)

    def _on_alarm(self) -> None:
        self._alarm_at = math.inf
        if not self.pending:
            return
        if self.error is None and not self._reader.active:
            self._reader.start(self._on_readable)
        now = monotonic()
        if self.pending[0].reach_head(now) <= now:
            # An answer that can already be read wins: perhaps only the hub was late.
            self._on_readable()
            if self.error is not None or not self.pending:
                return
        deadline = self.pending[0].reach_head(now)
        if deadline > now:
            if deadline < math.inf:
                self._set_alarm(deadline, now)
            return
        if not self._overdue:
            self._overdue = True
            self._give_up(now)
            return
        self.hang_up(self._overdue_error())

    def _give_up(self, now: float) -> None:
        """The time of a call is over: half-close, so that the server hears it while last words can still come."""
        self._shut_down()
        self._set_alarm(now + LAST_WORDS, now)

    def _settle_later(self) -> None:
        if self._settle_alarm is not None:  # started again, it would go on where it had been stopped
            self._settle_alarm.stop()
            self._settle_alarm.close()
        self._settle_alarm = self._loop.timer(SETTLE)
        self._settle_alarm.start(self._guarded, self._on_settled, update=True)

    def _on_settled(self) -> None:
        try:
            self._take_all(self._decoder.settle())
        except ProtocolError as error:
            self.hang_up(ProtocolError(f"{self.label}: {error}"))

    def _look_for_greeting(self, deadline: float, timeout: float) -> None:
        if self.error is None and not self._reader.active:
            self._reader.start(self._on_readable)
        if monotonic() >= deadline:
            self.hang_up(
                ProtocolError(
                    f"nobody greeted at {self.address} within {timeout:g} s: is it a gtask server, or does setup hang?"
                )
            )

    # --- helpers ---------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._burst and self.error is None:
            data = b"".join(self._burst)
            self._burst.clear()
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent.append(memoryview(data))
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._die(f"broke the connection ({_reason(error)})")
            return
        if sent:
            self.untouched = False
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._writer.start(self._guarded, self._on_writable)

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(SHUT_WR)
        except OSError as error:
            self._die(f"broke the connection ({_reason(error)})")


_A_DO, _A_DONE = Request(()), Done()


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
