"""What befalls the workers of a pool, and what is done with them: handed over, closed, connected as the ledger decides.

Connections and the connector report here. Every method is quick and never blocks: what the ledger returns is done at
once, in whatever greenlet the news came.
"""

from __future__ import annotations

import logging
import math
import random
import traceback
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gtask.client.counters import count
from gtask.client.loop import thread_ident
from gtask.client.pool import nesting, no_worker
from gtask.client.pool.audit import Audit
from gtask.client.pool.line_clock import LineClock
from gtask.client.pool.news import News
from gtask.client.pool.notices import Notices
from gtask.client.pool.slots import (
    CONNECTING,
    IDLE,
    Action,
    Close,
    Connect,
    Fail,
    Give,
    Leaked,
    PoolSlot,
)
from gtask.errors import CallTimeout, Cancelled, ClientClosed, Error, ProtocolError, SetupError, WorkerDied
from gtask.printable import printable_lines

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.config import ClientConfig
    from gtask.client.connection import Connection
    from gtask.client.lease import Lease
    from gtask.client.loop import Loop
    from gtask.client.pool.connector import Connector
    from gtask.client.pool.ledger import Ledger
    from gtask.client.pool.no_worker import NoWorker
    from gtask.client.pool.ownership import Ownership
    from gtask.wire.messages import Greeting

__all__ = ["Workers"]

log = logging.getLogger("gtask.client")

LONG = 0.002
"""Seconds. The end of a longer checkout is told to its worker at once: perhaps the hub never turns again, as in a plain
script that goes on to something else. Telling takes some 10 us, which is little beside such a checkout."""

TELLS, TELL_EVERY = 100, 0.002
"""A budget for shorter checkouts in other greenlets than the main one: the number of those whose end is told at once,
and the seconds until one more may be. Without a budget left the end rides along with the next request. Where checkouts
are that frequent it comes soon. A call without a checkout needs no budget: its request announces the end."""

SOON = 1.0
"""Seconds in which a second worker that asks to go before it was used is one too many."""

SWEEP = 0.1
"""Seconds after which a worker is told that its checkout is over, if no request has come to ride along with."""


_of_threads: dict[int, list[weakref.ref[Workers]]] = {}
"""Those of the pools that have been used in this process, by the thread that owns them: it alone looks at its own.

A list never changes: a new one takes its place, without the pools that are gone. A garbage collection that shortened a
list while it was copied has crashed Python 3.10 and 3.11."""


