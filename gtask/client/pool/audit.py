"""The audit of a pool after an interruption: which slots are not what the books say, and who may not have been told.

A kill, a Timeout or a Ctrl-C may strike at any line. Code that is struck amid several changes asks for an audit,
which comes in the hub's next turn, when nothing is half done any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gtask.client.pool.slots import BUSY, CONNECTING, SETTLING, Action, Fail, PoolSlot
from gtask.errors import Overloaded

if TYPE_CHECKING:
    from gtask.client.connection import Connection
    from gtask.client.lease import Lease
    from gtask.client.pool.connector import Connector
    from gtask.client.pool.ledger import Ledger

__all__ = ["Audit"]


def holds(lease: Lease, connection: Connection) -> bool:
    """Whether the lease really has this worker, and is not half way through some change."""
    over = lease.released and not connection.waiting
    ended = lease.error is not None and not isinstance(lease.error, Overloaded)
    return lease.connection is connection and not lease.queue and not over and not ended


class Audit:
    """Compares the ledger with the leases and the connections.

    Attributes:
        is_due: whether an audit has been asked for, and has not come yet.
        unnotified: waiters that may not have heard that they get no worker.
    """

    def __init__(self, ledger: Ledger[Lease], connector: Connector) -> None:
        self.is_due = False
        self.unnotified: list[Fail[Lease]] = []
        self._ledger = ledger
        self._connector = connector

    def begin(self) -> list[Fail[Lease]]:
        """Note that the audit has come; returns those who are to be told now. Some may have heard it already."""
        self.is_due = False
        unnotified, self.unnotified = self.unnotified, []
        return unnotified

    def repair(self, now: float) -> list[Action]:
        """Give up each slot that is not what the ledger says, and count the rest anew."""
        return self._ledger.repair(self.is_sound, now)

    def is_sound(self, slot: PoolSlot) -> bool:
        """Whether connection, lease and ledger tell the same story of this slot."""
        connection, holder = slot.worker, slot.holder
        if slot.state == CONNECTING:
            return self._connector.is_trying(slot)
        if connection is None or not connection.is_sound:
            return False
        if slot.state == BUSY:
            return holder is not None and holds(holder, connection)
        return holder is None and bool(connection.state == ("settling" if slot.state == SETTLING else "idle"))

    def strays(self) -> Iterator[PoolSlot]:
        """The slots of connections that are open, and that the ledger does not have."""
        booked = {slot.worker for slot in self._ledger.slots}
        for connection in self._connector.connections - booked:
            if not self._connector.is_trying(connection.slot):
                yield connection.slot
