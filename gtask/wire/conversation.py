"""One connection's conversation: whose turn it is, how many replies are owed, what a failed queue skips.

Both sides keep an :class:`Conversation` and feed it the kind of every message, sent or received, so both walk
through the same :data:`TABLE`. The idea of a literal transition table is h11's.

==========  =============================================================================================
new         connected, nothing said
greeting    the client has said hi; the worker runs setup
idle        no reply is owed
busy        one or more replies are owed, in the order of the calls
settling    the client has ended the checkout; the worker runs checkout_done
failed      setup failed, and the worker has said so
==========  =============================================================================================

**Epochs.** Calls may be sent without waiting. When one raises, those behind it must not run, although they may
already lie in the worker's socket. So each call names its epoch, a number; the client takes a new one when it
receives an error, and the worker skips the rest of an epoch in which it has sent one. A call that names no
epoch is never skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gtask.errors import ProtocolError
from gtask.wire.forms import WORDS
from gtask.wire.messages import Done, Extend, Failure, Greeting, LogRecords, Preamble, Request, Retire, Skipped, Value

if TYPE_CHECKING:
    from gtask.wire.messages import Message

__all__ = ["TABLE", "Conversation"]

CLIENT, WORKER = "client", "worker"

Table = dict[tuple[str, str, type], str]

TABLE: Table = {
    ("new", CLIENT, Greeting): "greeting",
    ("greeting", WORKER, Greeting): "idle",
    ("idle", CLIENT, Preamble): "idle",
    ("idle", CLIENT, Request): "busy",
    ("busy", CLIENT, Preamble): "busy",
    ("busy", CLIENT, Request): "busy",
    ("busy", WORKER, LogRecords): "busy",
    ("busy", WORKER, Extend): "busy",
    ("busy", WORKER, Value): "idle",
    ("busy", WORKER, Failure): "idle",
    ("busy", WORKER, Skipped): "idle",
    ("idle", CLIENT, Done): "settling",
    ("settling", WORKER, Done): "idle",
    ("idle", WORKER, Retire): "idle",
    ("busy", WORKER, Retire): "busy",
    ("settling", WORKER, Retire): "settling",
}
"""(state, who speaks, message) -> next state, with two rules beside it: a reply leads to ``idle`` only when no
other is owed, and where the worker has no checkout_done hook the end of a checkout is not answered. A greeting with
an exception leads to ``failed``, which nothing leaves. What is not in the table is a ProtocolError."""


_REPLIES = frozenset({Value, Failure, Skipped})
_A_DONE = Done()


class Conversation:
    """The state of one conversation.

    Attributes:
        state: one of those above.
        owed: how many replies the worker still owes.
        settles: whether the worker has a checkout_done hook, and so answers the end of a checkout.
    """

    __slots__ = ("_failed_epoch", "owed", "settles", "state")

    table: ClassVar[Table] = TABLE

    def __init__(self) -> None:
        self.state = "new"
        self.owed = 0
        self._failed_epoch = 0
        self.settles = False

    def __repr__(self) -> str:
        return f"<Conversation {self.state}, {self.owed} owed>"

    def client_says(self, message: Message) -> None:
        """Note a message of the client: its own before it is sent, or at the worker when it has come.

        Raises:
            ProtocolError: it is not the client's turn to say that.
        """
        kind = type(message)
        if kind is Request:
            self.request()
            return
        state = self._following(CLIENT, kind)
        if kind is not Done or self.settles:
            self.state = state

    def worker_says(self, message: Message) -> None:
        """Note a message of the worker: at the client when it has come, or its own before it is sent.

        Raises:
            ProtocolError: it is not the worker's turn to say that.
        """
        kind = type(message)
        state = self._following(WORKER, kind)
        if kind in _REPLIES:
            self.reply(kind)
            return
        if isinstance(message, Greeting):
            self.settles = message.done
            if message.exc is not None or message.text:
                state = "failed"
        self.state = state

    def request(self) -> None:
        """Note a request: as :meth:`client_says`, for what is said most often."""
        self.state = self._following(CLIENT, Request)
        self.owed += 1

    def done(self) -> None:
        """Note the end of a checkout: as :meth:`client_says`. Where nobody answers it, the worker is idle at once."""
        if self.settles or self.state != "idle":
            self.client_says(_A_DONE)

    def reply(self, kind: type) -> None:
        """Note a reply of this kind: as :meth:`worker_says`."""
        state = self._following(WORKER, kind)
        self.owed -= 1
        if not self.owed:
            self.state = state

    def must_skip(self, do: Request) -> bool:
        """At the worker: whether an earlier call of this call's epoch failed."""
        return do.epoch != 0 and do.epoch == self._failed_epoch

    def failed(self, do: Request) -> None:
        """At the worker: this call raised; skip what else its epoch holds."""
        if do.epoch:
            self._failed_epoch = do.epoch

    def _following(self, speaker: str, kind: type) -> str:
        state = self.table.get((self.state, speaker, kind))
        if state is None:
            raise ProtocolError(f"the {speaker} said {WORDS[kind]!r} in the state {self.state!r}")
        return state