class Workers:
    """The workers of a pool from its first use on, in the hub of the thread that owns it.

    Args:
        config: the client's options.
        loop: of the owning thread.
        ledger: decides.
        connector: opens connections.
        no_worker: makes the errors for waiters.
        blocks: the ``with`` blocks that greenlets are in.
        ownership: forgets the thread when the client is closed and has nothing open any more.
        on_reconnect_failed: called in a new greenlet when no worker could be had for reconnect_timeout.

    Attributes:
        loop: as given.
        wake: the alarm for the ledger's next decision.
        tell_from: the time from which on a release is told at once again.
        sweeper: the alarm for telling idle workers that their checkout is over.
        line_clock: the time-outs of those who wait.
        news: wakes those that wait for a change.
        setup_error: what the setup of a worker has raised since somebody last set it to None.
    """

    def __init__(
        self,
        config: ClientConfig,
        loop: Loop,
        ledger: Ledger[Lease],
        connector: Connector,
        no_worker: NoWorker,
        ownership: Ownership,
        blocks: nesting.Blocks,
        on_reconnect_failed: Callable[[], object],
    ) -> None:
        self.setup_error: Error | None = None
        self.tell_from = self._asked_unused_at = -math.inf
        self._blocks = blocks
        self.news = News(loop)
        self.line_clock = LineClock(loop, self.interrupted)
        self.wake = loop.alarm(self._tick)
        self.sweeper = loop.alarm(self._sweep)
        self._notices = Notices(loop, lambda: no_worker.subject)
        self._config, self.loop = config, loop
        self._ledger = ledger
        self._connector = connector
        self._no_worker = no_worker
        self._ownership = ownership
        self._on_reconnect_failed = on_reconnect_failed
        self._audit = Audit(ledger, connector)
        self._is_abandoned, self._thread = False, thread_ident()
        neighbours = [each for each in _of_threads.get(self._thread, ()) if each() is not None]
        _of_threads[self._thread] = [*neighbours, weakref.ref(self)]

    # --- acting ----------------------------------------------------------------------------------------

    def decide(self, decision: Callable[[float], list[Action]]) -> None:
        """Have the ledger decide something, and carry that out."""
        try:
            self.carry_out(decision(self.loop.clock()))
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            self.interrupted()
            raise

    def carry_out(self, actions: list[Action]) -> None:
        """Do what the ledger has decided."""
        try:
            for action in actions:  # which grow meanwhile: many may refuse a worker in turn
                if isinstance(action, Give):
                    self._give(action.slot, action.waiter, actions)
                elif isinstance(action, Connect):
                    self._connector.start(action.slot, self)
                elif isinstance(action, Close):
                    self._close(action.slot)
                elif isinstance(action, Fail):
                    action.waiter.fail(self._no_worker.refusal(action))
                elif isinstance(action, Leaked):
                    self._report_leak(action.slot)
                else:
                    self.loop.spawn(self._on_reconnect_failed)
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            self._audit.unnotified += [action for action in actions if isinstance(action, Fail)]
            self.interrupted()
            raise
        if self._ledger.wake_at < self.wake.at:
            self.wake.set(self._ledger.wake_at, self.loop.clock())

    def shut(self) -> None:
        """The client is closed: nothing is to be done any more but by lent workers."""
        self._close_alarms()
        self._connector.stop()
        self._end_server()
        self.news.tell()

    def abandon(self, error: ClientClosed) -> None:
        """In a forked child, or when the thread has ended: forget the leases, and do nothing any more."""
        self._is_abandoned = True
        self._close_alarms()
        self.news.abandon()
        for lease in self._ledger.leases():
            lease.abandon(error)

    def _close_alarms(self) -> None:
        self._notices.close()
        self.wake.close()
        self.sweeper.close()
        self.line_clock.close()

    def holds_elsewhere(self) -> bool:
        """Whether this greenlet is in the ``with`` block of a checkout of another client."""
        neighbours = self._neighbours()
        return len(neighbours) > 1 and any(each._blocks.has_any for each in neighbours if each is not self)

    def deadlock_of(self, greenlet: Any) -> Error | None:
        """The error for a greenlet that waits for a worker, if the wait has no end because of what the greenlet holds:
        such workers itself, or others for which those wait that hold them."""
        neighbours = self._neighbours()
        if not nesting.waits_for_itself(self._ledger, greenlet, [each._ledger for each in neighbours]):
            return None
        if nesting.held(self._ledger, greenlet):
            return self._no_worker.nested()
        return self._no_worker.crossed(
            [
                each._no_worker.share(count)
                for each in neighbours
                if (count := nesting.held(each._ledger, greenlet)) and each is not self
            ]
        )

    def crossings(self, lease: Lease) -> str:
        """For a lease whose wait was in vain: what its greenlets hold meanwhile that others wait for; or ""."""
        others = [each for each in self._neighbours() if each is not self]
        counts = [(each, nesting.crosses(self._ledger, lease, each._ledger)) for each in others]
        return no_worker.crossing([each._no_worker.share(count) for each, count in counts if count])

    def _neighbours(self) -> list[Workers]:
        """The workers of all pools of this thread, this one's too."""
        references = _of_threads[self._thread]
        return [each for reference in references if (each := reference()) is not None and not each._is_abandoned]

    def _give(self, slot: PoolSlot, lease: Lease, actions: list[Action]) -> None:
        worker: Connection = slot.worker  # which the slot has no more if the sending shows that it is dead
        if not lease.accept(worker):
            actions += self._ledger.refused(slot, self.loop.clock())
        elif lease.entered_by is not None and not worker.pending:
            # A greenlet got a worker before it called it: perhaps it waits in an inner checkout, now in vain.
            greenlet = nesting.entrant(lease)
            for each in self._neighbours():
                waiter = nesting.waiter_of(each._ledger, greenlet)
                deadlock = each.deadlock_of(greenlet) if waiter is not None else None
                if waiter is not None and deadlock is not None:
                    waiter.fail(deadlock)

    def _close(self, slot: PoolSlot) -> None:
        if slot.worker is not None:
            slot.worker.close(ClientClosed("the worker was retired"))
            self._connector.forget(slot.worker)
            slot.worker = None  # so that the connection is freed at once
        holder, slot.holder = slot.holder, None
        if holder is not None and not holder.is_over:  # only after an interruption
            if holder.wants:
                self.carry_out(self._ledger.rejoin(holder, self.loop.clock()))
            else:
                holder.fail(Cancelled("an interruption came while the pool handed over this checkout's worker"))
        self._end_server()
        self.news.tell()

    def _end_server(self) -> None:
        """End the private server once the client is closed and no worker is lent any more."""
        if self._ledger.closed and not self._ledger.slots:
            self._connector.stop_server(self._ownership.forget_end)

    def _report_leak(self, slot: PoolSlot) -> None:
        holder: Lease = slot.holder
        stack = "".join(traceback.format_list(holder.made_at[::-1])) if holder.made_at is not None else ""
        text = "a checkout of %r%s was held for %.3g s (leak_after); end it, or use it in a with block. Made at:\n%s"
        # In a greenlet of its own: logging may block, and this is the hub.
        self.loop.spawn(log.warning, text, slot.worker, self._no_worker.where, self._config.leak_after, stack)

    def told(self, now: float) -> None:
        """The end of a checkout is told at once. That takes of the budget, but leaves no debt."""
        if self.tell_from <= now:
            self.tell_from = max(self.tell_from, now - TELLS * TELL_EVERY) + TELL_EVERY

    # --- alarms ----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.carry_out(self._ledger.tick(self.loop.clock()))

    def _sweep(self) -> None:
        """Let the workers that nobody has wanted for a moment know that their checkout is over, and the loop end."""
        self._notices.look()
        for slot in list(self._ledger.slots):
            if slot.state == IDLE:
                slot.worker.alarm.stop()
                slot.worker.tell_done()

    # --- interruptions ---------------------------------------------------------------------------------

    def interrupted(self) -> None:
        """An exception came amid some change: check the books in the hub's next turn."""
        if not self._audit.is_due and not self._is_abandoned:
            self._audit.is_due = True
            self.loop.soon(self._check_books)

    def _check_books(self) -> None:
        """Give up what is not in the state that the books say, and book the rest anew."""
        if self._is_abandoned:
            return  # the audit was due in the process from which this one was forked
        for fail in self._audit.begin():
            fail.waiter.fail(self._no_worker.refusal(fail))
        self.carry_out(self._audit.repair(self.loop.clock()))
        for slot in self._audit.strays():
            self._close(slot)
        self._blocks.recount(self._ledger.leases())
        self.line_clock.repair()
        if self._ledger.closed:
            self.shut()

    # --- connections report ----------------------------------------------------------------------------

    def drained(self, connection: Connection) -> None:
        """The last reply that a released lease was owed has come."""
        connection.slot.holder.give_back()

    def settled(self, connection: Connection) -> None:
        """The worker's checkout_done hook has run."""
        self.carry_out(self._ledger.returned(connection.slot, self.loop.clock()))

    def asked(self, connection: Connection, why: str) -> None:
        """The worker asks not to be lent again, for this reason.

        A worker that was never used is replaced at once, for its server may drain. If further unused workers ask soon,
        there is a pause as after a death: the server may send each new client away.
        """
        now = self.loop.clock()
        if not connection.slot.checkouts:
            if now < self._asked_unused_at + SOON:
                self._ledger.died_unused(now, random.random())
            self._asked_unused_at = now
        self.carry_out(self._ledger.retire_asked(connection.slot, why, now))

    def lost(self, connection: Connection, error: Error, unsent: list[Call]) -> None:
        """The connection is closed, though the pool had not closed it.

        If nothing had been sent since it was lent, its calls are ``unsent``, and another worker may have them.
        """
        self._connector.forget(connection)
        slot: PoolSlot = connection.slot
        self._count_loss(slot, error)
        holder = slot.holder
        if holder is not None and holder.is_over:
            holder = None  # it is just giving the worker back
        if not slot.checkouts:
            self._note_trouble(str(error))
        if holder is not None and connection.untouched and isinstance(error, WorkerDied):
            if slot.checkouts == 1:
                self._note_trouble(str(error))
                self._ledger.died_unused(self.loop.clock(), random.random())
            holder.stand_again(unsent)
        elif holder is not None:
            holder.fail(error)
        self.carry_out(self._ledger.lost(slot, self.loop.clock(), random.random()))
        slot.worker = None  # so that the connection is freed at once
        self._end_server()
        self.news.tell()

    def _count_loss(self, slot: PoolSlot, error: Error) -> None:
        counters = self._ledger.counters
        if isinstance(error, CallTimeout):
            counters.call_timeouts += 1
        elif isinstance(error, WorkerDied):
            exited = f"exit {error.exitcode}" if error.exitcode is not None else "connection lost"
            count(counters.deaths, error.signal or exited)
        elif slot.state != CONNECTING:
            count(counters.retirements, _CUT_OFF.get(type(error), "interrupted"))

    def _note_trouble(self, trouble: str, is_unreachable: bool = False) -> None:
        self._no_worker.trouble, self._no_worker.is_unreachable = trouble, is_unreachable

    # --- the connector reports -------------------------------------------------------------------------

    def reached(self) -> None:
        """The server is there, though the worker is not yet ready."""
        if self._no_worker.is_unreachable:
            self._note_trouble("the server is there, and a worker is starting")
            self._ledger.reached()

    def arrived(self, slot: PoolSlot) -> None:
        """The worker of this slot has greeted."""
        self._notices.over()
        self.carry_out(self._ledger.connected(slot, self.loop.clock(), random.random()))
        self.news.tell()

    def failed(self, slot: PoolSlot, reason: str, is_unreachable: bool) -> None:
        """There is no worker for this slot; perhaps no server either."""
        self._note_trouble(reason, is_unreachable)
        if not self._connector.is_loading:
            self._notices.trouble(reason)
        self.carry_out(self._ledger.failed(slot, self.loop.clock(), random.random(), for_all=False))

    def server_ended(self, slot: PoolSlot, obituary: str) -> None:
        """There is no worker for this slot, because the private server that had served has ended."""
        self._ledger.counters.server_restarts += 1
        log.warning("%s: %s; another one is started", self._no_worker.subject, obituary)
        self.failed(slot, obituary, is_unreachable=False)

    def setup_failed(self, slot: PoolSlot, greeting: Greeting) -> None:
        """There is a worker for this slot, whose setup has raised; or the server gives this client none."""
        text = printable_lines(greeting.text)
        self._note_trouble(f"its setup has raised {text}" if greeting.pid else text)
        self._notices.trouble(self._no_worker.trouble)
        self._no_worker.greeting = greeting
        self.setup_error = self._no_worker.setup_failed()
        self.carry_out(self._ledger.failed(slot, self.loop.clock(), random.random(), for_all=True))
        self.news.tell()


_CUT_OFF = {ClientClosed: "close", ProtocolError: "protocol error", SetupError: "setup failed"}
"""Why a worker was closed amid a checkout, by its error; else it was cancelled, or its caller interrupted."""
