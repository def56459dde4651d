"""One socket to one worker that speaks JSON, such as one of AnyEvent::Task in Perl.

It knows no queues: whatever lies in its socket runs, also behind a call that has raised. So one request is sent at a
time, and the others wait here until the reply has come; if that is an error they are never sent. It does not greet, and
nobody says last words for it.
"""

from __future__ import annotations

from time import monotonic

from gtask.aspects.caller import CallReport
from gtask.aspects.logs.replay import from_deferred
from gtask.client.calls import Call
from gtask.client.connection import Connection
from gtask.errors import SetupError
from gtask.wire.exceptions import failure
from gtask.wire.json.conversation import SETUP_EXCEPTION, JsonConversation
from gtask.wire.json.text import Encoder, ReplyDecoder
from gtask.wire.messages import Done, Failure, Greeting, LogRecords, Message, Request, Skipped, Value

__all__ = ["JsonConnection"]


class JsonConnection(Connection):
    """A worker, as its client sees it. In ``pending`` only the first call has been sent."""

    __slots__ = ()

    done_frame = Encoder().encode(Done())

    exchange_class = JsonConversation
    decoder_class = ReplyDecoder

    def greet(self, timeout: float) -> Greeting:
        """Nobody greets: that the connection is there has to do. Setup runs before the first call."""
        return Greeting()

    def send(self, call: Call) -> None:
        """Send a request, or keep it until those before it are answered. Its outcome goes to ``call.deliver``."""
        self.pending.append(call)
        if len(self.pending) == 1:
            self._send_first()

    @property
    def is_sound(self) -> bool:
        return self.error is None and self._exchange.owed == bool(self.pending) and bool(self._reader.active)

    @property
    def label(self) -> str:
        client = f", for client {self._client!r}" if self._client else ""
        return f"the worker at {self.address}{client}"

    def _send_first(self) -> None:
        call = self.pending[0]
        self._exchange.client_says(_A_DO)
        now = call.sent_at = monotonic()
        deadline = call.reach_head(now)
        if deadline < self._alarm_at:
            self._set_alarm(deadline, now)
        frame = call.frame
        assert isinstance(frame, bytes)  # with JSON there is nothing to be agreed upon
        if self._owes_done:
            self._owes_done = False
            frame = self.done_frame + frame
        self._write(frame)

    def _take(self, message: Message) -> None:
        if isinstance(message, (Value, Failure)) and message.ld is not None and self._exchange.owed:
            call = self.pending[0]
            if call.story is None:
                call.story = CallReport()
            if not call.story.has_request_log and self._levels is not None:
                call.story.take(LogRecords(from_deferred(message.ld)), 0)
        behind = 0  # how many calls stood there when one raised; its caller may make more as soon as it hears of it
        if isinstance(message, Failure) and self._exchange.owed:
            if message.text.startswith(SETUP_EXCEPTION):
                note = f"setup raised this in {self.label}"
                text = message.text.removeprefix(SETUP_EXCEPTION)
                self.hang_up(failure.rebuild(None, text, mixin=SetupError, note=note))
                return
            behind = len(self.pending) - 1
        super()._take(message)
        for _ in range(behind):
            if self.error is None:
                self._drop_first()
        if self.pending and not self._exchange.owed and self.error is None:
            self._send_first()

    def _drop_first(self) -> None:
        self._in_hand = call = self.pending[0]
        self.pending.popleft()
        call.deliver(Skipped())
        self._in_hand = None
        if self._tell_drained and not self.pending and self.error is None:
            self._tell_drained = False
            self._owner.drained(self)

    def _give_up(self, now: float) -> None:
        """The time of a call is over, and there is nothing more to hear."""
        self.hang_up(self._overdue_error())


_A_DO = Request(())
