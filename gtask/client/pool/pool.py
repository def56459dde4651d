"""The pool of one client: what its user asks for, and what leases ask for.

The ledger decides who gets which worker, and :class:`gtask.client.pool.workers.Workers` carries that out. Here is the
short way of a checkout that finds an idle worker, and of a release for which nobody waits. Every method is quick and,
but for those that say so, never blocks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gtask.aspects.caller import DeferredLogs, RequestLog
from gtask.client.checkout import Checkout
from gtask.client.counters import Counters
from gtask.client.forks import HERE, look
from gtask.client.lease import Lease
from gtask.client.loop import Loop, getcurrent, thread_ident
from gtask.client.outcomes import copy_to_raise
from gtask.client.pool import no_worker, stack
from gtask.client.pool.ledger import Ledger
from gtask.client.pool.nesting import Blocks
from gtask.client.pool.no_worker import NoWorker
from gtask.client.pool.ownership import Ownership
from gtask.client.pool.slots import BUSY, CONNECTING, IDLE, SETTLING, PoolSlot
from gtask.client.pool.workers import LONG, SWEEP, Workers
from gtask.client.submitted import SubmittedCall
from gtask.errors import ClientClosed, Error

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.config import ClientConfig
    from gtask.client.connection import Connection
    from gtask.client.pool.connector import Connector
    from gtask.stats import ClientStats

__all__ = ["Pool"]

new = object.__new__


class Pool:
    """The pool of one client.

    Args:
        config: the client's options.
        connector: opens connections.
        make_loop: makes the loop at first use.
        on_reconnect_failed: called in a new greenlet when no worker could be had for reconnect_timeout.

    Attributes:
        terms: the client's options.
        encode: makes the frame of a call.
        counters: what has happened.
        blocks: the ``with`` blocks that greenlets are in.
        thread: the thread in which alone the pool may be used; 0 before the first use.
        hub: that of the thread; None before the first use.
    """

    def __init__(
        self,
        config: ClientConfig,
        connector: Connector,
        make_loop: Callable[[], Loop] = Loop,
        on_reconnect_failed: Callable[[], object] = lambda: None,
    ) -> None:
        self.terms = config
        self.encode = connector.encode
        self._aspects = connector.aspects
        self._connector = connector
        self._make_loop = make_loop
        self._on_reconnect_failed = on_reconnect_failed
        self._begin()

    def _begin(self) -> None:
        """Be as new: at the start, and again in a forked child."""
        self.counters = Counters()
        self.thread = 0
        self.hub: Any = None
        self.blocks = Blocks(getcurrent)
        self._ledger: Ledger[Lease] = Ledger(self.terms, self.counters)
        self._no_worker = NoWorker(self.terms, self._ledger, self._connector)
        self._ownership = Ownership()
        self._workers: Workers | None = None  # none before the first use, and after the end of the owner's thread

    def __repr__(self) -> str:
        look()
        ledger = self._ledger
        state = "closed" if ledger.closed else "open" if ledger.opened else "not yet open"
        settling = f", {ledger.count(SETTLING)} settling" if ledger.count(SETTLING) else ""
        connecting = f", {ledger.count(CONNECTING)} connecting" if ledger.count(CONNECTING) else ""
        return (
            f"{state}, {ledger.count(BUSY)} of {ledger.max_workers} workers busy, "
            f"{ledger.count(IDLE)} idle{settling}{connecting}, {ledger.waiting} waiting"
        )

    # --- the client calls ------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to connect min_workers."""
        workers = self._enter()
        workers.decide(self._ledger.open)

    def wait_until_ready(self, timeout: float | None) -> None:
        """Block this greenlet until min_workers are there.

        Raises:
            AcquireTimeout: they are not, in time.
            SetupError: the setup of one has raised.
            ClientClosed: the client was closed meanwhile.
        """
        workers, ledger = self._enter(), self._ledger
        workers.setup_error = None
        ready = workers.news.wait_until(
            lambda: ledger.is_ready or ledger.closed or workers.setup_error is not None, timeout
        )
        if workers.setup_error is not None:
            raise workers.setup_error
        if ledger.closed:
            raise self._closed()
        if not ready:
            raise self._no_worker.not_open(timeout, workers.loop.clock())

    def checkout(self, timeout: float | None, client: object, log: RequestLog | None = None) -> Checkout:
        """Take an idle worker or a place in line for this client, which lives as long as the checkout."""
        ledger, workers = self._ledger, self._workers
        if workers is None or ledger.closed or not HERE[0] or thread_ident() != self.thread:
            workers = self._enter()
            ledger = self._ledger
        aspects = self._aspects.of_checkout()
        lease = new(Lease)  # a call of the class takes longer
        Lease.__init__(lease, self, timeout, aspects if log is None else (*aspects, DeferredLogs(log)))
        checkout = new(Checkout)
        checkout._lender, checkout._lease, checkout._client = self, lease, client
        if self.terms.leak_after is not None:
            lease.made_at = stack.of_caller()
        try:
            clock = self._clock
            now = clock()
            slot = ledger.lend_idle(lease, now)
            if slot is None:
                workers.carry_out(ledger.checkout(lease, now))
            else:
                lease.connection = connection = slot.worker
                connection.lend()
                if ledger.wake_at < workers.wake.at:
                    workers.wake.set(ledger.wake_at, now)
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            self.interrupted()  # and dropping the checkout releases the lease
            raise
        if lease.error is not None:
            raise copy_to_raise(lease.error, None)  # the lease is in this frame
        return checkout

    def drain(self) -> None:
        """Retire all workers: idle ones now, the others as they come back."""
        workers = self._enter()
        workers.decide(self._ledger.drain)

    def resize(self, min_workers: int, max_workers: int) -> None:
        """Keep at least min_workers and at most max_workers from now on."""
        look()
        if self._workers is None and not self._ledger.closed:
            self._ledger.resize(min_workers, max_workers, 0.0)  # before the first use there is nothing to be done
            return
        workers = self._enter()
        workers.decide(lambda now: self._ledger.resize(min_workers, max_workers, now))
        workers.news.tell()

    def close(self) -> None:
        """Close the idle workers, turn away who waits; lent workers are closed as they come back."""
        look()
        if self._ledger.closed:
            return
        if self._workers is None:
            self._ledger.close(0.0)
            return
        workers = self._enter()
        workers.decide(self._ledger.close)
        workers.shut()

    def wait_until_empty(self, timeout: float) -> None:
        """After close: block this greenlet until all lent workers are back, and at the time-out hang up on the rest."""
        workers = self._workers
        if workers is None or workers.news.wait_until(lambda: not self._ledger.slots, timeout):
            return
        for slot in list(self._ledger.slots):
            if slot.holder is not None:
                late = f"the client was closed, and this checkout had not ended {timeout:g} s later"
                slot.holder.fail(ClientClosed(late))
            else:  # its checkout_done runs
                workers.carry_out(self._ledger.returned(slot, workers.loop.clock(), "close"))

    def close_later(self) -> None:
        """The same as close from a finaliser, which may run anywhere."""
        look()
        if self._workers is not None and not self._ledger.closed:
            self._workers.loop.from_anywhere(self.close)

    def stats(self, reset: bool = False) -> ClientStats:
        """What has been counted, which then may begin anew."""
        look()
        ledger, counters = self._ledger, self.counters
        if reset:
            self.counters = ledger.counters = Counters()
        return counters.snapshot(
            min_workers=ledger.min_workers,
            max_workers=ledger.max_workers,
            idle=ledger.count(IDLE),
            busy=ledger.count(BUSY),
            connecting=ledger.count(CONNECTING),
            settling=ledger.count(SETTLING),
            waiting=ledger.waiting,
        )

    # --- its ownership calls ---------------------------------------------------------------------------

    def begin_in_child(self, error: ClientClosed) -> list[object]:
        """In a forked child: close the copies of the parent's sockets, say nothing on them, and be as new.

        Returns:
            what must not be freed in this process.
        """
        parents, workers = self._ledger, self._workers
        if workers is not None:
            workers.abandon(error)
        kept: list[object] = [workers, parents, list(self._connector.connections)]
        self._connector.abandon(error)
        self._begin()
        mine = self._ledger
        mine.closed, mine.min_workers, mine.max_workers = parents.closed, parents.min_workers, parents.max_workers
        return kept

    def close_without_hub(self, error: ClientClosed) -> None:
        """The thread has ended: close everything that is open, for nobody waits any more and no callback runs."""
        self._ledger.closed = True
        queued = [call for lease in self._ledger.leases() for call in lease.queue]
        if self._workers is not None:
            self._workers.abandon(error)
        for call in [*self._connector.under_way, *queued]:
            if isinstance(call, SubmittedCall):
                call.result.orphan(error)
        self._connector.thread_ended(error)
        self._workers = None

    # --- leases call -----------------------------------------------------------------------------------

    def rejoin(self, lease: Lease) -> None:
        """The lease, whose worker was lost unused, is the first in line again."""
        workers = self._workers
        assert workers is not None
        workers.carry_out(self._ledger.rejoin(lease, workers.loop.clock()))

    def announce_end(self, lease: Lease) -> None:
        """Its next call is its only one: so the worker hears the end of the checkout with it, whatever happens here."""
        lease.is_single = True
        if lease.connection is not None:
            lease.connection.announce_end()

    def leave(self, lease: Lease) -> None:
        """The lease, which has no worker yet, gives up its place in line."""
        self._ledger.leave(lease)

    def take_back(self, connection: Connection, errored: bool) -> None:
        """The lease of this idle connection is over; ``errored`` says whether a call raised in it."""
        slot: PoolSlot = connection.slot
        ledger, workers = self._ledger, self._workers
        assert workers is not None
        clock = self._clock
        now = clock()
        why = slot.retire_reason
        if connection.error is not None or not connection.watcher.active:  # as is_sound says
            why = "interrupted"
        elif not why and errored and self.terms.refork_after_error:
            why = "a call raised"
        if not why and not connection.end_checkout():
            workers.carry_out(ledger.settling(slot, now))
            return
        if why or not ledger.take_back_idle(slot, now):
            workers.carry_out(ledger.returned(slot, now, why))
        else:
            if ledger.wake_at < workers.wake.at:
                workers.wake.set(ledger.wake_at, now)
            if connection.owes_done and (
                workers.tell_from <= now or now - slot.since > LONG or getcurrent().parent is None  # as in a script
            ):
                workers.told(now)
                connection.tell_done()
        if workers.sweeper.at == math.inf:
            workers.sweeper.set(now + SWEEP, now)

    def start_clock(self, lease: Lease, deadline: float) -> None:
        """Call ``lease.overdue`` at this time of the monotonic clock, unless the clock is stopped before."""
        assert self._workers is not None
        self._workers.line_clock.start(lease, deadline)

    def stop_clock(self, lease: Lease) -> None:
        """The lease waits no longer."""
        if self._workers is not None:
            self._workers.line_clock.stop(lease)

    @property
    def peer(self) -> str:
        """Where the server is."""
        return str(self._connector.address)

    def spawn(self, function: Callable[..., object], then: Callable[[], object]) -> None:
        """Run a function in another greenlet, and the second in the hub when that has ended, however it ended."""
        assert self._workers is not None
        self._workers.loop.spawn(function).rawlink(lambda _: then())

    def drop(self, lease: Lease) -> None:
        """The last reference to the lease's checkout has gone; called by a finaliser, which may run anywhere.

        So the lease is released from the hub if this is another thread, or amid the client's own work.
        """
        if thread_ident() == self.thread and not sys.is_finalizing() and not stack.has_client():
            lease.release()
        else:
            self.drop_later(lease)

    def drop_later(self, lease: Lease) -> None:
        """Release the lease from the hub."""
        self.later(lease.release)

    def later(self, function: Callable[[], object]) -> None:
        """Call a function from the hub, for a finaliser."""
        look()
        if self._workers is not None:  # or this is a forked child that has not used the client
            self._workers.loop.from_anywhere(function)

    def deadlock_of(self, lease: Lease) -> Error | None:
        """This greenlet is about to block until the lease gets a worker: the error if that can never be."""
        workers = self._workers
        if workers is None or not (self.blocks.has_others(lease) or workers.holds_elsewhere()):
            return None  # the greenlet holds no worker, so somebody else can give one back
        return workers.deadlock_of(workers.loop.greenlet())

    def wrong_thread(self) -> Error:
        """The error for a use in another thread."""
        return self._no_worker.wrong_thread(self.thread, thread_ident())

    def overdue(self, lease: Lease, call: Call) -> Error:
        """The error for a lease that got no worker in time for its first call, with the reason."""
        self.counters.acquire_timeouts += 1
        assert self._workers is not None
        return self._no_worker.not_sent(lease, call, self._workers.loop.clock(), self._workers.crossings(lease))

    def interrupted(self) -> None:
        """An exception came amid some change: check the books in the hub's next turn."""
        if self._workers is not None:
            self._workers.interrupted()

    # --- helpers ---------------------------------------------------------------------------------------

    def _enter(self) -> Workers:
        """See whether the client may be used here and now, and prepare at its first use."""
        look()
        if self._ledger.closed:
            raise self._closed()
        if not self.thread or self._workers is None:
            self._connector.prepare()
            ownership = self._ownership
            self._workers = Workers(
                self.terms,
                ownership.take(self, self._make_loop),
                self._ledger,
                self._connector,
                self._no_worker,
                ownership,
                self.blocks,
                self._on_reconnect_failed,
            )
            self.hub = self._workers.loop.hub
            self._clock = self._workers.loop.clock
            self.thread = ownership.thread  # last: an interruption before it leaves the first use to the next
        elif thread_ident() != self.thread:
            raise self.wrong_thread()
        return self._workers

    def _closed(self) -> Error:
        return no_worker.orphaned(self.thread) if self._ownership.is_orphaned else no_worker.closed()
