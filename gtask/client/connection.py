"""One worker as its client sees it: a stream, a conversation on it, and the calls that wait for replies.

A connection reads in a callback of the hub, never in a greenlet: what has come is delivered to the calls that wait, in
order, and the end of the stream is noticed at once, also while nobody calls. It is *dirty* from the first byte of a
request to the last byte of its reply; an interruption in between closes it.
"""

from __future__ import annotations

import math
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent

from gtask.client import deaths, labels, one_at_a_time, outcomes
from gtask.client.handshake import Handshake
from gtask.client.overtime import Overtime
from gtask.client.preamble import NO_ORDERS, Preambles
from gtask.client.stream import Stream
from gtask.errors import Cancelled, Error, ProtocolError, reason_of
from gtask.wire.messages import Done, Extend, Failure, Greeting, LogRecords, Retire, Skipped, Value
from gtask.wire.pieces import LargeFrame
from gtask.wire.values.agreement import PLAIN, close_channel, prepared

if TYPE_CHECKING:
    from gtask.address import Address
    from gtask.aspects.aspect import CallerAspect, StandingOrders
    from gtask.client.calls import BlockingCall, Call
    from gtask.client.dialects.dialect import Dialect
    from gtask.client.pool.workers import Workers
    from gtask.errors import ClientClosed
    from gtask.wire.messages import LastWords, Message

__all__ = ["Connection"]

BUSY_WITH = 9
"""With fewer than BUSY_WITH replies outstanding a request is sent at once; otherwise the stream collects requests."""


