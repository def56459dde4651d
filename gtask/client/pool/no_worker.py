"""The errors for those who get no worker. Pure: from the facts to the error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gtask.client.pool.slots import BUSY, CONNECTING, FULL, SETTLING, SETUP_FAILED, SHED, Fail, Pressure
from gtask.errors import AcquireTimeout, ClientClosed, Error, NestedCheckout, Overloaded, SetupError, WrongThread
from gtask.wire.exceptions import failure

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.config import ClientConfig
    from gtask.client.lease import Lease
    from gtask.client.pool.connector import Connector
    from gtask.client.pool.ledger import Ledger
    from gtask.wire.messages import Greeting

__all__ = [
    "NoWorker",
    "closed",
    "crowd",
    "full",
    "inherited",
    "nested",
    "orphaned",
    "overdue",
    "shed",
    "trouble",
    "wrong_thread",
]

REMEDIES = "raise max_workers if there are cores to spare, make the calls shorter, or send fewer"

OWN = (
    "; this process is itself a worker of that server and holds one of its workers: a worker that calls its own server "
    "waits for itself when all are taken, so call the function directly, or use another server"
)
"""The end of the text for a worker's code that calls the server of that worker."""


class NoWorker:
    """Why a pool has no worker for somebody, as the errors that say so.

    Attributes:
        trouble: why the last worker did not come, or was lost unused; "" if none was.
        is_unreachable: whether the trouble is that there is no server.
        greeting: that of the last worker whose setup has raised; None if none has.
    """

    def __init__(self, config: ClientConfig, ledger: Ledger[Lease], connector: Connector) -> None:
        self.trouble = ""
        self.is_unreachable = False
        self.greeting: Greeting | None = None
        self._config = config
        self._ledger = ledger
        self._connector = connector

    @property
    def where(self) -> str:
        """For which client, and where the server is."""
        return f"{self._config.for_client} at {self._connector.address}"

    @property
    def subject(self) -> str:
        """The client and its server, as the subject of a sentence."""
        return f"{self._config.title} of {self._connector.where}"

    def not_open(self, timeout: float | None, now: float) -> AcquireTimeout:
        """The error for ``open(wait=True)``: min_workers did not come in time."""
        ledger = self._ledger
        there = len(ledger.slots) - ledger.count(CONNECTING)
        subject = f"the client is not open: {there} of min_workers={ledger.min_workers} workers came"
        return overdue(subject, self.where, timeout, self._reason(ledger.waiting, now))

    def not_sent(self, lease: Lease, call: Call, now: float, crossings: str = "") -> AcquireTimeout:
        """The error for a lease whose first call waited for a worker until its time-out.

        Args:
            crossings: what the caller has held meanwhile, as :func:`crossing` says it.
        """
        reason = self._reason(self._ledger.ahead(lease), now) + crossings
        return overdue(f"{call.method} was not sent", self.where, call.timeout, reason)

    def refusal(self, fail: Fail[Lease]) -> Error:
        """The error for a waiter that the ledger refuses."""
        config = self._config
        if fail.why == FULL:
            return full(self.where, config.max_waiting or 0, fail.pressure)
        if fail.why == SHED:
            return shed(self.where, config.shed_target or 0.0, config.shed_interval, fail.pressure)
        return self.setup_failed() if fail.why == SETUP_FAILED else closed()

    def nested(self) -> NestedCheckout:
        """The error for a greenlet that waits for itself."""
        return nested(self.where, self._ledger.max_workers)

    def crossed(self, shares: list[str]) -> NestedCheckout:
        """The error for a greenlet that holds these shares of other clients' workers, for which those wait that hold
        the workers for which it waits."""
        return crossed(self.where, self._ledger.max_workers, " and ".join(shares))

    def share(self, count: int) -> str:
        """A number of this client's workers, in words."""
        workers = "worker" if count == 1 else "workers"
        return f"{count} {workers} of {self._config.title} at {self._connector.address}"

    def setup_failed(self) -> Error:
        """The exception that a worker's setup has raised; each call makes one with a traceback of its own."""
        config, greeting = self._config, self.greeting
        assert greeting is not None
        client = f",{config.for_client}" if config.name else ""
        place = self._connector.place(greeting.name)
        where = f"setup raised this in worker code of {place}" if greeting.pid else f"said by {place}"
        note = f"{where}{client}"
        error = failure.rebuild(greeting.exc, greeting.text, mixin=SetupError, raises=config.raises, note=note)
        error.worker_pid, error.worker_address = greeting.pid or None, str(self._connector.address or "")
        return error

    def wrong_thread(self, owner: int, thread: int) -> WrongThread:
        """The error for a use in another thread than the client's."""
        return wrong_thread(f"{self._config.title} at {self._connector.address}", owner, thread)

    def _reason(self, ahead: int, now: float) -> str:
        return self._cause(ahead, now) + (OWN if self._connector.is_for_own_server else "")

    def _cause(self, ahead: int, now: float) -> str:
        ledger = self._ledger
        there = len(ledger.slots) - ledger.count(CONNECTING)
        if ledger.backoff.failures and there < ledger.max_workers:
            return trouble(self.trouble, self.is_unreachable, ledger.failing_since, now)
        busy, settling = ledger.count(BUSY), ledger.count(SETTLING)
        ungreeted = sum(slot.state == CONNECTING and slot.worker is not None for slot in ledger.slots)
        return crowd(busy, settling, ledger.max_workers, self._connector.attempts, ahead, ungreeted)


