"""Carries out what the ledger decides: hands workers over, closes them, has others connected.

Every method is quick and, but for those that say so, never blocks: what the ledger returns is done at once, in
whatever greenlet the news came.
"""

from __future__ import annotations

import logging
import math
import os
import random
import sys
import traceback
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gtask.aspects.caller import DeferredLogs, RequestLog, that_begin
from gtask.client.calls import Call
from gtask.client.checkout import Checkout
from gtask.client.config import ClientConfig
from gtask.client.connection import Connection
from gtask.client.counters import Counters, count
from gtask.client.lease import Lease
from gtask.client.loop import Event, Loop, thread_ident
from gtask.client.pool import nesting
from gtask.client.pool import no_worker as refusals
from gtask.client.pool.ledger import Ledger
from gtask.client.pool.slots import (
    BUSY,
    CONNECTING,
    FULL,
    IDLE,
    SETTLING,
    SETUP_FAILED,
    SHED,
    Action,
    Close,
    Connect,
    Fail,
    Give,
    Leaked,
    PoolSlot,
)
from gtask.errors import (
    CallTimeout,
    Cancelled,
    ClientClosed,
    Error,
    ProtocolError,
    SetupError,
    WorkerDied,
    WrongThread,
)
from gtask.stats import ClientStats
from gtask.wire.exceptions import failure
from gtask.wire.messages import Greeting

if TYPE_CHECKING:
    from gtask.client.pool.connector import Connector

__all__ = ["Pool"]

log = logging.getLogger("gtask.client")

SWEEP = 0.1
"""Seconds after which a worker is told that its checkout is over, if no request has come to ride along with."""


