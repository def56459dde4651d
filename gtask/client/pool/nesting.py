"""Whether a greenlet waits for a worker that can never come, because the greenlet holds the workers itself. Pure.

What counts as holding is being in the ``with`` block of a checkout: a block ends only when its greenlet gets there, and
that greenlet waits. A checkout outside of a block may be in other hands, and be released at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from gtask.client.lease import Lease
    from gtask.client.pool.ledger import Ledger

__all__ = ["Blocks", "blocked", "entrant", "waiter_of", "waits_for_itself"]


class Blocks:
    """How many ``with`` blocks of one pool's checkouts each greenlet is in. It keeps no greenlet alive.

    Args:
        getcurrent: gives the greenlet that runs.
    """

    def __init__(self, getcurrent: Callable[[], Any]) -> None:
        self._getcurrent = getcurrent
        self._counts: dict[Any, int] = {}

    def enter(self, lease: Lease) -> None:
        """This greenlet enters the block of the lease's checkout."""
        if lease.entered_by is not None:
            self.leave(lease)
        getcurrent = self._getcurrent
        lease.entered_by = greenlet = ref(getcurrent())
        counts = self._counts
        counts[greenlet] = counts[greenlet] + 1 if greenlet in counts else 1

    def leave(self, lease: Lease) -> None:
        """The lease is released, and its block has no meaning any more."""
        greenlet = lease.entered_by
        lease.entered_by = None
        count = self._counts.pop(greenlet, 1)
        if count > 1:
            self._counts[greenlet] = count - 1

    def has_others(self, lease: Lease) -> bool:
        """Whether this greenlet is in the block of another checkout than the lease's."""
        greenlet = ref(self._getcurrent())
        return self._counts.get(greenlet, 0) > (lease.entered_by is greenlet)

    def recount(self, leases: Iterable[Lease]) -> None:
        """After an interruption: count the blocks of these leases, and of no other."""
        self._counts = {}
        for lease in leases:
            if lease.entered_by is not None:
                self._counts[lease.entered_by] = self._counts.get(lease.entered_by, 0) + 1


def entrant(lease: Lease) -> Any:
    """The greenlet that is in the lease's ``with`` block, or None."""
    return None if lease.entered_by is None else lease.entered_by()


def blocked(lease: Lease) -> list[Any]:
    """The greenlets that wait for the lease's worker."""
    return [call.waiting for call in lease.queue if call.waiting is not None]


def waits_for_itself(ledger: Ledger[Lease], greenlet: Any) -> bool:
    """Whether this greenlet would wait for ever: every worker is held by it or by greenlets that wait in the same way.

    Args:
        ledger: of the pool.
        greenlet: one that is about to wait in line, or waits already.
    """
    waiting: set[Any] | None = None

    def is_mine(holder: Lease | None) -> bool:
        return holder is not None and not holder.released and entrant(holder) is greenlet

    def is_stuck(holder: Lease) -> bool:
        nonlocal waiting
        if holder.released or entrant(holder) is None:
            return False
        if entrant(holder) is greenlet:
            return True
        if waiting is None:
            waiting = {other for waiter in ledger.line for other in blocked(waiter)}
        return entrant(holder) in waiting

    # First whether the greenlet holds a worker at all, which is quick to see and seldom so.
    return any(is_mine(slot.holder) for slot in ledger.slots) and ledger.can_never_serve(is_stuck)


def waiter_of(ledger: Ledger[Lease], greenlet: Any) -> Lease | None:
    """The lease in line that this greenlet waits for, if the wait may be in vain."""
    # Whether all workers are held in with blocks is quick to see; to look through the line is not.
    if ledger.can_never_serve(lambda holder: not holder.released and entrant(holder) is not None):
        return next((waiter for waiter in ledger.line if greenlet in blocked(waiter)), None)
    return None
