"""What a waiter is told that gets no worker. Pure: from the facts to the error."""

from __future__ import annotations

from gtask.client.pool.slots import Pressure
from gtask.errors import AcquireTimeout, ClientClosed, NestedCheckout, Overloaded

__all__ = ["closed", "crowd", "full", "inherited", "nested", "orphaned", "overdue", "shed", "trouble"]

REMEDIES = "raise max_workers if there are cores to spare, make the calls shorter, or send fewer"


def overdue(subject: str, where: str, timeout: float | None, reason: str) -> AcquireTimeout:
    """No worker came in time.

    Args:
        subject: what was to be done, such as ``"hash was not sent"``.
        where: for which client, and where the server is.
        timeout: seconds that were waited.
        reason: why there was none.
    """
    return AcquireTimeout(f"{subject}: no worker{where} within {timeout or 0:g} s: {reason}")


def trouble(reason: str, unreachable: bool, since: float | None, now: float) -> str:
    """Why connecting fails.

    Args:
        reason: of the last failure.
        unreachable: whether there is no server at all.
        since: when the attempts began to fail; None if the server is there by now.
        now: the time.
    """
    lasts = f"{now - since:.1f} s" if since is not None else ""
    if unreachable:
        return f"server unreachable since {lasts or 'just now'}: {reason}"
    return f"{reason}, for {lasts} by now" if lasts else reason


def crowd(busy: int, settling: int, most: int, starting: int, ahead: int) -> str:
    """Why all workers are taken."""
    also = [f"{settling} in checkout_done"] if settling else []
    also += [f"{starting} starting"] if starting else []
    return (
        f"{busy} of {most} workers busy, {', '.join([*also, f'{ahead} ahead in line'])}; "
        "raise max_workers or the timeout, or make shorter calls"
    )


def full(where: str, limit: int, pressure: Pressure) -> Overloaded:
    """The line is as long as max_waiting allows."""
    return Overloaded(
        f"no checkout{where}: all workers are taken and {_crowd(pressure)} (max_waiting={limit}); {REMEDIES}; "
        "or raise max_waiting"
    )


def shed(where: str, target: float, interval: float, pressure: Pressure) -> Overloaded:
    """It had waited longer than shed_target while nobody was served faster."""
    return Overloaded(
        f"no worker{where}: for {interval:g} s nobody was served within {target:g} s (shed_target), and "
        f"{_crowd(pressure)}; this checkout, one of those that had waited longer than that, gives way; {REMEDIES}"
    )


def nested(where: str, most: int) -> NestedCheckout:
    """Nobody will ever give back the worker that it waits for."""
    holds = "the only worker that there may be is" if most == 1 else f"all {most} workers that there may be are"
    return NestedCheckout(
        f"no worker{where}, ever: {holds} held in with blocks of this greenlet, or of others that wait for one in the "
        "same way; use the checkout that is already there, end it first, or raise max_workers"
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
    """The client's thread is no more."""
    return ClientClosed(f"the client ended with its thread, {thread}: give each thread a client of its own")


def _crowd(pressure: Pressure) -> str:
    if not pressure.waiting:
        return "nobody may wait in line"
    who = "1 waits" if pressure.waiting == 1 else f"{pressure.waiting} wait"
    return f"{who} in line, the first for {round(pressure.longest, 3):.2g} s by now"
