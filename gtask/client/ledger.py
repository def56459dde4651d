"""Who gets which worker, and when there should be more or fewer. Pure: it decides and returns actions.

The ledger keeps a slot for each worker and a line of those who wait. It never reads a clock and touches no
socket: each method is told what has happened and returns what is to be done, for the pool to do.

A waiter gets a worker directly (no barging), in the order in which the places were taken. The idea that a
waiter may refuse it, because it has given up in the same moment, is psycopg_pool's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from gtask.client.backoff import Backoff

__all__ = ["BUSY", "CONNECTING", "SETTLING", "Action", "Close", "Connect", "Fail", "Give", "Ledger", "Slot", "Wake"]

W = TypeVar("W", bound=Hashable)

CONNECTING, IDLE, BUSY, SETTLING, GONE = "connecting", "idle", "busy", "settling", "gone"


@dataclass(slots=True, eq=False)
class Slot:
    """Room for one worker.

    Attributes:
        state: ``connecting``, ``idle``, ``busy``, ``settling`` (checkout_done runs) or ``gone``.
        checkouts: how often it has been lent.
        holder: who has it, while it is busy.
        worker: the pool's; the ledger does not look at it.
    """

    state: str = CONNECTING
    checkouts: int = 0
    holder: Any = None
    worker: Any = None


@dataclass(slots=True, frozen=True)
class Connect:
    """Open a connection for this slot, then report ``connected`` or ``failed``."""

    slot: Slot


@dataclass(slots=True, frozen=True)
class Give(Generic[W]):
    """Offer this slot's worker to the waiter; report ``refused`` if it does not take it."""

    slot: Slot
    waiter: W


@dataclass(slots=True, frozen=True)
class Close:
    """Close the connection of this slot, which the ledger has forgotten."""

    slot: Slot


@dataclass(slots=True, frozen=True)
class Fail(Generic[W]):
    """Tell this waiter, who is out of the line now, that it gets no worker."""

    waiter: W


@dataclass(slots=True, frozen=True)
class Wake:
    """Call ``tick`` at this time."""

    at: float


Action = Connect | Give[Any] | Close | Fail[Any] | Wake


