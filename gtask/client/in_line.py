"""A lease that has no worker yet: its calls wait, and the time of the first runs; then a worker gets them all.

These are the methods of :class:`gtask.client.lease.Lease` of the same names. A lease that has a worker needs none.
"""

from __future__ import annotations

import itertools
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from gtask.client import outcomes
from gtask.wire.messages import Skipped
from gtask.wire.values.agreement import ConditionalFrame

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.connection import Connection
    from gtask.client.lease import Lease
    from gtask.client.outcomes import Outcome

__all__ = ["NONE", "accept", "epochs", "overdue", "stand_again", "wait_in_line", "withdraw"]

NONE: deque[Call] = deque()
"""The queue of every lease that has none. Nothing is ever put into it; to have one each would cost 700 bytes."""

epochs = itertools.chain.from_iterable(itertools.repeat(range(1 << 16, 1 << 32)))
"""Epochs are numbers of one width on the wire. They come again after four billion."""


def wait_in_line(lease: Lease, call: Call) -> None:
    """Queue a call until there is a worker to send it to."""
    if isinstance(call.frame, ConditionalFrame):
        call.frame.wait()
    if lease.queue:
        lease.queue.append(call)
    else:
        lease.queue = deque((call,))
        _start_clock(lease)


def accept(lease: Lease, connection: Connection) -> bool:
    """Take this worker, and send it what has been queued.

    Returns:
        False if the lease has ended meanwhile; the worker is the next one's then.
    """
    if not lease.queue:
        if lease.error is not None or lease.released:
            return False
        lease.connection = connection
        connection.lend()
        return True
    lease.lender.stop_clock(lease)
    lease.connection = connection
    connection.lend()
    if lease.is_single:
        connection.announce_end()
    while lease.queue and lease.connection is not None:
        call = lease.queue[0]
        refusal = connection.prepare(call)
        if refusal:
            _refuse_all(lease, outcomes.not_sent(call.method, lease.lender.terms.remark, refusal))
            break
        connection.send(call)
        if lease.connection is not None and lease.queue and lease.queue[0] is call:
            lease.queue.popleft()  # unless the sending has shown that the worker is dead
    if lease.released and lease.connection is not None:
        if not connection.waiting:  # all were refused
            lease.connection = None
            return False
        connection.end_behind()
    return True


def stand_again(lease: Lease, unsent: list[Call]) -> None:
    """The worker has ended before it had begun anything: wait for another, first in line."""
    lease.connection = None
    lease.queue = deque([*unsent, *(call for call in lease.queue if call not in unsent)])
    if lease.queue:
        _start_clock(lease)
    lease.lender.rejoin(lease)


def overdue(lease: Lease) -> None:
    """No worker came within the time-out of the first call."""
    if lease.queue:
        lease.fail(lease.lender.overdue(lease, lease.queue[0]))


def withdraw(lease: Lease, call: Call) -> None:
    """The caller of a queued call was interrupted: the call is never sent."""
    lease.queue.remove(call)
    lease.lender.stop_clock(lease)
    if lease.queue:
        _start_clock(lease)
    elif lease.released and lease.connection is None:
        lease.lender.leave(lease)


def _start_clock(lease: Lease) -> None:
    lease.lender.start_clock(lease, lease.queue[0].reach_head(monotonic()))


def _refuse_all(lease: Lease, outcome: Outcome) -> None:
    """The first call in the queue is nothing for this worker. As if it had raised, those behind it do not run."""
    lease.epoch = next(epochs)
    while lease.queue:
        lease.queue[0].post(outcome)
        lease.queue.popleft()
        outcome = Skipped()
