"""Whether a greenlet waits for a worker that can never come, because the greenlet holds the workers itself. Pure.

It may hold them of one client and wait for those of another, whose holders wait for its own.

What counts as holding is being in the ``with`` block of a checkout: a block ends only when its greenlet gets there, and
that greenlet waits. A checkout outside of a block may be in other hands, and be released at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from gtask.client.lease import Lease
    from gtask.client.pool.ledger import Ledger

__all__ = ["Blocks", "blocked", "crosses", "entrant", "held", "waiter_of", "waits_for_itself"]


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

    @property
    def has_any(self) -> bool:
        """Whether this greenlet is in any block."""
        return ref(self._getcurrent()) in self._counts

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


def is_held_by(holder: Lease | None, greenlet: Any) -> bool:
    """Whether the holder of a worker is a lease in whose ``with`` block the greenlet is."""
    return holder is not None and not holder.released and entrant(holder) is greenlet


def waits_for_itself(ledger: Ledger[Lease], greenlet: Any, ledgers: Collection[Ledger[Lease]]) -> bool:
    """Whether this greenlet would wait for ever: every worker is held by it or by greenlets that wait in the same way,
    each for a worker of the same pool or of another one.

    Args:
        ledger: of the pool for which the greenlet waits.
        greenlet: one that is about to wait in line, or waits already.
        ledgers: of all pools of the thread.
    """
    awaited: dict[Any, Ledger[Lease]] | None = None  # by the greenlets that wait
    seen: list[Ledger[Lease]] = []

    def is_stuck(holder: Lease) -> bool:
        nonlocal awaited
        other = entrant(holder)
        if holder.released or other is None:
            return False
        if other is greenlet:
            return True
        if holder.connection is not None and any(call.waiting is other for call in holder.connection.pending):
            return False  # in a call, as nearly always: so there is no need to look through the lines
        if awaited is None:
            awaited = {other: each for each in ledgers for waiter in each.line for other in blocked(waiter)}
        return other in awaited and never_serves(awaited[other])

    def never_serves(each: Ledger[Lease]) -> bool:
        if any(each is one for one in seen):
            return True  # as far as it depends on itself
        seen.append(each)
        return each.can_never_serve(is_stuck)

    # First whether the greenlet holds a worker at all, which is quick to see and seldom so.
    return any(held(each, greenlet) for each in ledgers) and never_serves(ledger)


def held(ledger: Ledger[Lease], greenlet: Any) -> int:
    """How many workers of a pool the greenlet holds."""
    return sum(is_held_by(slot.holder, greenlet) for slot in ledger.slots)


def waiter_of(ledger: Ledger[Lease], greenlet: Any) -> Lease | None:
    """The lease in line that this greenlet waits for, if the wait may be in vain."""
    # Whether all workers are held in with blocks is quick to see; to look through the line is not.
    if ledger.can_never_serve(lambda holder: not holder.released and entrant(holder) is not None):
        return next((waiter for waiter in ledger.line if greenlet in blocked(waiter)), None)
    return None


def crosses(ledger: Ledger[Lease], lease: Lease, other: Ledger[Lease]) -> int:
    """How many workers of another pool the greenlets hold that wait for this lease, if a greenlet that holds a worker
    of this pool waits for one of those; else 0."""
    count = sum(held(other, greenlet) for greenlet in blocked(lease))
    if not count:
        return 0
    holders = [entrant(slot.holder) for slot in ledger.slots if slot.holder is not None and not slot.holder.released]
    waiting = {greenlet for waiter in other.line for greenlet in blocked(waiter)}
    return count if any(holder in waiting for holder in holders if holder is not None) else 0
