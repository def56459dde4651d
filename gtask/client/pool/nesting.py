"""Whether a greenlet waits for a worker that can never come, because it holds the workers itself. Pure.

What counts as holding is being in the ``with`` block of a checkout: a block ends only when its greenlet gets there, and
that one waits. A checkout outside of a block may be in other hands by now, and be released any moment.
"""

from __future__ import annotations

from typing import Any

from gtask.client.lease import Lease
from gtask.client.pool.ledger import Ledger

__all__ = ["waiter_of", "waits_for_itself"]


def waits_for_itself(ledger: Ledger[Lease], greenlet: Any) -> bool:
    """Whether all workers that there may be are held by this greenlet, which is about to wait, or by others that wait.

    Args:
        ledger: of the pool.
        greenlet: the one that is about to wait, or waits already.
    """
    waiting: set[Any] | None = None

    def is_mine(holder: Lease | None) -> bool:
        return holder is not None and not holder.released and holder.entrant is greenlet

    def is_stuck(holder: Lease) -> bool:
        nonlocal waiting
        if holder.released or holder.entrant is None:
            return False
        if holder.entrant is greenlet:
            return True
        if waiting is None:
            waiting = {other for waiter in ledger.line for other in waiter.blocked}
        return holder.entrant in waiting

    # First whether it holds one at all, for that is quick to see and seldom so.
    return any(is_mine(slot.holder) for slot in ledger.slots) and ledger.can_never_serve(is_stuck)


def waiter_of(ledger: Ledger[Lease], greenlet: Any) -> Lease | None:
    """The lease in line that this greenlet waits for, if it may be in vain."""
    # Whether all workers are held in with blocks is quick to see; to look through the line is not.
    if ledger.can_never_serve(lambda holder: not holder.released and holder.entrant is not None):
        return next((waiter for waiter in ledger.line if greenlet in waiter.blocked), None)
    return None
