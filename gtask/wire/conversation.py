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

from typing import TYPE_CHECKING

from gtask.errors import ProtocolError
from gtask.wire.forms import WORDS
from gtask.wire.messages import Done, Extend, Failure, Greeting, LogRecords, Preamble, Request, Retire, Skipped, Value

if TYPE_CHECKING:
    from gtask.wire.messages import Message

__all__ = ["TABLE", "Conversation"]

CLIENT, WORKER = "client", "worker"
STATES = ("new", "greeting", "idle", "busy", "settling", "failed")

TABLE: dict[tuple[str, str, type], str] = {
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


def _may(speaker: str) -> dict[str, dict[type, str]]:
    """The part of the table that is one speaker's, made so that a look at it costs least."""
    return {
        state: {kind: following for (at, by, kind), following in TABLE.items() if (at, by) == (state, speaker)}
        for state in STATES
    }


_REPLIES = frozenset({Value, Failure, Skipped})
_CLIENT_MAY, _WORKER_MAY = _may(CLIENT), _may(WORKER)
_A_DONE = Done()
_MAY_REQUEST = frozenset({state for state in STATES if Request in _CLIENT_MAY[state]})


class Conversation:
    """The state of one conversation.

    Attributes:
        state: one of those above.
        owed: how many replies the worker still owes.
        settles: whether the worker has a checkout_done hook, and so answers the end of a checkout.
    """

    __slots__ = ("_failed_epoch", "owed", "settles", "state")

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
        state = _CLIENT_MAY[self.state].get(kind)
        if state is None:
            raise self._out_of_turn(CLIENT, kind)
        if kind is not Done or self.settles:
            self.state = state

    def worker_says(self, message: Message) -> None:
        """Note a message of the worker: at the client when it has come, or its own before it is sent.

        Raises:
            ProtocolError: it is not the worker's turn to say that.
        """
        kind = type(message)
        if kind in _REPLIES:
            self.reply(kind)
            return
        state = _WORKER_MAY[self.state].get(kind)
        if state is None:
            raise self._out_of_turn(WORKER, kind)
        if isinstance(message, Greeting):
            self.settles = message.done
            if message.exc is not None or message.text:
                state = "failed"
        self.state = state

    def request(self) -> None:
        """Note a request: as :meth:`client_says`, for what is said most often."""
        if self.state not in _MAY_REQUEST:
            raise self._out_of_turn(CLIENT, Request)
        self.owed += 1
        self.state = "busy"

    def done(self) -> bool:
        """Note the end of a checkout: as :meth:`client_says`.

        Returns:
            whether nobody answers it, so that the worker is idle at once.
        """
        if self.settles or self.state != "idle":
            self.client_says(_A_DONE)
            return False
        return True

    def reply(self, kind: type) -> None:
        """Note a reply of this kind: as :meth:`worker_says`."""
        if self.state != "busy":
            raise self._out_of_turn(WORKER, kind)
        self.owed -= 1
        if not self.owed:
            self.state = "idle"

    def must_skip(self, do: Request) -> bool:
        """At the worker: whether an earlier call of this call's epoch failed."""
        return do.epoch != 0 and do.epoch == self._failed_epoch

    def failed(self, do: Request) -> None:
        """At the worker: this call raised; skip what else its epoch holds."""
        if do.epoch:
            self._failed_epoch = do.epoch

    def _out_of_turn(self, speaker: str, kind: type) -> ProtocolError:
        return ProtocolError(f"the {speaker} said {WORDS[kind]!r} in the state {self.state!r}")
