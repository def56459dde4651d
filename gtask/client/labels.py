"""Which worker this is: the words for a connection in errors, logs and debuggers."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from gtask import address

if TYPE_CHECKING:
    from gtask.client.connection import Connection

__all__ = ["description", "label", "place"]


def label(connection: Connection) -> str:
    """Which worker it is, for messages."""
    if connection.dialect.greeting is None:
        return f"the worker at {connection.address}{_of_client(connection)}"
    server = connection.server or "the server"
    pid = connection.pid or "(not yet greeted)"
    return f"worker {pid} of {server} at {connection.address}{_of_client(connection)}"


def place(connection: Connection) -> str:
    """Where its worker is, for a text that is the same for all workers of the server."""
    if connection.dialect.greeting is None and not address.is_private(connection.address):
        return label(connection)
    return f"worker code of {address.place(connection.server, connection.address)}{_of_client(connection)}"


def description(connection: Connection) -> str:
    """The worker and what it does, for a debugger."""
    state = connection.state if connection.error is None else f"closed: {connection.error}"
    if connection.error is None and connection.pending:
        call = connection.pending[0]
        behind = connection.waiting - 1
        state = f"in {call.method} for {monotonic() - call.sent_at:.3g} s, {behind} calls behind it"
    server = connection.server or "the server"
    return f"<worker {connection.pid or '?'} of {server} at {connection.address}, {state}>"


def _of_client(connection: Connection) -> str:
    return f", for client {connection.client!r}" if connection.client else ""
