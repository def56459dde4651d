"""Carries out what the ledger decides: connects, hands workers over, closes them.

Every method is quick and none but the connecting greenlets ever blocks: what the ledger returns is done at
once, in whatever greenlet the news came.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import gevent

from gtask import address as addresses
from gtask.client.checkout import Checkout, Lease
from gtask.client.config import ClientConfig
from gtask.client.connection import Call, Connection, connect
from gtask.client.ledger import BUSY, CONNECTING, SETTLING, Action, Close, Connect, Fail, Give, Ledger, Slot
from gtask.errors import AcquireTimeout, Cancelled, ClientClosed, Error, SetupError, WorkerDied
from gtask.spawn import SpawnedServer
from gtask.wire import failure
from gtask.wire.codec import Encoder
from gtask.wire.messages import Hi

__all__ = ["Pool"]

SERVER_END = 10.0
"""Seconds that a private server gets to end before it is killed."""

CONNECT_TIMEOUT = 10.0
"""Seconds for a TCP connection to be made. Waiters have their own time-outs; this ends the attempt."""


class Pool:
    """The workers of one client.

    Args:
        address: where the server is; None for a private server, which is started at first use.
        config: the client's options.
        spawn: starts the private server.
    """

    def __init__(
        self,
        address: addresses.Address | None,
        config: ClientConfig,
        spawn: Callable[[], SpawnedServer] | None = None,
    ) -> None:
        self.terms = config
        self._address = address
        self._spawn = spawn
        self._server: SpawnedServer | None = None
        self._ledger: Ledger[Lease] = Ledger(config.min_workers, config.max_workers, config.max_checkouts)
        self._encoder = Encoder(config.limit_message)
        self.encode: Callable[[tuple[Any, ...], dict[str, Any], int], bytes] = self._encoder.encode_do
        self._connecting: dict[Slot, Any] = {}
        self._connections: set[Connection] = set()
        self._audit_due = False
        self._trouble = ""
        self._unreachable = False
        self._setup_failure: Hi | None = None
        self._wake: Any = None
        self._wake_at = math.inf
        self._hub: Any = None

    def __repr__(self) -> str:
        ledger = self._ledger
        state = "closed" if ledger.closed else "open" if ledger.opened else "not yet open"
        return (
            f"{state}, {ledger.count(BUSY)} of {len(ledger.slots)} workers busy (at most {ledger.max_workers}), "
            f"{ledger.waiting} waiting"
        )

    # --- the client calls ------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to connect min_workers; never blocks."""
        self._check_open()
        self._prepare()
        self._carry_out(self._ledger.open(monotonic()))

    def checkout(self, timeout: float | None, client: object) -> Checkout:
        """Take a place in line for this client, which lives as long as the checkout; never blocks."""
        if self._hub is None or self._ledger.closed:
            self._check_open()
            self._prepare()
        lease = Lease(self, timeout)
        checkout = Checkout(self, lease, client)
        try:
            self._carry_out(self._ledger.checkout(lease, monotonic()))
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            self.interrupted()  # and dropping the checkout releases the lease
            raise
        return checkout

    def close(self) -> None:
        """Close the idle workers, turn away who waits; lent workers are closed as they come back."""
        if self._ledger.closed:
            return
        self._carry_out(self._ledger.close())
        self._stop_wake()
        for greenlet in list(self._connecting.values()):
            greenlet.kill(block=False)
        self._connecting.clear()
        self._stop_server()

    def close_later(self) -> None:
        """The same from a finaliser, which may run anywhere."""
        if self._hub is not None and not self._ledger.closed:
            self._from_anywhere(self.close)

    # --- leases call (checkout.Lender) -----------------------------------------------------------------

    def rejoin(self, lease: Lease) -> None:
        self._carry_out(self._ledger.rejoin(lease, monotonic()))

    def leave(self, lease: Lease) -> None:
        self._ledger.leave(lease)

    def take_back(self, connection: Connection, errored: bool) -> None:
        slot: Slot = connection.slot
        if errored and self.terms.refork_after_error:
            connection.retire = connection.retire or "a call raised"
        if not connection.is_sound:
            connection.retire = connection.retire or "an interruption"
        if connection.retire or connection.end_checkout():
            self._carry_out(self._ledger.returned(slot, monotonic(), bool(connection.retire)))
        else:
            self._ledger.settling(slot)

    def set_alarm(self, lease: Lease, seconds: float) -> Callable[[], None]:
        timer = self._hub.loop.timer(seconds)
        timer.start(lease.overdue, update=True)

        def stop() -> None:
            timer.stop()
            timer.close()

        return stop

    def drop_later(self, lease: Lease) -> None:
        self._from_anywhere(lease.release)

    def overdue(self, lease: Lease, call: Call) -> Error:
        ledger, now = self._ledger, monotonic()
        client = f" for client {self.terms.name!r}" if self.terms.name else ""
        if ledger.backoff.failures:
            since = f", for {now - ledger.failing_since:.1f} s by now" if ledger.failing_since is not None else ""
            reason = f"{self._trouble}{since}"
        else:
            reason = (
                f"{ledger.count(BUSY)} of at most {ledger.max_workers} workers are busy, "
                f"{len(self._connecting)} starting, {ledger.ahead(lease)} callers ahead in line; "
                "raise max_workers or the timeout, or make shorter calls"
            )
        return AcquireTimeout(
            f"{call.method} was not sent: no worker{client} at {self._address} within {call.timeout or 0:g} s: {reason}"
        )

    # --- connections call (connection.Owner) -----------------------------------------------------------

    def drained(self, connection: Connection) -> None:
        connection.slot.holder.give_back()

    def interrupted(self) -> None:
        if not self._audit_due:
            self._audit_due = True
            self._hub.loop.run_callback(self._audit)

    def settled(self, connection: Connection) -> None:
        self._carry_out(self._ledger.returned(connection.slot, monotonic(), bool(connection.retire)))

    def lost(self, connection: Connection, error: Error, unsent: list[Call]) -> None:
        self._connections.discard(connection)
        holder = connection.slot.holder
        if holder is not None and connection.untouched and isinstance(error, WorkerDied):
            holder.stand_again(unsent)
        elif holder is not None:
            holder.fail(error)
        self._carry_out(self._ledger.lost(connection.slot, monotonic(), random.random()))

    # --- acting ----------------------------------------------------------------------------------------

    def _audit(self) -> None:
        """After an interruption: give up what is not in the state that the books say, and book the rest anew."""
        self._audit_due = False
        self._carry_out(self._ledger.repair(self._is_sound, monotonic()))
        booked = {slot.worker for slot in self._ledger.slots}
        for connection in self._connections - booked:
            if connection.slot not in self._connecting:
                self._close(connection.slot)

    def _is_sound(self, slot: Slot) -> bool:
        connection = slot.worker
        if slot.state == CONNECTING:
            return slot in self._connecting
        if connection is None or not connection.is_sound:
            return False
        if slot.state == BUSY:
            return slot.holder is not None and slot.holder.holds(connection)
        return slot.holder is None and connection.state == ("settling" if slot.state == SETTLING else "idle")

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Give):
                slot, lease = action.slot, action.waiter
                if not lease.accept(slot.worker):
                    self._carry_out(self._ledger.refused(slot))
            elif isinstance(action, Connect):
                self._start_connecting(action.slot)
            elif isinstance(action, Close):
                self._close(action.slot)
            elif isinstance(action, Fail):
                action.waiter.fail(self._refusal())
            else:
                self._set_wake(action.at)

    def _start_connecting(self, slot: Slot) -> None:
        def ended(_: object) -> None:
            self._connecting.pop(slot, None)
            if slot.state == CONNECTING or not greenlet.successful():
                self.interrupted()  # the greenlet was, at whatever line

        greenlet = gevent.spawn(self._connect, slot)
        self._connecting[slot] = greenlet
        greenlet.link(ended)

    def _connect(self, slot: Slot) -> None:
        """Runs in a greenlet of its own, so that a waiter who gives up does not end the attempt."""
        assert self._address is not None
        connection = None
        try:
            sock = connect(self._address, CONNECT_TIMEOUT)
            connection = Connection(sock, self._address, self, self._encoder, self.terms.limit_message, self.terms.name)
            if self._unreachable:
                self._unreachable = False
                self._ledger.reached()
                self._trouble = "the server is there by now, and a worker is starting"
            connection.slot = slot
            slot.worker = connection
            self._connections.add(connection)
            hi = connection.greet(self.terms.setup_timeout)
        except Error as error:  # some of which are OSErrors, too
            self._connect_failed(slot, str(error))
        except OSError as error:
            self._unreachable = True
            self._connect_failed(slot, f"the server is unreachable ({(error.strerror or str(error)).lower()})")
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            if connection is not None:
                connection.close(ClientClosed("the client was closed while it connected"))
            self._connect_failed(slot, "interrupted")
            raise
        else:
            self._connecting.pop(slot, None)
            if hi.exc is not None or hi.text:
                connection.close(ClientClosed("setup failed"))
                self._setup_failure = hi
                self._trouble = f"its setup has raised {hi.text}"
                self._carry_out(self._ledger.failed(slot, monotonic(), random.random(), for_all=True))
                self._setup_failure = None
                return
            self._carry_out(self._ledger.connected(slot, monotonic()))

    def _connect_failed(self, slot: Slot, reason: str) -> None:
        self._connecting.pop(slot, None)
        if self._server is not None:
            reason = self._server.obituary() or reason
        self._trouble = reason
        self._carry_out(self._ledger.failed(slot, monotonic(), random.random(), for_all=False))

    def _close(self, slot: Slot) -> None:
        if slot.worker is not None:
            slot.worker.close(ClientClosed("the worker was retired"))
            self._connections.discard(slot.worker)
        holder, slot.holder = slot.holder, None
        if holder is not None and not holder.is_over:  # only after an interruption
            if holder.wants:
                self.rejoin(holder)
            else:
                holder.fail(Cancelled("an interruption came while the pool handed over this checkout's worker"))
        self._stop_server()

    def _stop_server(self) -> None:
        """End the private server once the client is closed and no worker is lent any more."""
        server = self._server
        if server is not None and self._ledger.closed and not self._ledger.slots:
            self._server = None
            server.let_go()
            gevent.spawn(_reap, server)

    def _refusal(self) -> Error:
        if self._setup_failure is not None:
            hi = self._setup_failure
            client = f", for client {self.terms.name!r}" if self.terms.name else ""
            where = f"worker {hi.pid} of {hi.name or 'the server'} at {self._address}{client}"
            return failure.rebuild(
                hi.exc,
                hi.text,
                mixin=SetupError,
                raises=self.terms.raises,
                note=f"setup raised this in {where}",
            )
        return _closed()

    def _prepare(self) -> None:
        self._hub = gevent.get_hub()
        if self._address is None and self._spawn is not None:
            self._server = self._spawn()
            self._address = self._server.address

    def _check_open(self) -> None:
        if self._ledger.closed:
            raise _closed()

    def _set_wake(self, at: float) -> None:
        if at >= self._wake_at:
            return
        self._stop_wake()
        self._wake_at = at
        self._wake = self._hub.loop.timer(max(0.0, at - monotonic()))
        self._wake.start(self._on_wake, update=True)

    def _on_wake(self) -> None:
        self._stop_wake()
        self._carry_out(self._ledger.tick(monotonic()))

    def _stop_wake(self) -> None:
        if self._wake is not None:
            self._wake.stop()
            self._wake.close()
            self._wake = None
        self._wake_at = math.inf

    def _from_anywhere(self, function: Callable[[], None]) -> None:
        # At the very end of the interpreter the loop may be gone, and then so is what there was to do.
        with suppress(Exception):
            self._hub.loop.run_callback_threadsafe(function)


def _reap(server: SpawnedServer) -> None:
    """Runs in a greenlet of its own until the server has ended, so that it leaves no zombie."""
    deadline = monotonic() + SERVER_END
    while not server.obituary():
        gevent.sleep(0.005)
        if monotonic() > deadline:
            server.kill()
            deadline = math.inf


def _closed() -> ClientClosed:
    return ClientClosed("the client is closed: make a new one with gtask.Client(...)")
