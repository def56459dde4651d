"""Who gets which worker, and when there should be more or fewer. Pure: it decides and returns actions.

The ledger keeps a slot for each worker and a line of those who wait. It never reads a clock and touches no
socket: each method is told what has happened and returns what is to be done, for the pool to do.

A waiter gets a worker directly (no barging), in the order in which the places were taken. The idea that a waiter may
refuse it, because it has given up in the same moment, is psycopg_pool's, and so is the low-water mark by which the
pool shrinks; the spread of the workers' lifetimes is HikariCP's; shedding follows CoDel, as db_connection does.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic

from gtask.client.config import ClientConfig
from gtask.client.counters import Counters, count
from gtask.client.pool.backoff import Backoff
from gtask.client.pool.slots import (
    BUSY,
    CLOSED,
    CONNECTING,
    FULL,
    GONE,
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
    Pressure,
    Unreachable,
    W,
)

__all__ = ["Ledger"]

JITTER = 0.1
"""The part of max_lifetime and max_checkouts by which workers differ, so that those that began together do not all end
together."""

FORGET = 60.0
"""Seconds after which an outage is no longer the same, if nobody has wanted a worker meanwhile."""

PATIENCE = 0.05
"""Seconds for which a settling worker is expected back, before a waiter has another one connected instead."""


@dataclass(slots=True)
class Ledger(Generic[W]):
    """The state of a pool.

    Args:
        terms: the client's options.
        counters: what happens is counted there.
        backoff: when to try again after a failed connection.

    Attributes:
        min_workers, max_workers: how many workers there should and may be.
        failing_since: when the attempts to connect began to fail, or None.
        wake_at: when :meth:`tick` is to be called, unless something is decided before; infinite for never.
    """

    terms: ClientConfig
    counters: Counters = field(default_factory=Counters)
    backoff: Backoff = field(default_factory=Backoff)
    opened: bool = False
    closed: bool = False
    slots: set[PoolSlot] = field(default_factory=set)
    failing_since: float | None = None
    wake_at: float = math.inf
    min_workers: int = field(init=False)
    max_workers: int = field(init=False)
    _idle: deque[PoolSlot] = field(default_factory=deque)
    _line: OrderedDict[W, float] = field(default_factory=OrderedDict)  # and since when
    _connecting: int = 0
    _not_before: float = -math.inf
    _died_unused: int = (
        0  # workers that died before anything was asked of them, since one last came back from a checkout
    )
    _drain_generation: int = 0
    _out_since: float | None = None  # when attempts began to fail, whether or not the server was reached since
    _unreachable_reported: bool = False
    _low_water: int = 0  # the fewest that were idle in this period of max_idle
    _shrink_at: float = math.inf
    _shortest: float = math.inf  # the shortest wait in this interval of shedding
    _shed_at: float = math.inf

    def __post_init__(self) -> None:
        self.min_workers, self.max_workers = self.terms.min_workers, self.terms.max_workers

    # --- what callers want -----------------------------------------------------------------------------

    def open(self, now: float) -> list[Action]:
        """Begin to keep min_workers."""
        self.opened = True
        return self._grow(now)

    def checkout(self, waiter: W, now: float) -> list[Action]:
        """Take a place in line, or an idle worker."""
        self.opened = True
        slot = self.lend_idle(waiter, now)
        if slot is not None:
            return [Give(slot, waiter)]
        limit = self.terms.max_waiting
        if limit is not None:
            coming = self._connecting + max(0, self.max_workers - len(self.slots))
            if len(self._line) >= coming + limit:
                self.counters.rejected += 1
                return [Fail(waiter, FULL, self._pressure(now))]
        self._line[waiter] = now
        if len(self._line) == 1:
            self._begin_interval(now)
            if not self._connecting and now > self._not_before + FORGET:
                self.failing_since = self._out_since = None
        return self._grow(now)

    def lend_idle(self, waiter: W, now: float) -> PoolSlot | None:
        """Lend an idle worker to a waiter that has just come: the ordinary checkout.

        Returns:
            the slot; None if there is no idle worker, or somebody in line before the waiter.
        """
        idle = self._idle
        if not idle or self._line:
            return None
        slot = idle.pop() if self.terms.lifo else idle.popleft()
        left = len(idle)
        if left < self._low_water:
            self._low_water = left
        self._lend(slot, waiter, 0.0, now)
        return slot

    def rejoin(self, waiter: W, now: float) -> list[Action]:
        """Give a waiter whose worker was lost unused the first place in line, or an idle worker."""
        if self.closed:
            return [Fail(waiter, CLOSED, self._pressure(now))]
        slot = self.lend_idle(waiter, now)
        if slot is not None:
            return [Give(slot, waiter)]
        self._line[waiter] = now
        self._line.move_to_end(waiter, last=False)
        if len(self._line) == 1:
            self._begin_interval(now)
        return self._grow(now)

    def leave(self, waiter: W) -> None:
        """A place in line is given up. Somebody who is not in line may leave, too."""
        self._line.pop(waiter, None)

    def drain(self, now: float) -> list[Action]:
        """Retire every worker: idle ones now, the others as they come back."""
        self._drain_generation += 1
        return [*[self._drop(slot, "drain") for slot in list(self._idle)], *self._grow(now)]

    def resize(self, min_workers: int, max_workers: int, now: float) -> list[Action]:
        """Keep at least min_workers and at most max_workers; lent workers beyond these go as they come back."""
        self.min_workers, self.max_workers = min_workers, max_workers
        actions: list[Action] = []
        while self._idle and len(self.slots) > max_workers:
            actions.append(self._drop(self._idle[0], "resize"))
        self._begin_period(now)
        return actions + self._grow(now)

    def close(self, now: float) -> list[Action]:
        """Workers that are lent finish; all others go, and nobody is served any more."""
        self.closed = True
        self.wake_at = math.inf
        return self._end(now)

    def _end(self, now: float) -> list[Action]:
        pressure = self._pressure(now)
        actions: list[Action] = [Fail(waiter, CLOSED, pressure) for waiter in self._line]
        self._line.clear()
        return actions + [self._drop(slot, "close") for slot in list(self.slots) if slot.state != BUSY]

    # --- what befalls workers --------------------------------------------------------------------------

    def connected(self, slot: PoolSlot, now: float, chance: float) -> list[Action]:
        """The worker of a connecting slot is ready.

        Args:
            chance: a random number from 0 to 1, for how long it is used.
        """
        if slot.state != CONNECTING:
            return [Close(slot)]
        self._connecting -= 1
        slot.state = SETTLING  # until it is offered; it connects no more
        self.counters.connects += 1
        self.backoff.succeeded()
        self.reached()
        self._out_since, self._unreachable_reported = None, False
        if not self._died_unused:
            self._not_before = -math.inf
        terms, part = self.terms, JITTER * chance
        if terms.max_lifetime is not None:
            slot.ends_at = now + terms.max_lifetime * (1 - part)
        if terms.max_checkouts is not None:
            slot.most_checkouts = terms.max_checkouts - math.floor(terms.max_checkouts * part)
        self._begin_period(now)
        return [*self._back(slot, now), *self._grow(now)]

    def reached(self) -> None:
        """The server is there, though the worker is not yet ready."""
        self.failing_since = None

    def failed(self, slot: PoolSlot, now: float, chance: float, for_all: bool) -> list[Action]:
        """A connecting slot got no worker.

        Args:
            chance: a random number from 0 to 1, for the backoff.
            for_all: whether those who wait are told so (setup raised), or go on waiting (no server yet).
        """
        if slot.state != CONNECTING:
            return []
        self._forget(slot)
        self.counters.failed_connects += 1
        self._back_off(now, chance)
        if self.failing_since is None:
            self.failing_since = now
        if self._out_since is None:
            self._out_since = now
        if not self._unreachable_reported:
            self._plan(self._out_since + self.terms.reconnect_timeout)
        actions: list[Action] = []
        if for_all:
            pressure = self._pressure(now)
            actions += [Fail(waiter, SETUP_FAILED, pressure) for waiter in self._line]
            self._line.clear()
        return actions + self._grow(now)

    def refused(self, slot: PoolSlot, now: float) -> list[Action]:
        """The waiter did not take the worker that it was given."""
        if slot.state != BUSY:
            return []
        slot.checkouts -= 1
        self.counters.waits.take_back(slot.waited)
        return self._back(slot, now)

    def returned(self, slot: PoolSlot, now: float, why: str = "") -> list[Action]:
        """A lent or settling worker is free again; or is to be retired, if there is a reason why."""
        if slot.state == BUSY:
            self._end_use(slot, now)
        return self._back(slot, now, why)

    def take_back_idle(self, slot: PoolSlot, now: float) -> bool:
        """Take a lent worker back that may be lent again, while nobody stands in line: the ordinary release.

        Returns:
            whether the worker is idle now. If not, nothing has changed, and :meth:`returned` decides.
        """
        if slot.state != BUSY or self._line or self._unfit(slot, now):
            return False
        self.counters.uses.add(now - slot.since)
        self._died_unused = 0
        slot.state = IDLE
        slot.holder = None
        self._idle.append(slot)
        if slot.ends_at < self.wake_at:
            self.wake_at = slot.ends_at
        return True

    def settling(self, slot: PoolSlot, now: float) -> list[Action]:
        """A lent worker is released, and runs its checkout_done hook before it can be lent again."""
        if slot.state != BUSY:
            return []
        self._end_use(slot, now)
        slot.state, slot.holder, slot.since = SETTLING, None, now
        return self._grow(now)

    def retire_asked(self, slot: PoolSlot, why: str, now: float) -> list[Action]:
        """A worker asks to be retired: at once if it is idle, or else when it comes back."""
        slot.retire_reason = why
        return [self._drop(slot, why), *self._grow(now)] if slot.state == IDLE else []

    def lost(self, slot: PoolSlot, now: float, chance: float) -> list[Action]:
        """A worker is gone that was idle, lent or settling."""
        if slot.state in (CONNECTING, GONE):
            return []
        if slot.state == BUSY:
            self.counters.uses.add(now - slot.since)
        self._forget(slot)
        if not slot.checkouts:
            self.died_unused(now, chance)
        return self._grow(now)

    def died_unused(self, now: float, chance: float) -> None:
        """A worker died before anything was asked of it, so the next may, too: that it came was no success.

        To be told before its holder rejoins, if it was lent already; otherwise :meth:`lost` sees to it.
        """
        self.backoff.failures = max(self.backoff.failures, self._died_unused)
        self._died_unused += 1
        self._back_off(now, chance)

    def repair(self, is_sound: Callable[[PoolSlot], bool], now: float) -> list[Action]:
        """An exception has come amid some change, at whatever line: make the books agree with reality again.

        Args:
            is_sound: whether a slot's worker really is in the slot's state. The other slots are given up.
        """
        actions: list[Action] = []
        for slot in [slot for slot in self.slots if not is_sound(slot)]:
            slot.state = GONE
            self.slots.discard(slot)
            count(self.counters.retirements, "interrupted")
            actions.append(Close(slot))
        self._connecting = self.count(CONNECTING)
        self._idle = deque(slot for slot in self.slots if slot.state == IDLE)
        self._low_water = min(self._low_water, len(self._idle))
        if self.closed:
            self.wake_at = math.inf
            return actions + self._end(now)
        for slot in list(self._idle):  # a drain, too, may have been interrupted
            why = self._unfit(slot, now)
            if why:
                actions.append(self._drop(slot, why))
        while self._idle and self._line:
            actions.append(self._lend_to_first(self._idle.pop(), now))
            self._low_water = min(self._low_water, len(self._idle))
        self.wake_at = -math.inf if self.opened else math.inf
        return actions + self._grow(now)

    def tick(self, now: float) -> list[Action]:
        """The time has come for something."""
        self.wake_at = math.inf
        if self.closed:
            return []
        actions: list[Action] = [self._drop(slot, "max_lifetime") for slot in list(self._idle) if slot.ends_at <= now]
        actions += self._shrink(now)
        actions += self._shed(now)
        actions += self._report(now)
        actions += self._grow(now)
        self._plan(min((slot.ends_at for slot in self._idle), default=math.inf))
        return actions

    # --- what can be seen ------------------------------------------------------------------------------

    def count(self, state: str) -> int:
        """How many slots are in this state."""
        return sum(slot.state == state for slot in list(self.slots))  # a copy, for another thread may ask

    @property
    def is_ready(self) -> bool:
        """Whether min_workers are there."""
        return len(self.slots) - self._connecting >= self.min_workers

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    @property
    def line(self) -> list[W]:
        """Who stands in line, in order."""
        return list(self._line)

    def leases(self) -> list[W]:
        """Who stands in line, and who has a worker."""
        return [*self._line, *(slot.holder for slot in self.slots if slot.holder is not None)]

    def ahead(self, waiter: W) -> int:
        """How many stand in line before this one."""
        return next((place for place, other in enumerate(self._line) if other is waiter), len(self._line))

    def can_never_serve(self, is_stuck: Callable[[W], bool]) -> bool:
        """Whether all workers that there may be are lent, each to somebody who is stuck."""
        return len(self.slots) >= self.max_workers and all(
            slot.state == BUSY and is_stuck(slot.holder) for slot in self.slots
        )

    # --- lending and retiring --------------------------------------------------------------------------

    def _back(self, slot: PoolSlot, now: float, why: str = "") -> list[Action]:
        if slot.state not in (BUSY, SETTLING):
            return []
        why = why or self._unfit(slot, now)
        if why:
            return [self._drop(slot, why), *self._grow(now)]
        if self._line:
            return [self._lend_to_first(slot, now)]
        self._rest(slot)
        return []

    def _end_use(self, slot: PoolSlot, now: float) -> None:
        """Count a checkout that has ended in order."""
        self.counters.uses.add(now - slot.since)
        self._died_unused = 0

    def _rest(self, slot: PoolSlot) -> None:
        """Let a worker be idle."""
        slot.state = IDLE
        slot.holder = None
        self._idle.append(slot)
        if slot.ends_at < self.wake_at:
            self.wake_at = slot.ends_at

    def _unfit(self, slot: PoolSlot, now: float) -> str:
        """Why a worker must not be lent any more, or ""."""
        if slot.checkouts >= slot.most_checkouts:
            return "max_checkouts"
        if now >= slot.ends_at:
            return "max_lifetime"
        if slot.drain_generation != self._drain_generation:
            return "drain"
        if len(self.slots) > self.max_workers:
            return "resize"
        if self.closed:
            return "close"
        return slot.retire_reason

    def _lend_to_first(self, slot: PoolSlot, now: float) -> Action:
        waiter, since = next(iter(self._line.items()))
        wait = now - since
        if wait < self._shortest:
            self._shortest = wait
        self._lend(slot, waiter, wait, now)
        self._line.pop(waiter, None)
        return Give(slot, waiter)

    def _lend(self, slot: PoolSlot, waiter: W, waited: float, now: float) -> None:
        slot.holder = waiter  # first of all: an interruption must not forget who was about to be served
        slot.state = BUSY
        slot.checkouts += 1
        slot.since = now
        slot.waited = waited
        slot.leak_reported = False
        if waited:
            self.counters.waits.add(waited)
        else:
            self.counters.waits.none += 1
        if self.terms.leak_after is not None:
            self._plan(now + self.terms.leak_after)

    def _drop(self, slot: PoolSlot, why: str) -> Action:
        if slot.state != CONNECTING:
            count(self.counters.retirements, why)
        self._forget(slot)
        return Close(slot)

    def _forget(self, slot: PoolSlot) -> None:
        if slot.state == CONNECTING:
            self._connecting -= 1
        elif slot in self._idle:  # whatever its state: an interruption may have come between the two
            self._idle.remove(slot)
            self._low_water = min(self._low_water, len(self._idle))
        slot.state = GONE
        self.slots.discard(slot)

    # --- more and fewer --------------------------------------------------------------------------------

    def _grow(self, now: float) -> list[Action]:
        room = self.max_workers - len(self.slots)
        if room <= 0 or self.closed or not self.opened:
            return []
        wanted = self.min_workers - len(self.slots)
        waiting = len(self._line) - self._connecting
        if waiting > 0:
            wanted = max(wanted, waiting - self._soon_settled(now))
        wanted = min(wanted, room, self.terms.max_connecting - self._connecting)
        if self.backoff.failures:
            wanted = min(wanted, 1 - self._connecting)  # one probe at a time while attempts fail
        if wanted <= 0:
            return []
        if now < self._not_before:
            self._plan(self._not_before)
            return []
        new = [PoolSlot(self._drain_generation) for _ in range(wanted)]
        self.slots.update(new)
        self._connecting += wanted
        return [Connect(slot) for slot in new]

    def _soon_settled(self, now: float) -> int:
        soon = [slot.since + PATIENCE for slot in self.slots if slot.state == SETTLING and now < slot.since + PATIENCE]
        if soon:
            self._plan(min(soon))
        return len(soon)

    def _back_off(self, now: float, chance: float) -> None:
        if now >= self._not_before:  # or else it failed together with the one before
            self._not_before = now + self.backoff.failed(chance)

    def _begin_period(self, now: float) -> None:
        """There are more than min_workers: see how many of them are needed."""
        if self.terms.max_idle is not None and self._shrink_at == math.inf and len(self.slots) > self.min_workers:
            self._low_water = len(self._idle)
            self._shrink_at = now + self.terms.max_idle
            self._plan(self._shrink_at)

    def _shrink(self, now: float) -> list[Action]:
        """Close one worker if there was one too many all the time."""
        actions: list[Action] = []
        if now >= self._shrink_at:
            self._shrink_at = math.inf
            if self._low_water > 0 and len(self.slots) > self.min_workers:
                actions.append(self._drop(self._idle[0], "max_idle"))
            self._begin_period(now)
        self._plan(self._shrink_at)
        return actions

    # --- overload and reports --------------------------------------------------------------------------

    def _begin_interval(self, now: float) -> None:
        """There is a line: see how long it makes one wait."""
        if self.terms.shed_target is not None:
            self._shortest = math.inf
            self._shed_at = now + self.terms.shed_interval
            self._plan(self._shed_at)

    def _shed(self, now: float) -> list[Action]:
        target = self.terms.shed_target
        if target is None or not self._line:
            return []
        actions: list[Action] = []
        if now >= self._shed_at:
            pressure = self._pressure(now)
            # Where no worker is there at all the server is away or starting, and fewer callers would not help.
            if len(self.slots) > self._connecting and min(self._shortest, pressure.longest) > target:
                for waiter in [waiter for waiter, since in self._line.items() if now - since > target]:
                    del self._line[waiter]
                    self.counters.shed += 1
                    actions.append(Fail(waiter, SHED, pressure))
            self._begin_interval(now)
        self._plan(self._shed_at)
        return actions

    def _report(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if self._out_since is not None and not self._unreachable_reported:
            since = self._out_since + self.terms.reconnect_timeout
            if now < since:
                self._plan(since)
            elif self._line or not self.is_ready:  # or else nobody has tried
                self._unreachable_reported = True
                actions.append(Unreachable())
        limit = self.terms.leak_after
        if limit is not None:
            for slot in self.slots:
                if slot.state == BUSY and not slot.leak_reported:
                    if now >= slot.since + limit:
                        slot.leak_reported = True
                        self.counters.leaks += 1
                        actions.append(Leaked(slot))
                    else:
                        self._plan(slot.since + limit)
        return actions

    def _pressure(self, now: float) -> Pressure:
        first = next(iter(self._line.values()), now)
        return Pressure(len(self._line), now - first)

    def _plan(self, at: float) -> None:
        if at < self.wake_at:
            self.wake_at = at