def overdue(subject: str, where: str, timeout: float | None, reason: str) -> AcquireTimeout:
    """No worker came in time.

    Args:
        subject: what was to be done, such as ``"hash was not sent"``.
        where: for which client, and where the server is.
        timeout: the seconds that have passed in waiting.
        reason: why there was none.
    """
    return AcquireTimeout(f"{subject}: no worker{where} within {timeout or 0:g} s: {reason}")


def trouble(reason: str, unreachable: bool, since: float | None, now: float) -> str:
    """Why connecting fails.

    Args:
        reason: of the last failure.
        unreachable: whether there is no server at all.
        since: the time at which the attempts began to fail; None if the server has been reached since.
        now: the time.
    """
    lasts = f"{now - since:.1f} s" if since is not None else ""
    if unreachable:
        return f"server unreachable since {lasts or 'just now'}: {reason}"
    return f"{reason}, for {lasts}" if lasts else reason


def crowd(busy: int, settling: int, most: int, starting: int, ahead: int, ungreeted: int = 0) -> str:
    """Why all workers are taken.

    Args:
        busy, settling, starting: how many workers are in these states, and ``most``, how many there may be.
        ahead: how many callers stand before this one in line.
        ungreeted: how many of those that start are connected, and have not greeted.
    """
    also = [f"{settling} in checkout_done"] if settling else []
    also += [f"{starting} starting"] if starting else []
    advice = "raise max_workers or the timeout, or make shorter calls"
    if ungreeted:
        advice = (
            "connected, but no worker has greeted: the server is full (its --max-workers) while other clients use all "
            "workers, or setup takes long"
        )
    return f"{busy} of {most} workers busy, {', '.join([*also, f'{ahead} ahead in line'])}; {advice}"


def full(where: str, limit: int, pressure: Pressure) -> Overloaded:
    """The line is as long as max_waiting allows."""
    return Overloaded(
        f"no checkout{where}: all workers are taken and {_crowd(pressure)} (max_waiting={limit}); {REMEDIES}; "
        "or raise max_waiting"
    )


def shed(where: str, target: float, interval: float, pressure: Pressure) -> Overloaded:
    """The waiter had waited longer than shed_target, while nobody was served faster."""
    return Overloaded(
        f"no worker{where}: for {interval:g} s nobody was served within {target:g} s (shed_target), and "
        f"{_crowd(pressure)}; this checkout, one of those that had waited longer than that, gives way; {REMEDIES}"
    )


def nested(where: str, most: int) -> NestedCheckout:
    """Nobody will ever give back a worker for which the greenlet waits."""
    holds = "the only worker that there may be is" if most == 1 else f"all {most} workers that there may be are"
    return NestedCheckout(
        f"no worker{where}, ever: {holds} held in with blocks of this greenlet, or of others that wait for one in the "
        "same way; use the checkout that is already there, end it first, or raise max_workers"
    )


def crossed(where: str, most: int, holds: str) -> NestedCheckout:
    """Nobody will ever give back a worker: those who hold them wait for what the greenlet holds."""
    each = (
        "the only worker that there may be is held in a with block of a greenlet that waits"
        if most == 1
        else (f"all {most} workers that there may be are held in with blocks of greenlets that wait")
    )
    return NestedCheckout(
        f"no worker{where}, ever: {each} for what this greenlet holds, {holds}; check out from the clients in the same "
        "order everywhere, end one checkout before the other begins, or raise max_workers"
    )


def crossing(shares: list[str]) -> str:
    """The end of an error's text, if the caller has held workers of other clients for which others wait crosswise.

    Args:
        shares: the workers that the caller has held, in words, one text for each client; there may be none.
    """
    if not shares:
        return ""
    return (
        f"; the greenlet that waits here holds {' and '.join(shares)}, and a greenlet that holds a worker for which it "
        "waits, waits for those: check out from the clients in the same order everywhere"
    )


def closed() -> ClientClosed:
    return ClientClosed("the client is closed: make a new one with gtask.Client(...)")


def inherited(parent: int, child: int) -> ClientClosed:
    """The checkout was made before a fork."""
    return ClientClosed(
        f"this checkout belongs to process {parent}, from which this process, {child}, was forked: "
        "make a new one with client.checkout()"
    )


def orphaned(thread: int) -> ClientClosed:
    """The client's thread has ended."""
    return ClientClosed(f"the client ended with its thread, {thread}: give each thread a client of its own")


def wrong_thread(client: str, owner: int, thread: int) -> WrongThread:
    """The client belongs to another thread."""
    return WrongThread(
        f"{client} belongs to thread {owner}, which was the first to use it, and this is thread {thread}: give each "
        "thread a client of its own"
    )


def _crowd(pressure: Pressure) -> str:
    if not pressure.waiting:
        return "nobody may wait in line"
    who = "1 waits" if pressure.waiting == 1 else f"{pressure.waiting} wait"
    return f"{who} in line, the first for {round(pressure.longest, 3):.2g} s"