class Connection:
    """A worker, as its client sees it.

    Args:
        sock: a connected, non-blocking socket.
        address: of the server.
        owner: the pool; it hears what befalls the connection.
        dialect: the language.
        client: the client's name, for messages; "" for none.
        aspects: those of the client's calls.
        orders: the standing orders for the client's workers.

    Attributes:
        alarm: for the deadline of the call at the head; it holds the loop while it is set.
        pending: the calls that are owed a reply, in order.
        behind: the calls behind them that the dialect does not allow at once; they have not been sent.
        in_hand: the call that is just being told its outcome.
        channel: for shared memory, if there is one; the worker gets its end with the greeting.
        pid: the worker's process id, once it has greeted.
        server: the name of the server, once the worker has greeted.
        error: why the connection is closed, or None while it is open.
        untouched: whether the worker is known to have begun nothing since it was lent.
        owes_done: whether the worker has not yet heard of the end of a checkout that is over.
        slot: the pool's.
        watcher: the stream's, which is active while the connection is read.
        unpickle: what loads a part of an exception; None without consent.
        tell_drained: whether the owner is to hear ``drained`` once the last reply that is owed has come.
        none_begun: whether the worker is known to have begun none of the pending calls.
        spare_call: a call that has ended, to be used again: a new one would take longer.
    """

    __slots__ = (
        "_agreement", "_aspects", "_at_once", "_closed", "_conversation", "_done_frame", "_ends_with_next",
        "_handshake", "_has_answered", "_knows_end", "_loop", "_overtime", "_owner", "_preambles", "_reader", "_stream",
        "address", "alarm", "behind", "channel", "client", "dialect", "error", "in_hand", "none_begun", "owes_done",
        "pending", "pid", "server", "slot", "spare_call", "tell_drained", "unpickle", "untouched", "watcher",
    )  # fmt: skip

    def __init__(
        self,
        sock: Any,
        address: Address,
        owner: Workers,
        dialect: Dialect,
        client: str = "",
        aspects: tuple[CallerAspect, ...] = (),
        orders: StandingOrders = NO_ORDERS,
    ) -> None:
        self.address = address
        self.pid, self.server = 0, ""
        self.error: Error | None = None
        self.slot: Any = None
        self.pending: deque[Call] = deque()
        self.untouched = True
        self.spare_call: BlockingCall | None = None
        self._owner = owner
        self.dialect = dialect
        self.client = client
        self.unpickle = dialect.unpickle
        self._aspects = aspects
        self._agreement = PLAIN
        self._at_once = dialect.at_once
        self.behind: deque[Call] = deque()
        self._conversation = dialect.make_conversation()
        self._preambles = Preambles(orders, dialect, self._conversation)
        self._reader = dialect.make_reader()
        self._done_frame = dialect.encode(Done())
        self.in_hand: Call | None = None
        self.owes_done = self._has_answered = self.none_begun = self.tell_drained = self._closed = False
        self._ends_with_next = self._knows_end = False
        self._handshake: Handshake | None = None
        self._loop = loop = gevent.get_hub().loop
        self.channel: Any = None
        self._stream = Stream(sock, loop, self._reader, self)
        self.watcher = self._stream.watcher
        self._overtime = Overtime(self, loop, self._stream, dialect)
        self.alarm = self._overtime.alarm

    # These stand in labels.py.
    __repr__ = labels.description
    label = property(labels.label)
    place = property(labels.place)

    @property
    def state(self) -> str:
        """That of its conversation: ``idle``, ``busy``..."""
        return "busy" if self.pending else self._conversation.state

    @property
    def is_sound(self) -> bool:
        """Whether it is open, and no interruption has left it half way through some change."""
        return self.error is None and bool(self.watcher.active)

    @property
    def waiting(self) -> int:
        """How many calls wait for their replies, or to be sent."""
        return len(self.pending) + len(self.behind)

    # --- the client speaks -----------------------------------------------------------------------------

    def greet(self, timeout: float) -> Greeting:
        """Greet, and wait until the worker's setup has run; blocks this greenlet. Some dialects have no greeting.

        Args:
            timeout: seconds to wait for the worker's greeting.

        Raises:
            Error: the worker did not greet.
        """
        self._stream.read_on()
        greeting = self.dialect.greeting
        if greeting is None:
            return Greeting()
        self._conversation.client_says(greeting)
        self._handshake = handshake = Handshake(self, self._stream, self._loop, timeout)
        try:
            answer = handshake.greet(greeting)
        finally:
            self._handshake = None
        self.pid, self.server = answer.pid, answer.name
        return answer

    def prepare(self, call: Call) -> str:
        """Make the call's frame ready for this worker; gives a reason if it must not be sent, else ""."""
        call.frame, refusal = prepared(call.frame, self._agreement)
        return refusal

    def send(self, call: Call) -> None:
        """Send a request that is prepared behind those already sent; its outcome goes to the call. Never blocks."""
        pending = self.pending
        before = len(pending)
        if before >= self._at_once:
            self.behind.append(call)
            return
        pending.append(call)
        if self._conversation.state != "idle":
            self._conversation.request()  # which refuses it
        now = call.sent_at = monotonic()
        frame: Any = call.frame
        if call.deadline or not self._preambles.hold:
            frame = self._preambles.next(call.deadline - now) + frame
        if self.owes_done:
            self.owes_done = False
            frame = self._done_frame + frame
        if self._ends_with_next:
            self._ends_with_next, self._knows_end = False, True
            frame = frame + self._done_frame
        if not before:
            timeout = call.timeout
            call.deadline = deadline = call.deadline or (math.inf if timeout is None else now + timeout)
            if deadline <= self.alarm.at:  # infinite, both of them, for the first call without a time-out
                self._overtime.watch(call, now)
        try:
            if before < BUSY_WITH or type(frame) is LargeFrame:
                self._stream.write(frame)
            else:
                self._stream.collect(frame)
            self.untouched = False
        except OSError as error:
            self.none_begun = not before
            if self.untouched or not isinstance(error, ConnectionError):
                self.die(f"broke the connection ({reason_of(error)})")
            # Else the peer reads no more: its replies may still be read, and then the end.

    def end_checkout(self) -> bool:
        """Tell the worker that the checkout is over; gives whether the worker may be lent again at once. If not, the
        owner hears ``settled`` when checkout_done has run."""
        conversation = self._conversation
        self.tell_drained = False  # it was released a second time meanwhile
        if not conversation.settles and conversation.state == "idle":
            self.owes_done = not self._knows_end  # it rides with the next request
            return True
        conversation.done()
        self._write(self._done_frame)
        return False

    def announce_end(self) -> None:
        """The next call is the only one of its checkout: the worker hears the end right behind it, if it may."""
        self._ends_with_next = not self._conversation.settles

    def end_behind(self) -> None:
        """The checkout is over, but for its calls under way. The owner hears ``drained`` when they are through. The
        worker hears the end now, if it may: perhaps the hub never turns again."""
        self.tell_drained = True
        if not (self._knows_end or self.behind or self._conversation.settles):
            self._stream.push(self._done_frame)
            self._knows_end = True

    def tell_done(self) -> None:
        """Tell the idle worker now that its checkout is over, unless it knows."""
        if self.owes_done:
            self.owes_done = False
            self._write(self._done_frame)

    def lend(self) -> None:
        """It is lent from now on: until a call may have begun, its loss does no harm."""
        self.untouched = True
        self._has_answered = self._ends_with_next = self._knows_end = False

    def violated(self, how: ProtocolError) -> None:
        """What has come is no message, or not one of this moment."""
        self.hang_up(ProtocolError(f"{self.label}: {how}"))

    # --- the end ---------------------------------------------------------------------------------------

    def close(self, error: Error) -> None:
        """Hang up. Calls that are still owed a reply end with ``error``.

        Closing again ends what an interruption has left half done."""
        if self._closed:
            return
        if self.error is None:
            self.error = error
        self._overtime.close()
        self._stream.close()
        close_channel(self.channel)
        if self._handshake is not None:
            self._handshake.failed(self.error)
        if self.in_hand is not None:
            self.in_hand.post(self.error)  # an interruption has come just before it was delivered
        for calls in (self.pending, self.behind):
            while calls:
                calls[0].post(self.error)
                calls.popleft()
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
        self._overtime.close()
        self._stream.close()
        close_channel(self.channel)

    def die(self, how: str, words: LastWords | None = None) -> None:
        """The other side has ended the connection."""
        if self.error is not None:
            return
        unsent: list[Call] = []
        self.untouched = self.untouched or (self.none_begun and not self._has_answered)
        if self.untouched:
            unsent = [*self.pending, *self.behind]
            self.pending, self.behind = deque(), deque()
        if self.pending and (self._overtime.is_over or (words is not None and words.why)):
            error: Error = self.overdue_error(words=words)
        else:
            error = deaths.died(self, how, words, monotonic(), self._reader.midway)
        self.close(error)
        self._owner.lost(self, error, unsent)

    def overdue_error(self, reply: Failure | None = None, words: LastWords | None = None) -> Error:
        """The error for the first pending call, whose time is over."""
        return deaths.overdue(self, self._overtime.is_over, monotonic(), reply, words)

    # --- the hub calls ---------------------------------------------------------------------------------

    def torn(self) -> None:
        """An interruption in the hub: what was read or written meanwhile is lost, so nothing after it would fit."""
        self._owner.interrupted()
        self.hang_up(Cancelled(f"the hub was interrupted while it read from or wrote to {self.label}"))

    def take(self, message: Message) -> None:
        """Something has come."""
        kind = type(message)
        if isinstance(message, Value) and message.ld is None and not message.used:
            self.take_value(message.value)
            return
        if kind is Value or kind is Failure or kind is Skipped:
            self._take_reply(message)
            return
        self._note(message)
        if kind is LogRecords:
            self.pending[0].hear(self._aspects, message, self.pid)
        elif isinstance(message, Extend):
            self._overtime.extend(self.pending[0], message.seconds)
        elif kind is Done:
            self._owner.settled(self)
        elif isinstance(message, Retire) and message.end:
            self.none_begun = True
            self.die(f"ended, because {message.why or 'its server stops'}")
        elif isinstance(message, Retire):
            self._owner.asked(self, message.why or "asked to be retired")
        elif isinstance(message, Greeting):
            self._take_greeting(message)

    def _note(self, message: Message) -> None:
        """Note a message that is no reply. Requests and replies are not noted: those that are pending tell as much."""
        conversation = self._conversation
        if self.pending:
            conversation.state = "busy"
        try:
            conversation.worker_says(message)
        finally:
            if conversation.state == "busy":
                conversation.state = "idle"

    def _take_reply(self, reply: Any) -> None:
        """The reply to the first pending call has come: a Value, a Failure or a Skipped."""
        if type(reply) is Failure and self.pending and outcomes.is_interrupted(reply):
            self.hang_up(self.overdue_error(reply))
            return
        if type(reply) is Value and reply.used and self.pending:
            self.pending[0].hear(self._aspects, reply, self.pid)
        self.take_value(None, reply)

    def take_value(self, value: Any, reply: Any = None) -> None:
        """The reply to the first pending call has come: a plain value, or what ``reply`` says."""
        pending = self.pending
        if not pending:
            self._conversation.reply(Value if reply is None else type(reply))  # which refuses it
        if self._overtime.is_over and self.waiting == 1:
            # The last call is the one that hung: its time was over, whatever it says now.
            self.hang_up(self.overdue_error(reply if type(reply) is Failure else None))
            return
        self.in_hand = call = pending[0]
        pending.popleft()
        self._has_answered = True
        if pending:
            self._overtime.watch(pending[0], monotonic())
        elif self.behind and type(reply) is not Failure:
            self.send_next()
        count = len(self.behind)
        if reply is None:
            call.take(value)
        else:
            call.deliver(reply)
        self.in_hand = None
        if count and type(reply) is Failure:
            self.drop(count)
        if self.tell_drained and not self.pending and not self.behind and self.error is None:
            self.tell_drained = False
            self._owner.drained(self)

    # These stand in one_at_a_time.py, for most dialects allow many calls at once.
    drop = one_at_a_time.drop
    send_next = one_at_a_time.send_next

    def _take_greeting(self, greeting: Greeting) -> None:
        if self._handshake is not None:
            self._agreement = self._handshake.agree(self._reader, greeting)
            self._handshake.heard(greeting)
        else:  # of a dialect without greetings: the setup before the first call has raised
            self.hang_up(outcomes.setup_raised(greeting, self.place))

    def _write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self.untouched = False
        except OSError as error:
            self.die(f"broke the connection ({reason_of(error)})")