@dataclass(slots=True)
class Ledger(Generic[W]):
    """The state of a pool.

    Args:
        min_workers, max_workers: how many workers there should and may be.
        max_checkouts: how often a worker is lent before another takes its place; None for no limit.
        backoff: when to try again after a failed connection.
    """

    min_workers: int
    max_workers: int
    max_checkouts: int | None = None
    backoff: Backoff = field(default_factory=Backoff)
    opened: bool = False
    closed: bool = False
    slots: set[Slot] = field(default_factory=set)
    failing_since: float | None = None
    _idle: list[Slot] = field(default_factory=list)
    _line: OrderedDict[W, None] = field(default_factory=OrderedDict)
    _connecting: int = 0
    _not_before: float = -math.inf

    # --- what callers want -----------------------------------------------------------------------------

    def open(self, now: float) -> list[Action]:
        """Begin to keep min_workers."""
        self.opened = True
        return self._grow(now)

    def checkout(self, waiter: W, now: float) -> list[Action]:
        """A place in line is taken."""
        self.opened = True
        if self._idle and not self._line:
            return [self._lend(self._idle.pop(), waiter)]
        self._line[waiter] = None
        return self._grow(now)

    def rejoin(self, waiter: W, now: float) -> list[Action]:
        """A waiter whose worker was lost unused takes the first place in line."""
        if self.closed:
            return [Fail(waiter)]
        if self._idle:
            return [self._lend(self._idle.pop(), waiter)]
        self._line[waiter] = None
        self._line.move_to_end(waiter, last=False)
        return self._grow(now)

    def leave(self, waiter: W) -> None:
        """A place in line is given up. Somebody who is not in line may leave, too."""
        self._line.pop(waiter, None)

    def close(self) -> list[Action]:
        """Workers that are lent finish; all others go, and nobody is served any more."""
        self.closed = True
        actions: list[Action] = [Fail(waiter) for waiter in self._line]
        self._line.clear()
        for slot in [slot for slot in self.slots if slot.state != BUSY]:
            self._forget(slot)
            actions.append(Close(slot))
        return actions

    # --- what befalls workers --------------------------------------------------------------------------

    def connected(self, slot: Slot, now: float) -> list[Action]:
        """The worker of a connecting slot is ready."""
        if slot.state != CONNECTING:
            return [Close(slot)]
        self._connecting -= 1
        self.backoff.succeeded()
        self.failing_since = None
        self._not_before = -math.inf
        return [*self._offer(slot), *self._grow(now)]

    def reached(self) -> None:
        """The server is there, though the worker is not yet ready."""
        self.failing_since = None

    def failed(self, slot: Slot, now: float, chance: float, for_all: bool) -> list[Action]:
        """A connecting slot got no worker.

        Args:
            chance: a random number from 0 to 1, for the backoff.
            for_all: whether those who wait are told so (setup raised), or go on waiting (no server yet).
        """
        if slot.state != CONNECTING:
            return []
        self._forget(slot)
        self._back_off(now, chance)
        actions: list[Action] = []
        if for_all:
            actions += [Fail(waiter) for waiter in self._line]
            self._line.clear()
        return actions + self._grow(now)

    def refused(self, slot: Slot) -> list[Action]:
        """The waiter did not take the worker that it was given."""
        slot.checkouts -= 1
        return self._back(slot)

    def repair(self, is_sound: Callable[[Slot], bool], now: float) -> list[Action]:
        """An exception has come amid some change, at whatever line: make the books agree with reality again.

        Args:
            is_sound: whether a slot's worker really is in the slot's state. The other slots are given up.
        """
        actions: list[Action] = []
        for slot in [slot for slot in self.slots if not is_sound(slot)]:
            slot.state = GONE
            self.slots.discard(slot)
            actions.append(Close(slot))
        self._connecting = self.count(CONNECTING)
        self._idle = [slot for slot in self.slots if slot.state == IDLE]
        while self._idle and self._line and not self.closed:
            actions.append(self._lend(self._idle.pop(), next(iter(self._line))))
        return actions + self._grow(now)

    def returned(self, slot: Slot, now: float, retire: bool) -> list[Action]:
        """A lent worker is free again, or is to be retired."""
        if slot.state != GONE and (retire or slot.checkouts == self.max_checkouts):
            self._forget(slot)
            return [Close(slot), *self._grow(now)]
        return self._back(slot)

    def settling(self, slot: Slot) -> None:
        """A lent worker is released, and runs its checkout_done hook before it can be lent again."""
        if slot.state != GONE:
            slot.holder = None
            slot.state = SETTLING

    def lost(self, slot: Slot, now: float, chance: float) -> list[Action]:
        """A worker is gone that was idle, lent or settling."""
        if slot.state in (CONNECTING, GONE):
            return []
        self._forget(slot)
        if not slot.checkouts:
            self._back_off(now, chance)  # it died before it did anything: so may the next
        return self._grow(now)

    def tick(self, now: float) -> list[Action]:
        """The time of a Wake has come."""
        return self._grow(now)

    # --- what can be seen ------------------------------------------------------------------------------

    def count(self, state: str) -> int:
        """How many slots are in this state."""
        return sum(slot.state == state for slot in self.slots)

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def ahead(self, waiter: W) -> int:
        """How many stand in line before this one."""
        return next((place for place, other in enumerate(self._line) if other is waiter), len(self._line))

    # --- decisions -------------------------------------------------------------------------------------

    def _back(self, slot: Slot) -> list[Action]:
        if slot.state == GONE:
            return []
        if self.closed:
            self._forget(slot)
            return [Close(slot)]
        return self._offer(slot)

    def _offer(self, slot: Slot) -> list[Action]:
        if self._line:
            return [self._lend(slot, next(iter(self._line)))]
        slot.state = IDLE
        slot.holder = None
        self._idle.append(slot)
        return []

    def _lend(self, slot: Slot, waiter: W) -> Action:
        slot.holder = waiter  # first of all: an interruption must not forget who was about to be served
        slot.state = BUSY
        slot.checkouts += 1
        self._line.pop(waiter, None)
        return Give(slot, waiter)

    def _grow(self, now: float) -> list[Action]:
        if self.closed or not self.opened:
            return []
        wanted = max(self.min_workers - len(self.slots), len(self._line) - self._connecting)
        wanted = min(wanted, self.max_workers - len(self.slots))
        if self.backoff.failures:
            wanted = min(wanted, 1 - self._connecting)  # one probe at a time while attempts fail
        if wanted <= 0:
            return []
        if now < self._not_before:
            return [Wake(self._not_before)]
        new = [Slot() for _ in range(wanted)]
        self.slots.update(new)
        self._connecting += wanted
        return [Connect(slot) for slot in new]

    def _back_off(self, now: float, chance: float) -> None:
        if self.failing_since is None:
            self.failing_since = now
        self._not_before = now + self.backoff.failed(chance)

    def _forget(self, slot: Slot) -> None:
        if slot.state == CONNECTING:
            self._connecting -= 1
        elif slot.state == IDLE:
            self._idle.remove(slot)
        slot.state = GONE
        self.slots.discard(slot)
