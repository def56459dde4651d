"""The calls behind those that a dialect allows at once: they wait in the client, and are sent or dropped one by one.

These are methods of :class:`gtask.client.connection.Connection`. Where a worker takes many calls nothing is behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gtask.wire.messages import Skipped

if TYPE_CHECKING:
    from gtask.client.connection import Connection

__all__ = ["drop", "send_next"]


def drop(connection: Connection, count: int) -> None:
    """A call has raised: this number of calls behind it do not run. The next one does."""
    behind = connection.behind
    while count and connection.error is None:
        count -= 1
        connection.in_hand = call = behind[0]
        behind.popleft()
        call.deliver(Skipped())
        connection.in_hand = None
    send_next(connection)


def send_next(connection: Connection) -> None:
    """Send the first call, if nothing is under way."""
    behind = connection.behind
    if behind and not connection.pending and connection.error is None:
        call = behind[0]
        connection.send(call)
        if connection.behind is behind and behind and behind[0] is call:
            behind.popleft()  # unless the sending has shown that the worker is dead
