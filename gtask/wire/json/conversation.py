"""One conversation with a JSON peer: calls and their replies in order, and the end of a checkout.

There is no greeting, no epoch, no answer to the end of a checkout, and no word of a worker but its replies.
"""

from __future__ import annotations

from gtask.wire.conversation import CLIENT, WORKER, Conversation, Table
from gtask.wire.messages import Done, Failure, Greeting, LogRecords, Request, Value

__all__ = ["SETUP_EXCEPTION", "TABLE", "JsonConversation"]

SETUP_EXCEPTION = "setup exception: "
"""So begins the text of an ``er`` if the worker's setup, which runs before its first call, has raised."""

TABLE: Table = {
    ("idle", CLIENT, Request): "busy",
    ("busy", CLIENT, Request): "busy",
    ("busy", WORKER, Value): "idle",
    ("busy", WORKER, Failure): "idle",
    ("busy", WORKER, LogRecords): "busy",
    ("busy", WORKER, Greeting): "failed",
    ("idle", CLIENT, Done): "idle",
}
"""As :data:`gtask.wire.conversation.TABLE`, with the same first rule: a reply leads to ``idle`` only when no other is
owed. The deferred log of a reply, and the reply of a setup that has raised, are messages of their own here."""


class JsonConversation(Conversation):
    """The state of one conversation, which is ``idle`` at once."""

    __slots__ = ()

    table = TABLE

    def __init__(self) -> None:
        super().__init__()
        self.state = "idle"

    def must_skip(self, do: Request) -> bool:
        """A JSON peer has no epochs: each of its calls runs."""
        return False