class Pool:
    """The workers of one client.

    Args:
        config: the client's options.
        connector: opens connections.
        make_loop: makes the loop at first use.
        on_reconnect_failed: called, in a greenlet of its own, when no worker could be had for reconnect_timeout.
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
        self._aspects = that_begin(connector.aspects)
        self._clocks: dict[Lease, Callable[[], None]] = {}
        self._connector = connector
        self._make_loop = make_loop
        self._on_reconnect_failed = on_reconnect_failed
        self._begin()

    def _begin(self) -> None:
        """Nothing has happened yet: at the start, and again in a forked child."""
        self.counters = Counters()
        self._ledger: Ledger[Lease] = Ledger(self.terms, self.counters)
        self._loop: Any = None  # none before the first use
        self.thread = 0
        self._pid = 0
        self._orphaned = False
        self._forget_end = _nothing
        self._audit_due = False
        self._to_be_told: list[Fail[Lease]] = []  # who may not have heard that they get no worker
        self._trouble = ""
        self._unreachable = False
        self._setup_error: Error | None = None
        self._stop_wake: Callable[[], None] | None = None
        self._stop_sweep: Callable[[], None] | None = None
        self._wake_at = math.inf
        self._news: Event | None = None  # set whenever something changes that wait_until may wait for

    def __repr__(self) -> str:
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
        self._enter()
        self._decide(self._ledger.open)

    def wait_until_ready(self, timeout: float | None) -> None:
        """Block this greenlet until min_workers are there.

        Raises:
            AcquireTimeout: they are not, in time.
            SetupError: the setup of one has raised.
            ClientClosed: the client was closed meanwhile.
        """
        self._setup_error = None
        ledger = self._ledger
        ready = self._wait_until(
            lambda: ledger.is_ready or ledger.closed or self._setup_error is not None, timeout, self._loop.clock()
        )
        if self._setup_error is not None:
            raise self._setup_error
        if ledger.closed:
            raise self._closed()
        if not ready:
            there = len(ledger.slots) - ledger.count(CONNECTING)
            subject = f"the client is not open: {there} of min_workers={ledger.min_workers} workers came"
            raise refusals.overdue(subject, self._where, timeout, self._reason(None))

    @property
    def hub(self) -> Any:
        """The hub of its thread."""
        return self._loop.hub

    def checkout(self, timeout: float | None, client: object, log: RequestLog | None = None) -> Checkout:
        """Take a place in line for this client, which lives as long as the checkout."""
        if self._loop is None or self._ledger.closed or thread_ident() != self.thread:
            self._enter()
        lease = Lease(self, timeout, self._aspects if log is None else (*self._aspects, DeferredLogs(log)))
        checkout = Checkout(self, lease, client)
        if self.terms.leak_after is not None:
            lease.made_at = _callers_stack()
        try:
            self._carry_out(self._ledger.checkout(lease, self._loop.clock()))
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            self.interrupted()  # and dropping the checkout releases the lease
            raise
        if lease.error is not None:
            raise lease.error
        return checkout

    def drain(self) -> None:
        """Retire all workers: idle ones now, the others as they come back."""
        self._enter()
        self._decide(self._ledger.drain)

    def resize(self, min_workers: int, max_workers: int) -> None:
        """Keep at least and at most so many from now on."""
        if self._loop is not None or self._ledger.closed:
            self._enter()
        self._decide(lambda now: self._ledger.resize(min_workers, max_workers, now))
        self._tell()

    def close(self) -> None:
        """Close the idle workers, turn away who waits; lent workers are closed as they come back."""
        if self._ledger.closed:
            return
        if self._loop is not None and thread_ident() != self.thread:
            raise self.wrong_thread()
        self._decide(self._ledger.close)
        self._shut()

    def wait_until_empty(self, timeout: float) -> None:
        """After close: block this greenlet until all lent workers are back, and at the time-out hang up on the rest."""
        if self._loop is None:
            return
        if not self._wait_until(lambda: not self._ledger.slots, timeout, self._loop.clock()):
            for slot in list(self._ledger.slots):
                if slot.holder is not None:
                    late = f"the client was closed, and this checkout had not ended {timeout:g} s later"
                    slot.holder.fail(ClientClosed(late))
                else:  # its checkout_done runs
                    self._carry_out(self._ledger.returned(slot, self._loop.clock(), "close"))

    def close_later(self) -> None:
        """The same as close from a finaliser, which may run anywhere."""
        if self._loop is not None and not self._ledger.closed:
            self._loop.from_anywhere(self.close)

    def stats(self, reset: bool = False) -> ClientStats:
        """What has been counted, which then may begin anew."""
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

    def after_fork(self) -> None:
        """In a forked child: forget all that is the parent's, and let nobody know."""
        if self._loop is None:
            return
        error = refusals.inherited(self._pid, os.getpid())
        self._forget_end()
        self._abandon_leases(error)
        # Kept for good: greenlets of the parent that wait in there would be ended, and run their finally blocks here.
        _inherited.append(self._ledger)
        _inherited.append(self._news)
        _inherited.append(list(self._connector.connections))
        parents = self._ledger
        self._connector.abandon(error)
        self._begin()
        mine = self._ledger
        mine.closed, mine.min_workers, mine.max_workers = parents.closed, parents.min_workers, parents.max_workers

    def thread_ended(self) -> None:
        """Its thread has ended: no hub turns for it any more, and no greenlet waits. Close what it has open."""
        if self._pid != os.getpid():
            return  # a fork, in the child of which that thread does not exist; after_fork comes next
        error = refusals.orphaned(self.thread)
        self._orphaned = self._ledger.closed = True
        self._abandon_leases(error)
        self._connector.thread_ended(error)
        self._loop = None

    def _abandon_leases(self, error: ClientClosed) -> None:
        self._cancel_wake()
        self._cancel_sweep()
        for lease in [*self._ledger.line, *(slot.holder for slot in self._ledger.slots if slot.holder is not None)]:
            lease.abandon(error)

    # --- leases call (checkout.Lender) -----------------------------------------------------------------

    def rejoin(self, lease: Lease) -> None:
        self._carry_out(self._ledger.rejoin(lease, self._loop.clock()))

    def leave(self, lease: Lease) -> None:
        self._ledger.leave(lease)

    def take_back(self, connection: Connection, errored: bool) -> None:
        slot: PoolSlot = connection.slot
        why = slot.asked
        if not connection.is_sound:
            why = "interrupted"
        elif not why and errored and self.terms.refork_after_error:
            why = "a call raised"
        if why or connection.end_checkout():
            self._carry_out(self._ledger.returned(slot, self._loop.clock(), why))
            if self._stop_sweep is None and not self._ledger.closed:
                self._stop_sweep = self._loop.timer(SWEEP, self._sweep)
        else:
            self._carry_out(self._ledger.settling(slot, self._loop.clock()))

    def start_clock(self, lease: Lease, deadline: float) -> None:
        self._clocks[lease] = self._loop.timer(max(0.0, deadline - self._loop.clock()), lease.overdue)

    def stop_clock(self, lease: Lease) -> None:
        stop = self._clocks.pop(lease, None)
        if stop is not None:
            stop()

    @property
    def peer(self) -> str:
        return str(self._connector.address)

    def spawn(self, function: Callable[..., object]) -> None:
        self._loop.spawn(function)

    def drop_later(self, lease: Lease) -> None:
        self.later(lease.release)

    def later(self, function: Callable[[], object]) -> None:
        if self._loop is not None:  # none in a forked child that has not used the client
            self._loop.from_anywhere(function)

    def enter(self, lease: Lease) -> None:
        if self._loop is not None:
            lease.entered_by = self._loop.greenlet_ref()

    def deadlock_of(self, lease: Lease) -> Error | None:
        return self._never(self._loop.greenlet())

    def _never(self, greenlet: Any) -> Error | None:
        if nesting.waits_for_itself(self._ledger, greenlet):
            return refusals.nested(self._where, self._ledger.max_workers)
        return None

    def wrong_thread(self) -> Error:
        who = f"client {self.terms.name!r}" if self.terms.name else "the client"
        return WrongThread(
            f"{who} at {self._connector.address} belongs to thread {self.thread}, which was the first to use it, "
            f"and this is thread {thread_ident()}: give each thread a client of its own"
        )

    def overdue(self, lease: Lease, call: Call) -> Error:
        self.counters.acquire_timeouts += 1
        return refusals.overdue(f"{call.method} was not sent", self._where, call.timeout, self._reason(lease))

    # --- connections call (connection.Owner) -----------------------------------------------------------

    def drained(self, connection: Connection) -> None:
        connection.slot.holder.give_back()

    def interrupted(self) -> None:
        if not self._audit_due and self._loop is not None:
            self._audit_due = True
            self._loop.soon(self._audit)

    def settled(self, connection: Connection) -> None:
        self._carry_out(self._ledger.returned(connection.slot, self._loop.clock()))

    def asked(self, connection: Connection, why: str) -> None:
        self._carry_out(self._ledger.asked(connection.slot, why, self._loop.clock()))

    def lost(self, connection: Connection, error: Error, unsent: list[Call]) -> None:
        self._connector.forget(connection)
        if isinstance(error, CallTimeout):
            self.counters.call_timeouts += 1
        elif isinstance(error, WorkerDied):
            exited = f"exit {error.exitcode}" if error.exitcode is not None else "connection lost"
            count(self.counters.deaths, error.signal or exited)
        elif connection.slot.state != CONNECTING:
            count(self.counters.retirements, _CUT_OFF.get(type(error), "interrupted"))
        slot: PoolSlot = connection.slot
        holder = slot.holder
        if holder is not None and holder.is_over:
            holder = None  # it is just giving the worker back
        if not slot.checkouts:
            self._trouble, self._unreachable = str(error), False
        if holder is not None and connection.untouched and isinstance(error, WorkerDied):
            if slot.checkouts == 1:
                self._trouble, self._unreachable = str(error), False
                self._ledger.stillborn(self._loop.clock(), random.random())
            holder.stand_again(unsent)
        elif holder is not None:
            holder.fail(error)
        self._carry_out(self._ledger.lost(slot, self._loop.clock(), random.random()))
        self._end_server()
        self._tell()

    # --- the connector calls (connector.Applicant) -----------------------------------------------------

    def reached(self) -> None:
        if self._unreachable:
            self._unreachable = False
            self._ledger.reached()
            self._trouble = "the server is there by now, and a worker is starting"

    def arrived(self, slot: PoolSlot, connection: Connection) -> None:
        self._carry_out(self._ledger.connected(slot, self._loop.clock(), random.random()))
        self._tell()

    def failed(self, slot: PoolSlot, reason: str, unreachable: bool) -> None:
        self._trouble, self._unreachable = reason, unreachable
        self._carry_out(self._ledger.failed(slot, self._loop.clock(), random.random(), for_all=False))

    def setup_failed(self, slot: PoolSlot, hi: Greeting) -> None:
        self._trouble, self._unreachable = f"its setup has raised {hi.text}", False
        self._setup_error = self._rebuild(hi)
        for action in self._ledger.failed(slot, self._loop.clock(), random.random(), for_all=True):
            if isinstance(action, Fail) and action.why == SETUP_FAILED:
                action.waiter.fail(self._rebuild(hi))  # each has its own, with its own traceback
            else:
                self._carry_out([action])
        self._carry_out([])
        self._tell()

    # --- acting ----------------------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        try:
            for action in actions:  # which grow meanwhile: many may refuse a worker in turn
                if isinstance(action, Give):
                    slot, lease = action.slot, action.waiter
                    if not lease.accept(slot.worker):
                        actions += self._ledger.refused(slot, self._loop.clock())
                    elif lease.entered_by is not None and not slot.worker.pending:
                        self._look_for_nesting(lease.entrant)
                elif isinstance(action, Connect):
                    self._connector.start(action.slot, self)
                elif isinstance(action, Close):
                    self._close(action.slot)
                elif isinstance(action, Fail):
                    action.waiter.fail(self._refusal(action))
                elif isinstance(action, Leaked):
                    self._report_leak(action.slot)
                else:
                    self._loop.spawn(self._on_reconnect_failed)
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            self._to_be_told += [action for action in actions if isinstance(action, Fail)]
            self.interrupted()
            raise
        if self._ledger.wake_at < self._wake_at:
            self._set_wake()

    def _look_for_nesting(self, entrant: Any) -> None:
        """A greenlet got a worker before it called it: perhaps it waits in an inner checkout, now in vain."""
        waiter = nesting.waiter_of(self._ledger, entrant)
        never = self._never(entrant) if waiter is not None else None
        if waiter is not None and never is not None:
            waiter.fail(never)

    def _decide(self, decision: Callable[[float], list[Action]]) -> None:
        try:
            self._carry_out(decision(self._loop.clock() if self._loop is not None else 0.0))
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            self.interrupted()
            raise

    def _shut(self) -> None:
        """The client is closed: nothing is to be done any more but by lent workers."""
        self._cancel_wake()
        self._cancel_sweep()
        self._connector.stop()
        self._end_server()
        self._tell()

    def _close(self, slot: PoolSlot) -> None:
        if slot.worker is not None:
            slot.worker.close(ClientClosed("the worker was retired"))
            self._connector.forget(slot.worker)
        holder, slot.holder = slot.holder, None
        if holder is not None and not holder.is_over:  # only after an interruption
            if holder.wants:
                self.rejoin(holder)
            else:
                holder.fail(Cancelled("an interruption came while the pool handed over this checkout's worker"))
        self._end_server()
        self._tell()

    def _end_server(self) -> None:
        """End the private server once the client is closed and no worker is lent any more."""
        if self._ledger.closed and not self._ledger.slots:
            self._connector.stop_server(self._forget_end)

    def _refusal(self, fail: Fail[Lease]) -> Error:
        terms = self.terms
        if fail.why == FULL:
            return refusals.full(self._where, terms.max_waiting or 0, fail.pressure)
        if fail.why == SHED:
            return refusals.shed(self._where, terms.shed_target or 0.0, terms.shed_interval, fail.pressure)
        return self._closed()

    def _closed(self) -> Error:
        return refusals.orphaned(self.thread) if self._orphaned else refusals.closed()

    def _rebuild(self, hi: Greeting) -> Error:
        client = f", for client {self.terms.name!r}" if self.terms.name else ""
        where = f"worker {hi.pid} of {hi.name or 'the server'} at {self._connector.address}{client}"
        note = f"setup raised this in {where}"
        return failure.rebuild(hi.exc, hi.text, mixin=SetupError, raises=self.terms.raises, note=note)

    @property
    def _where(self) -> str:
        client = f" for client {self.terms.name!r}" if self.terms.name else ""
        return f"{client} at {self._connector.address}"

    def _reason(self, lease: Lease | None) -> str:
        """Why there is no worker for this lease, or for nobody."""
        ledger = self._ledger
        there = len(ledger.slots) - ledger.count(CONNECTING)
        if ledger.backoff.failures and there < ledger.max_workers:
            return refusals.trouble(self._trouble, self._unreachable, ledger.failing_since, self._loop.clock())
        ahead = ledger.ahead(lease) if lease is not None else ledger.waiting
        busy, settling = ledger.count(BUSY), ledger.count(SETTLING)
        return refusals.crowd(busy, settling, ledger.max_workers, self._connector.attempts, ahead)

    def _report_leak(self, slot: PoolSlot) -> None:
        holder: Lease = slot.holder
        stack = "".join(traceback.format_list(holder.made_at[::-1])) if holder.made_at is not None else ""
        text = "a checkout of %r%s was held for %.3g s (leak_after); end it, or use it in a with block. Made at:\n%s"
        # In a greenlet of its own: logging may block, and this is the hub.
        self._loop.spawn(log.warning, text, slot.worker, self._where, self.terms.leak_after, stack)

    # --- the books -------------------------------------------------------------------------------------

    def _audit(self) -> None:
        """After an interruption: give up what is not in the state that the books say, and book the rest anew."""
        self._audit_due = False
        if self._loop is None:
            return  # it was due in the process from which this one was forked
        to_be_told, self._to_be_told = self._to_be_told, []
        for fail in to_be_told:  # some of whom have heard it already
            fail.waiter.fail(self._refusal(fail))
        self._carry_out(self._ledger.repair(self._is_sound, self._loop.clock()))
        booked = {slot.worker for slot in self._ledger.slots}
        for connection in self._connector.connections - booked:
            if not self._connector.is_trying(connection.slot):
                self._close(connection.slot)
        if self._ledger.closed:
            self._shut()

    def _is_sound(self, slot: PoolSlot) -> bool:
        connection = slot.worker
        if slot.state == CONNECTING:
            return self._connector.is_trying(slot)
        if connection is None or not connection.is_sound:
            return False
        if slot.state == BUSY:
            return slot.holder is not None and slot.holder.holds(connection)
        return slot.holder is None and connection.state == ("settling" if slot.state == SETTLING else "idle")

    # --- time, threads and forks -----------------------------------------------------------------------

    def _enter(self) -> None:
        """The client is used: see whether it may be, and prepare at its first use."""
        if self._ledger.closed:
            raise self._closed()
        if self._loop is None:
            self._connector.prepare()
            self._loop = self._make_loop()
            self.thread = thread_ident()
            self._pid = os.getpid()
            _pools.add(self)
            self._forget_end = self._loop.at_thread_end(self.thread_ended)
        elif thread_ident() != self.thread:
            raise self.wrong_thread()

    def _wait_until(self, condition: Callable[[], bool], timeout: float | None, now: float) -> bool:
        deadline = math.inf if timeout is None else now + timeout
        while not condition():
            left = deadline - self._loop.clock()
            if left <= 0:
                return False
            self._news = self._news or Event()
            self._news.clear()
            # Not the event's own time-out, which would wake this greenlet in a forked child, too.
            stop = self._loop.timer(left, self._tell) if left < math.inf else _nothing
            try:
                self._news.wait()
            finally:
                stop()
        return True

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    def _sweep(self) -> None:
        """Let the workers that nobody has wanted for a moment know that their checkout is over."""
        self._cancel_sweep()
        for slot in list(self._ledger.slots):
            if slot.state == IDLE:
                slot.worker.tell_done()

    def _cancel_sweep(self) -> None:
        stop, self._stop_sweep = self._stop_sweep, None
        if stop is not None:
            stop()

    def _set_wake(self) -> None:
        self._cancel_wake()
        self._wake_at = self._ledger.wake_at
        self._stop_wake = self._loop.timer(self._wake_at - self._loop.clock(), self._on_wake)

    def _on_wake(self) -> None:
        self._cancel_wake()
        self._carry_out(self._ledger.tick(self._loop.clock()))

    def _cancel_wake(self) -> None:
        stop, self._stop_wake, self._wake_at = self._stop_wake, None, math.inf
        if stop is not None:
            stop()


def _callers_stack() -> traceback.StackSummary:
    """Where the program is, innermost frame first, without the client's own frames."""
    frame = sys._getframe(3)  # of whoever called the client, or of a method of client.remote
    if frame.f_globals.get("__name__") == "gtask.client.client" and frame.f_back is not None:
        frame = frame.f_back
    return traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)


_CUT_OFF = {ClientClosed: "close", ProtocolError: "protocol error", SetupError: "setup failed"}
"""Why a worker was closed amid a checkout, by its error; else it was cancelled, or its caller interrupted."""


def _nothing() -> None:
    pass


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
"""Those that have been used in this process."""

_inherited: list[Any] = []


def _after_fork() -> None:
    for pool in list(_pools):
        pool.after_fork()


os.register_at_fork(after_in_child=_after_fork)
