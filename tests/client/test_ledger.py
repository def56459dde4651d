"""Who gets which worker, and how many there are: single steps, and long random histories beside a model."""

from __future__ import annotations

import itertools
import math
from collections.abc import MutableSet

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gtask.client.config import ClientConfig
from gtask.client.pool.backoff import Backoff
from gtask.client.pool.ledger import JITTER, PATIENCE, Ledger
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
    Close,
    Connect,
    Fail,
    Give,
    Leaked,
    PoolSlot,
    Pressure,
    Unreachable,
)

DEFAULTS = {"min_workers": 0, "max_workers": 4, "max_idle": None}


def new(backoff=None, **options):
    """A ledger that has not been opened, with few workers and no shrinking unless told otherwise."""
    return Ledger(ClientConfig(**{**DEFAULTS, **options}), backoff=backoff or Backoff())


def opened(idle=0, **options):
    """An open ledger with so many idle workers, all there since 0.0."""
    ledger = new(**options)
    ledger.open(0.0)
    helpers = []
    while len(ledger.slots) < idle:
        helpers.append(("helper", len(helpers)))
        ledger.checkout(helpers[-1], 0.0)
    for helper in helpers:
        ledger.leave(helper)
    for slot in list(ledger.slots):
        ledger.connected(slot, 0.0, 0.0)
    assert ledger.count(IDLE) == len(ledger.slots) == idle
    return ledger


@pytest.fixture
def restless():
    """A slot that has another one made whenever it is looked at, as another thread's turn may."""

    class Restless:
        @property
        def state(self):
            ledger.slots.add(object())
            return IDLE

    ledger = new()
    ledger.slots.add(Restless())
    return ledger


def test_counting_while_the_pool_goes_on(restless):
    """Whoever asks for the stats in another thread gets numbers."""
    assert restless.count(IDLE) == 1


def full(workers=1, **options):
    """An open ledger whose workers are all lent, and they."""
    ledger = opened(idle=workers, **{"max_workers": workers, **options})
    return ledger, [only(ledger.checkout(("holder", number), 0.0)) for number in range(workers)]


def only(actions):
    """The slot of the only action."""
    (action,) = actions
    return action.slot


def kinds(actions):
    """What is to be done, without with whom."""
    return [type(action) for action in actions]


# --- growing ---------------------------------------------------------------------------------------------


def test_nothing_happens_before_it_is_opened():
    """A new ledger wants no workers, whatever its minimum."""
    ledger = new(min_workers=2)
    assert ledger.tick(0.0) == ledger.drain(0.0) == ledger.resize(3, 4, 0.0) == []
    assert not ledger.slots
    assert ledger.wake_at == math.inf


def test_opening_connects_the_minimum():
    """As many connections as min_workers, and no more on a second open."""
    ledger = new(min_workers=3)
    assert kinds(ledger.open(0.0)) == [Connect] * 3
    assert ledger.count(CONNECTING) == len(ledger.slots) == 3
    assert ledger.open(0.0) == []


def test_it_is_ready_when_the_minimum_is_there():
    """Lent workers are there, connecting ones are not."""
    ledger = new(min_workers=2)
    first, second = (action.slot for action in ledger.open(0.0))
    ledger.connected(first, 0.0, 0.0)
    only(ledger.checkout("a", 0.0))
    assert not ledger.is_ready
    ledger.connected(second, 0.0, 0.0)
    assert ledger.is_ready


def test_a_checkout_opens_it():
    """The first place in line connects the minimum, or one worker if that is none."""
    assert len(new(min_workers=2).checkout("a", 0.0)) == 2
    assert len(new(min_workers=0).checkout("a", 0.0)) == 1


def test_each_waiter_has_a_connection_on_its_way_up_to_the_maximum():
    """One more for each who waits, but never more than max_workers."""
    ledger = new(max_workers=3)
    assert [len(ledger.checkout(waiter, 0.0)) for waiter in "abcde"] == [1, 1, 1, 0, 0]
    assert ledger.waiting == 5


def test_only_so_many_connect_at_a_time():
    """No more than max_connecting are under way; each that ends makes room for the next."""
    ledger = new(max_workers=9, min_workers=4, max_connecting=2)
    first, second = (action.slot for action in ledger.open(0.0))
    assert ledger.checkout("a", 0.0) == []
    give, connect = ledger.connected(first, 0.0, 0.0)
    assert (give, type(connect)) == (Give(first, "a"), Connect)
    assert kinds(ledger.connected(second, 0.0, 0.0)) == [Connect]
    assert ledger.count(CONNECTING) == 2


def test_a_worker_is_replaced_when_too_few_are_left():
    """One that is lost or retired is followed by another, if that is wanted."""
    ledger = opened(min_workers=2, idle=2)
    first = only(ledger.checkout("a", 0.0))
    (second,) = ledger.slots - {first}
    assert kinds(ledger.returned(first, 0.0, "a call raised")) == [Close, Connect]
    assert first.state == GONE
    assert only(ledger.checkout("b", 0.0)) is second
    assert kinds(ledger.lost(second, 0.0, 0.5)) == [Connect]
    assert len(ledger.slots) == 2


def test_a_worker_is_not_replaced_when_nobody_needs_another():
    """Above the minimum, with nobody in line, fewer is fine."""
    ledger = opened(idle=1)
    slot = only(ledger.checkout("a", 0.0))
    assert ledger.returned(slot, 0.0, "a call raised") == [Close(slot)]
    assert not ledger.slots


# --- lending ---------------------------------------------------------------------------------------------


def test_an_idle_worker_is_given_at_once():
    """No waiting, no new connection; and the slot knows who has it."""
    ledger = opened(idle=1)
    (slot,) = ledger.slots
    assert ledger.checkout("a", 0.0) == [Give(slot, "a")]
    assert (slot.state, slot.checkouts, slot.holder) == (BUSY, 1, "a")


@pytest.mark.parametrize(("lifo", "order"), [(True, [2, 1, 0]), (False, [0, 1, 2])])
def test_which_idle_worker_is_lent(lifo, order):
    """The one that came back last, for its caches are warm; or, by choice, the one that came back first."""
    ledger, slots = full(3, lifo=lifo)
    for slot in slots:
        ledger.returned(slot, 0.0)
    assert [only(ledger.checkout(waiter, 0.0)) for waiter in "abc"] == [slots[number] for number in order]


def test_those_who_wait_are_served_in_the_order_of_their_places():
    """A returned worker goes to the first in line, directly, and newcomers stand behind."""
    ledger, (slot,) = full()
    for waiter in "bcd":
        assert ledger.checkout(waiter, 0.0) == []
    assert [ledger.ahead(waiter) for waiter in "bcd"] == [0, 1, 2]
    assert ledger.line == ["b", "c", "d"]
    for waiter in "bcd":
        assert ledger.returned(slot, 0.0) == [Give(slot, waiter)]
    assert ledger.returned(slot, 0.0) == []
    assert (slot.state, slot.holder) == (IDLE, None)


def test_a_new_connection_goes_to_the_first_in_line():
    """Not to the one that caused it."""
    ledger = new(max_workers=1)
    slot = only(ledger.checkout("a", 0.0))
    ledger.checkout("b", 0.0)
    ledger.leave("a")
    assert ledger.connected(slot, 0.0, 0.0) == [Give(slot, "b")]


def test_a_late_connection_joins_the_pool():
    """Whoever wanted it may have gone meanwhile."""
    ledger = new(max_workers=1)
    slot = only(ledger.checkout("a", 0.0))
    ledger.leave("a")
    assert ledger.connected(slot, 0.0, 0.0) == []
    assert slot.state == IDLE
    assert ledger.checkout("b", 0.0) == [Give(slot, "b")]


def test_a_refused_worker_is_the_next_ones():
    """A waiter that gave up in the same moment passes it on, and neither the loan nor its wait is counted."""
    ledger, (slot,) = full(max_checkouts=2)
    for waiter in "bc":
        ledger.checkout(waiter, 1.0)
    assert ledger.returned(slot, 3.0) == [Give(slot, "b")]
    assert ledger.refused(slot, 3.0) == [Give(slot, "c")]
    assert slot.checkouts == 2
    assert ledger.refused(slot, 3.0) == []
    assert (slot.state, slot.holder, slot.checkouts) == (IDLE, None, 1)
    waits = ledger.counters.waits.snapshot()
    assert (waits.count, waits.total, sum(waits.buckets)) == (1, 0.0, 1)
    assert ledger.counters.uses.snapshot().count == 1


def test_an_attempt_is_over_when_that_is_told():
    """That its connection was lost is not yet the attempt's end, which comes as a failure."""
    ledger = new()
    slot = only(ledger.checkout("a", 0.0))
    assert ledger.lost(slot, 0.0, 1.0) == ledger.returned(slot, 0.0) == []
    assert slot.state == CONNECTING
    assert ledger.connected(slot, 0.0, 0.0) == [Give(slot, "a")]


def test_one_that_is_not_in_line_may_leave():
    """Nothing happens."""
    ledger, _ = full()
    ledger.checkout("b", 0.0)
    ledger.leave(("holder", 0))
    ledger.leave("nobody")
    assert ledger.waiting == 1
    assert ledger.ahead("nobody") == 1


def test_one_whose_worker_died_unused_is_first_in_line_again():
    """It had its turn, and got nothing for it."""
    ledger, (slot,) = full()
    for waiter in "bc":
        ledger.checkout(waiter, 0.0)
    ledger.lost(slot, 1.0, 0.0)
    assert ledger.rejoin("a", 1.0) == []
    assert ledger.line == ["a", "b", "c"]


def test_one_whose_worker_died_unused_gets_another_that_is_idle():
    """Without standing in line."""
    ledger = opened(idle=2)
    first = only(ledger.checkout("a", 0.0))
    (second,) = ledger.slots - {first}
    assert ledger.lost(first, 1.0, 0.0) == []
    assert ledger.rejoin("a", 1.0) == [Give(second, "a")]


def test_a_worker_comes_back_only_once():
    """One that is idle, connecting or gone cannot be returned, or two callers would be given it."""
    ledger, (slot,) = full()
    ledger.returned(slot, 0.0)
    assert ledger.returned(slot, 0.0) == ledger.settling(slot, 0.0) == []
    assert only(ledger.checkout("a", 0.0)) is slot
    assert ledger.checkout("b", 0.0) == []
    assert ledger.counters.uses.count == 1


# --- settling --------------------------------------------------------------------------------------------


def test_a_settling_worker_is_not_lent():
    """While checkout_done runs, others wait; then the first of them gets it."""
    ledger, (slot,) = full()
    ledger.settling(slot, 0.0)
    assert (slot.state, slot.holder) == (SETTLING, None)
    assert ledger.checkout("b", 0.0) == []
    assert ledger.returned(slot, 0.0) == [Give(slot, "b")]


def test_a_settling_worker_is_expected_back_soon():
    """For a waiter no other worker is connected, unless it takes longer than the patience for it."""
    ledger, (slot,) = full(max_workers=2)
    ledger.settling(slot, 8.0)
    assert ledger.checkout("b", 8.0) == []
    assert ledger.wake_at == 8.0 + PATIENCE
    assert kinds(ledger.checkout("c", 8.0)) == [Connect]  # one cannot serve two
    ledger.leave("c")
    assert ledger.tick(8.0 + PATIENCE / 2) == []
    assert kinds(ledger.tick(8.0 + PATIENCE)) == []  # c's comes for b
    assert ledger.count(CONNECTING) == 1


def test_patience_with_a_settling_worker_ends():
    """A hook that takes its time does not keep the line waiting while there is room for another worker."""
    ledger, (slot,) = full(max_workers=2)
    ledger.settling(slot, 8.0)
    ledger.checkout("b", 8.0)
    assert kinds(ledger.tick(ledger.wake_at)) == [Connect]


def test_a_settling_worker_may_be_retired_or_lost():
    """Its hook failed, or it died in it; it is replaced for those who wait, and its use is counted once."""
    ledger, (first, second) = full(2)
    for waiter in "ab":
        ledger.checkout(waiter, 0.0)
    ledger.settling(first, 3.0)
    ledger.settling(second, 3.0)
    assert kinds(ledger.returned(first, 4.0, "checkout_done raised")) == [Close, Connect]
    assert kinds(ledger.lost(second, 4.0, 0.0)) == [Connect]
    uses = ledger.counters.uses.snapshot()
    assert (uses.count, uses.total) == (2, 6.0)


# --- retiring --------------------------------------------------------------------------------------------


def test_max_checkouts_replaces_a_worker():
    """After that many loans it is closed, and another connects for who waits."""
    ledger, (slot,) = full(max_checkouts=2)
    assert ledger.returned(slot, 0.0) == []
    assert only(ledger.checkout("b", 0.0)) is slot
    ledger.checkout("c", 0.0)
    close, connect = ledger.returned(slot, 0.0)
    assert close == Close(slot)
    assert ledger.connected(connect.slot, 0.0, 0.0) == [Give(connect.slot, "c")]
    assert ledger.counters.retirements == {"max_checkouts": 1}


def test_max_lifetime_retires_an_idle_worker_in_time():
    """The ledger wants to be woken for it; one that is not idle by then goes as it comes back, and not before."""
    ledger, (lent, idle) = full(2, max_lifetime=100.0)
    ledger.returned(idle, 1.0)
    assert ledger.wake_at == 100.0
    assert ledger.tick(99.0) == []
    assert ledger.wake_at == 100.0
    assert ledger.tick(100.0) == [Close(idle)]
    assert lent.state == BUSY
    assert ledger.returned(lent, 105.0) == [Close(lent)]
    assert ledger.counters.retirements == {"max_lifetime": 2}


def test_workers_that_began_together_do_not_end_together():
    """Lifetimes and the numbers of checkouts differ, by chance, by a tenth at most, and never exceed what was asked."""
    ledger = new(min_workers=3, max_lifetime=100.0, max_checkouts=1000)
    slots = [action.slot for action in ledger.open(0.0)]
    for slot, chance in zip(slots, (0.0, 0.5, 1.0), strict=True):
        ledger.connected(slot, 50.0, chance)
    assert [slot.ends_at for slot in slots] == pytest.approx([150.0, 145.0, 140.0])
    assert [slot.most_checkouts for slot in slots] == [1000, 950, 900]
    assert JITTER == 0.1


@pytest.mark.parametrize("most", range(1, 10))
def test_few_checkouts_are_not_made_fewer(most):
    """Of up to nine, a tenth is none: max_checkouts=1 means a new worker for each."""
    ledger = new(max_checkouts=most)
    slot = only(ledger.checkout("a", 0.0))
    ledger.connected(slot, 0.0, 1.0)
    assert slot.most_checkouts == most


def test_one_that_asks_is_retired():
    """At once if it is idle, or else when it comes back; with its reason counted, and replaced if that is wanted."""
    ledger = opened(min_workers=3, max_workers=3, idle=3)
    lent, settling = only(ledger.checkout("a", 0.0)), only(ledger.checkout("b", 0.0))
    ledger.settling(settling, 0.0)
    (idle,) = ledger.slots - {lent, settling}
    assert kinds(ledger.retire_asked(idle, "memory", 0.0)) == [Close, Connect]
    assert ledger.retire_asked(lent, "memory", 0.0) == ledger.retire_asked(settling, "draining", 0.0) == []
    assert kinds(ledger.returned(lent, 0.0)) == [Close, Connect]
    assert kinds(ledger.returned(settling, 0.0)) == [Close, Connect]
    assert ledger.counters.retirements == {"memory": 2, "draining": 1}
    assert ledger.retire_asked(idle, "again", 0.0) == []


def test_one_that_asks_while_it_connects_is_not_lent():
    """It is closed as it comes, and another connects for who waits."""
    ledger = new(max_workers=1)
    slot = only(ledger.checkout("a", 0.0))
    assert ledger.retire_asked(slot, "draining", 0.0) == []
    assert kinds(ledger.connected(slot, 0.0, 0.0)) == [Close, Connect]


def test_draining_replaces_all():
    """Idle workers end now, lent, settling and connecting ones when they come back, and new ones are kept."""
    ledger = opened(min_workers=3, max_workers=9, idle=3)
    lent, settling = only(ledger.checkout("a", 0.0)), only(ledger.checkout("b", 0.0))
    ledger.settling(settling, 0.0)
    (idle,) = ledger.slots - {lent, settling}
    close, connect = ledger.drain(0.0)
    assert (close, type(connect)) == (Close(idle), Connect)
    assert ledger.connected(connect.slot, 0.0, 0.0) == []  # begun after the drain: it stays
    assert kinds(ledger.returned(lent, 0.0)) == [Close, Connect]
    assert kinds(ledger.returned(settling, 0.0)) == [Close, Connect]
    (begun, other) = (slot for slot in ledger.slots if slot.state == CONNECTING)
    assert kinds(ledger.drain(0.0)) == [Close, Connect]
    assert kinds(ledger.connected(begun, 0.0, 0.0)) == [Close, Connect]  # begun before the second drain
    assert kinds(ledger.connected(other, 0.0, 0.0)) == [Close, Connect]
    assert ledger.counters.retirements == {"drain": 6}


# --- more and fewer --------------------------------------------------------------------------------------


def test_resizing_up_connects():
    """A higher minimum, or room for those who wait."""
    ledger, _ = full()
    for waiter in "bc":
        ledger.checkout(waiter, 0.0)
    assert kinds(ledger.resize(0, 2, 0.0)) == [Connect]
    assert kinds(ledger.resize(5, 9, 0.0)) == [Connect] * 3
    assert (ledger.min_workers, ledger.max_workers) == (5, 9)


def test_resizing_down_closes_the_idle_now_and_the_lent_as_they_come_back():
    """No more than are too many, and nobody is cut short."""
    ledger = opened(idle=4)
    lent = [only(ledger.checkout(waiter, 0.0)) for waiter in "abc"]
    (idle,) = ledger.slots - set(lent)
    assert ledger.resize(0, 2, 0.0) == [Close(idle)]
    ledger.checkout("d", 0.0)
    assert ledger.returned(lent[0], 0.0) == [Close(lent[0])]
    assert ledger.returned(lent[1], 0.0) == [Give(lent[1], "d")]
    assert ledger.counters.retirements == {"resize": 2}


def test_resizing_down_below_what_connects():
    """What comes too late is closed, and those who wait keep their places."""
    ledger = new()
    first, second = (only(ledger.checkout(waiter, 0.0)) for waiter in "ab")
    assert ledger.resize(0, 1, 0.0) == []
    assert ledger.connected(first, 0.0, 0.0) == [Close(first)]
    assert ledger.connected(second, 0.0, 0.0) == [Give(second, "a")]
    assert ledger.line == ["b"]


def test_the_pool_shrinks_by_one_worker_for_each_time_that_one_was_too_many():
    """One goes after each max_idle in which the fewest idle workers were more than none, down to min_workers."""
    ledger = opened(idle=4, min_workers=1, max_idle=600.0)
    closed = []
    for _ in range(20):
        if ledger.wake_at == math.inf:
            break
        now = ledger.wake_at
        closed += [(now, type(action)) for action in ledger.tick(now)]
    assert len(closed) == 3
    assert all(kind is Close for _, kind in closed)
    assert [later - sooner for (sooner, _), (later, _) in itertools.pairwise(closed)] == [600.0, 600.0]
    assert closed[0][0] <= 1200.0
    assert ledger.count(IDLE) == 1
    assert ledger.counters.retirements == {"max_idle": 3}


def test_workers_that_were_needed_once_in_a_while_stay():
    """If all were lent at some moment of the period, none was too many."""
    ledger = opened(idle=3, max_idle=600.0)
    for period in range(1, 5):
        slots = [only(ledger.checkout(waiter, period * 600.0 - 300.0)) for waiter in "abc"]
        for slot in slots:
            ledger.returned(slot, period * 600.0 - 299.0)
        assert ledger.tick(period * 600.0) == []
        assert ledger.wake_at == (period + 1) * 600.0


def test_a_worker_that_ended_otherwise_is_not_one_too_many():
    """It has gone already: the pool does not shrink below its minimum for it, nor for more than are left."""
    ledger = opened(idle=3, min_workers=2, max_idle=600.0)
    ledger.tick(600.0)
    ledger.lost(next(iter(ledger.slots)), 700.0, 0.0)
    assert ledger.tick(1200.0) == []
    ledger = opened(idle=3, max_idle=600.0)
    ledger.tick(600.0)
    lent = only(ledger.checkout("a", 700.0))
    for idle in ledger.slots - {lent}:
        ledger.lost(idle, 700.0, 0.0)
    assert ledger.tick(1200.0) == []


def test_another_tick_does_not_forget_when_to_shrink():
    """It is planned again."""
    ledger = opened(idle=3, max_idle=600.0)
    assert ledger.tick(300.0) == []
    assert ledger.wake_at == 600.0


def test_the_worker_that_was_idle_for_longest_goes_first():
    """The others' caches are warm."""
    ledger, slots = full(3, max_idle=600.0)
    for slot in slots:
        ledger.returned(slot, 10.0)
    ledger.tick(600.0)
    assert ledger.tick(1200.0) == [Close(slots[0])]


def test_without_max_idle_none_goes():
    """Nor is there anything to wake up for."""
    ledger = opened(idle=3, max_idle=None)
    assert ledger.wake_at == math.inf
    assert ledger.tick(1e6) == []


def test_a_lower_minimum_lets_the_pool_shrink():
    """It was at its minimum, and is above it by the resize."""
    ledger = opened(idle=3, min_workers=3, max_idle=600.0)
    assert ledger.wake_at == math.inf
    assert ledger.resize(2, 4, 10.0) == []
    assert kinds(ledger.tick(610.0)) == [Close]
    assert ledger.tick(1210.0) == []


def test_resizing_down_closes_no_more_than_are_too_many():
    """The others stay, those that were used last."""
    ledger, slots = full(3)
    for slot in slots:
        ledger.returned(slot, 0.0)
    assert ledger.resize(0, 2, 0.0) == [Close(slots[0])]
    assert ledger.resize(0, 2, 0.0) == []
    assert ledger.slots == set(slots[1:])


# --- overload --------------------------------------------------------------------------------------------


def test_a_full_line_turns_the_next_one_away():
    """max_waiting may wait for the workers that are lent; the next one is told at once how crowded it is."""
    ledger, (slot,) = full(max_waiting=2)
    ledger.checkout("b", 10.0)
    ledger.checkout("c", 11.0)
    assert ledger.checkout("d", 13.0) == [Fail("d", FULL, Pressure(2, 3.0))]
    assert ledger.line == ["b", "c"]
    assert ledger.counters.rejected == 1
    ledger.returned(slot, 13.0)
    assert ledger.checkout("e", 13.0) == []


def test_those_for_whom_there_is_room_do_not_count_as_waiting():
    """A pool that is just starting turns nobody away for whom a worker connects, or could."""
    ledger = new(max_workers=3, max_waiting=0, max_connecting=1)
    assert [kinds(ledger.checkout(waiter, 0.0)) for waiter in "abcd"] == [[Connect], [], [], [Fail]]


def test_one_whose_worker_died_unused_is_never_turned_away():
    """It had been let in."""
    ledger, (slot,) = full(max_waiting=1)
    ledger.checkout("b", 0.0)
    ledger.lost(slot, 1.0, 0.0)
    ledger.rejoin("a", 1.0)
    assert ledger.line == ["a", "b"]


def test_those_who_waited_too_long_are_shed_when_all_did():
    """If nobody was served within the target for a whole interval, those who waited longer go, the oldest first."""
    ledger, (slot,) = full(shed_target=2.0, shed_interval=10.0)
    for number, waiter in enumerate("bcde"):
        ledger.checkout(waiter, float(number))
    assert ledger.wake_at == 10.0
    assert ledger.returned(slot, 5.0) == [Give(slot, "b")]  # who had waited for 5 s
    ledger.checkout("f", 8.5)
    pressure = Pressure(4, 9.0)
    assert ledger.tick(10.0) == [Fail(waiter, SHED, pressure) for waiter in "cde"]
    assert ledger.line == ["f"]
    assert ledger.counters.shed == 3
    assert ledger.wake_at == 20.0


def test_a_burst_is_not_shed():
    """One who was served within the target shows that the line moves, and so the others may wait."""
    ledger, (slot,) = full(shed_target=2.0, shed_interval=10.0)
    for waiter in "bcd":
        ledger.checkout(waiter, 0.0)
    assert ledger.returned(slot, 1.0) == [Give(slot, "b")]
    assert ledger.tick(10.0) == []
    assert ledger.tick(20.0) == [Fail(waiter, SHED, Pressure(2, 20.0)) for waiter in "cd"]


def test_a_new_line_begins_a_new_interval():
    """What happened before nobody waited is no reason to turn anybody away."""
    ledger, (slot,) = full(shed_target=2.0, shed_interval=10.0)
    ledger.checkout("b", 0.0)
    ledger.returned(slot, 9.0)
    ledger.checkout("c", 9.0)
    assert ledger.tick(10.0) == []
    assert ledger.wake_at == 19.0
    assert kinds(ledger.tick(19.0)) == [Fail]


def test_nobody_is_shed_while_there_is_no_worker_at_all():
    """The server is away or starting, and fewer callers would not help: that is not overload."""
    ledger = new(shed_target=2.0, shed_interval=10.0, max_workers=1)
    slot = only(ledger.checkout("a", 0.0))
    ledger.checkout("b", 0.0)
    assert ledger.tick(10.0) == []
    assert ledger.connected(slot, 19.0, 0.0) == [Give(slot, "a")]
    assert ledger.tick(20.0) == [Fail("b", SHED, Pressure(1, 20.0))]


def test_nobody_is_shed_unless_that_is_wanted():
    """It is off by default."""
    ledger, _ = full()
    ledger.checkout("b", 0.0)
    assert ledger.tick(1e6) == []
    assert ledger.line == ["b"]
    assert ledger.wake_at == math.inf


# --- reports ---------------------------------------------------------------------------------------------


def test_a_leaked_checkout_is_reported_once():
    """When it has been held for leak_after; and again only if the worker's next holder keeps it, too."""
    ledger, (slot,) = full(leak_after=5.0)
    assert ledger.wake_at == 5.0
    assert ledger.tick(4.0) == []
    assert ledger.wake_at == 5.0
    assert ledger.tick(5.0) == [Leaked(slot)]
    assert ledger.tick(50.0) == []
    ledger.returned(slot, 60.0)
    assert ledger.tick(70.0) == []  # idle is not held
    ledger.checkout("b", 70.0)
    assert ledger.tick(75.0) == [Leaked(slot)]
    assert ledger.counters.leaks == 2


def test_no_leak_is_reported_unless_that_is_wanted():
    """leak_after is None by default."""
    ledger, _ = full()
    assert ledger.tick(1e6) == []


def test_the_server_that_does_not_come_back_is_reported_once():
    """When attempts have failed for reconnect_timeout; again only after it was there in between."""
    ledger = new(min_workers=1, reconnect_timeout=60.0, backoff=Backoff(1.0, 8.0))
    slot = only(ledger.open(0.0))
    ledger.failed(slot, 0.0, 1.0, for_all=False)
    reports = []
    now = 0.0
    while now < 200.0:
        now = ledger.wake_at
        for action in ledger.tick(now):
            if isinstance(action, Unreachable):
                reports.append(now)
            else:
                last = action.slot
                ledger.failed(last, now, 1.0, for_all=False)
    assert reports == [60.0]
    probe = next(action.slot for action in ledger.tick(ledger.wake_at + 9.0) if isinstance(action, Connect))
    ledger.connected(probe, 220.0, 0.0)
    assert ledger.failing_since is None
    ledger.lost(probe, 230.0, 1.0)
    ledger.failed(only(ledger.tick(ledger.wake_at)), 231.0, 1.0, for_all=False)
    assert Unreachable() not in ledger.tick(290.0)
    assert Unreachable() in ledger.tick(291.0)


def test_a_server_that_is_there_is_not_unreachable():
    """Though the worker is not ready yet. But if none ever gets ready, that is reported all the same."""
    ledger = new(min_workers=1, reconnect_timeout=60.0)
    ledger.failed(only(ledger.open(0.0)), 0.0, 1.0, for_all=False)
    probe = only(ledger.tick(1.0))
    ledger.reached()
    assert ledger.failing_since is None
    ledger.failed(probe, 20.0, 1.0, for_all=False)
    assert ledger.failing_since == 20.0
    assert kinds(ledger.tick(59.0)) == [Connect]
    assert ledger.wake_at == 60.0
    assert ledger.tick(60.0) == [Unreachable()]


def test_a_server_that_nobody_tries_to_reach_is_not_reported():
    """A spare worker has died, or the only waiter has left: nobody lacks a worker, or knows of the server."""
    ledger = opened(idle=1, reconnect_timeout=60.0)
    (slot,) = ledger.slots
    assert ledger.lost(slot, 0.0, 1.0) == []
    assert ledger.tick(60.0) == []
    ledger.failed(only(ledger.checkout("a", 100.0)), 100.0, 1.0, for_all=False)
    ledger.leave("a")
    assert ledger.tick(160.0) == []
    probe = only(ledger.checkout("b", 170.0))
    ledger.failed(probe, 170.0, 1.0, for_all=False)
    assert Unreachable() not in ledger.tick(229.0)  # counted from the first attempt since then
    assert Unreachable() in ledger.tick(230.0)


# --- failing ---------------------------------------------------------------------------------------------


def test_while_attempts_fail_there_is_one_probe_at_a_time():
    """The first failure stops all new connections until its pause is over; then one tries, and its success opens up."""
    ledger = new(max_workers=9, backoff=Backoff(first=1.0, longest=8.0))
    slots = [only(ledger.checkout(waiter, 0.0)) for waiter in "abc"]
    assert ledger.failed(slots[0], 10.0, 1.0, for_all=False) == []  # two more are under way
    assert ledger.failing_since == 10.0
    assert ledger.failed(slots[1], 11.0, 1.0, for_all=False) == []  # after the first pause: the second is longer
    assert ledger.failed(slots[2], 12.0, 1.0, for_all=False) == []
    assert ledger.wake_at == 13.0
    assert ledger.checkout("d", 12.25) == []
    assert ledger.tick(12.5) == []
    assert ledger.wake_at == 13.0
    probe = only(ledger.tick(13.0))
    assert ledger.checkout("e", 17.0) == []
    assert ledger.failing_since == 10.0
    give, *rest = ledger.connected(probe, 18.0, 0.0)
    assert give == Give(probe, "a")
    assert kinds(rest) == [Connect] * 4
    assert ledger.failing_since is None
    assert (ledger.counters.connects, ledger.counters.failed_connects) == (1, 3)


def test_attempts_that_fail_together_are_one_failure():
    """Eight refusals of one moment say no more than one: the next probe comes after the first, short pause."""
    ledger = new(min_workers=4, backoff=Backoff(first=1.0, longest=8.0))
    for action in ledger.open(0.0):
        ledger.failed(action.slot, 10.0, 1.0, for_all=False)
    assert ledger.wake_at == 11.0
    assert ledger.backoff.failures == 1
    ledger.failed(only(ledger.tick(11.0)), 11.0, 1.0, for_all=False)
    assert ledger.wake_at == 13.0
    assert ledger.counters.failed_connects == 5


def test_those_who_wait_are_told_of_a_failed_setup():
    """All of them, in order, and the line is empty."""
    ledger = new(min_workers=1, max_workers=2)
    (first, *_) = (action.slot for action in [*ledger.checkout("a", 0.0), *ledger.checkout("b", 0.0)])
    pressure = Pressure(2, 1.0)
    assert ledger.failed(first, 1.0, 0.0, for_all=True)[:2] == [Fail(who, SETUP_FAILED, pressure) for who in "ab"]
    assert ledger.waiting == 0


def test_a_failed_setup_does_not_stop_the_stock():
    """min_workers are still wanted, after the pause."""
    ledger = new(min_workers=1, max_workers=2)
    slot = only(ledger.open(0.0))
    assert ledger.failed(slot, 0.0, 1.0, for_all=True) == []
    assert 0.0 < ledger.wake_at < math.inf
    assert kinds(ledger.tick(ledger.wake_at)) == [Connect]


def test_a_failed_setup_is_no_reason_for_the_lent_to_stop():
    """Those who have a worker keep it."""
    ledger, (slot,) = full(max_workers=2)
    connecting = only(ledger.checkout("b", 0.0))
    ledger.failed(connecting, 1.0, 1.0, for_all=True)
    assert slot.state == BUSY
    assert ledger.returned(slot, 1.0) == []
    assert only(ledger.checkout("c", 1.0)) is slot


def test_a_worker_that_dies_before_it_was_ever_lent_counts_as_a_failure():
    """Or a server whose workers die at once would be asked for new ones without a pause."""
    ledger = opened(min_workers=1, max_workers=1, idle=1)
    (slot,) = ledger.slots
    assert ledger.lost(slot, 5.0, 1.0) == []
    assert 5.0 < ledger.wake_at < 6.0


def test_workers_that_die_before_they_are_asked_for_anything_are_asked_for_ever_more_slowly():
    """Each comes, and dies in its first loan before a call was sent: that they come does not make the pauses short."""
    ledger = new(max_workers=1, backoff=Backoff(1.0, 8.0))
    slot = only(ledger.checkout("a", 0.0))
    now, pauses = 0.0, []
    for _ in range(5):
        assert ledger.connected(slot, now, 0.0) == [Give(slot, "a")]
        ledger.died_unused(now, 1.0)
        ledger.lost(slot, now, 1.0)
        assert ledger.rejoin("a", now) == []
        pauses.append(ledger.wake_at - now)
        now = ledger.wake_at
        slot = only(ledger.tick(now))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0]
    ledger.connected(slot, now, 0.0)
    ledger.returned(slot, now)  # this one has worked
    assert kinds(ledger.lost(slot, now, 1.0) + ledger.checkout("b", now)) == [Connect]


def test_a_worker_that_has_worked_may_die_without_a_pause():
    """It is replaced at once."""
    ledger = opened(min_workers=1, max_workers=1, idle=1)
    slot = only(ledger.checkout("a", 0.0))
    assert kinds(ledger.lost(slot, 5.0, 1.0)) == [Connect]
    assert ledger.counters.uses.snapshot().longest == 5.0


# --- what can never be -----------------------------------------------------------------------------------


def test_it_can_never_serve_when_all_that_may_be_are_stuck():
    """Not while one is idle, settling, connecting or could be connected, or its holder goes on."""
    ledger, (first, second) = full(2)
    assert ledger.can_never_serve(lambda holder: True)
    assert not ledger.can_never_serve(lambda holder: holder == ("holder", 0))
    ledger.settling(first, 0.0)
    assert not ledger.can_never_serve(lambda holder: True)
    ledger.returned(first, 0.0)
    assert not ledger.can_never_serve(lambda holder: True)
    ledger.checkout("a", 0.0)
    ledger.lost(second, 0.0, 0.0)
    assert not ledger.can_never_serve(lambda holder: True)
    only(ledger.checkout("b", 0.0))
    assert not ledger.can_never_serve(lambda holder: True)
    assert full(1)[0].can_never_serve(lambda holder: holder == ("holder", 0))
    assert not full(1, max_workers=2)[0].can_never_serve(lambda holder: True)


# --- the end ---------------------------------------------------------------------------------------------


def test_closing_lets_the_lent_finish():
    """Who waits is turned away, all but the lent are closed, and those are as they come back."""
    ledger = opened(min_workers=3, max_workers=4, idle=3)
    lent = only(ledger.checkout("a", 0.0))
    settling = only(ledger.checkout("b", 0.0))
    ledger.settling(settling, 0.0)
    dying = only(ledger.checkout("c", 0.0))
    ledger.checkout("d", 0.0)
    connecting = only(ledger.checkout("e", 0.0))
    ledger.checkout("f", 0.0)
    actions = ledger.close(1.0)
    assert actions[:3] == [Fail(waiter, CLOSED, Pressure(3, 1.0)) for waiter in "def"]
    assert {action.slot for action in actions[3:]} == {settling, connecting}
    assert ledger.slots == {lent, dying}
    assert ledger.connected(connecting, 1.0, 0.0) == [Close(connecting)]
    assert ledger.failed(connecting, 1.0, 0.0, for_all=False) == []
    assert ledger.returned(lent, 1.0) == [Close(lent)]
    assert ledger.lost(dying, 1.0, 0.0) == []
    assert not ledger.slots
    assert ledger.tick(9.0) == ledger.open(9.0) == ledger.drain(9.0) == []
    assert ledger.wake_at == math.inf
    assert ledger.counters.retirements == {"close": 2}  # one that only connects was no worker yet


def test_a_worker_that_is_refused_after_the_end_is_closed():
    """A lent worker that comes back after close() is closed, also if its waiter never took it."""
    ledger, (slot,) = full()
    ledger.close(0.0)
    assert ledger.refused(slot, 0.0) == [Close(slot)]
    assert not ledger.slots


def test_one_whose_worker_died_unused_after_the_end_is_turned_away():
    """There will be no other."""
    ledger, (slot,) = full()
    ledger.close(0.0)
    ledger.lost(slot, 0.0, 0.0)
    assert ledger.rejoin("a", 0.0) == [Fail("a", CLOSED, Pressure(0, 0.0))]
    assert ledger.waiting == 0


def test_news_of_a_worker_that_is_gone_is_ignored():
    """A lost worker is given to nobody, whatever is still told of it."""
    ledger, (slot,) = full()
    ledger.lost(slot, 0.0, 0.0)
    assert ledger.lost(slot, 0.0, 0.0) == []
    assert ledger.returned(slot, 0.0) == ledger.returned(slot, 0.0, "interrupted") == []
    assert ledger.settling(slot, 0.0) == ledger.retire_asked(slot, "memory", 0.0) == []
    assert ledger.refused(slot, 0.0) == []
    assert (slot.state, ledger.count(IDLE)) == (GONE, 0)
    assert isinstance(only(ledger.checkout("b", 0.0)), PoolSlot)
    assert slot not in ledger.slots
    assert ledger.counters.retirements == {}


# --- after an interruption -------------------------------------------------------------------------------


def test_repair_gives_up_what_is_not_as_booked():
    """Workers whose slots lie are closed and replaced; the others are lent to those who wait."""
    ledger = opened(idle=3, min_workers=3)
    lent = only(ledger.checkout("a", 0.0))
    wrong, right = ledger.slots - {lent}
    ledger._line["b"] = 0.0  # as if the lending had been interrupted
    close, give, connect = ledger.repair(lambda slot: slot is not wrong, 1.0)
    assert (close, give) == (Close(wrong), Give(right, "b"))
    assert isinstance(connect, Connect)
    assert ledger.counters.retirements == {"interrupted": 1}
    assert wrong.state == GONE


def test_repair_finds_again_what_was_lost_from_sight():
    """A slot that says it is idle is lent, though it was not among the idle ones; and attempts are counted anew."""
    ledger = opened(idle=1, max_workers=2)
    ledger._idle.clear()
    ledger._connecting = 7
    assert ledger.repair(lambda slot: True, 1.0) == []
    assert kinds(ledger.checkout("a", 1.0)) == [Give]
    assert kinds(ledger.checkout("b", 1.0)) == [Connect]


def test_repair_makes_up_for_a_missed_time():
    """What was to be done at some time may have been lost: the next tick looks again, at once."""
    ledger, _ = full(leak_after=5.0)
    ledger.wake_at = math.inf
    ledger.repair(lambda slot: True, 1.0)
    assert ledger.wake_at <= 1.0
    ledger.tick(1.0)
    assert ledger.wake_at == 5.0
    ledger.close(2.0)
    ledger.repair(lambda slot: True, 3.0)
    assert ledger.wake_at == math.inf


def test_repair_completes_an_end_or_a_drain_that_was_interrupted():
    """Idle workers that were to go, do; and nobody is left in line of a closed ledger."""
    ledger = opened(idle=2)
    ledger._drain_generation += 1  # as drain() begins
    assert kinds(ledger.repair(lambda slot: True, 0.0)) == [Close, Close]
    ledger = opened(idle=1, min_workers=1)
    ledger.closed = True  # as close() begins
    assert kinds(ledger.repair(lambda slot: True, 0.0)) == [Close]
    ledger, (slot,) = full(max_workers=2)
    connecting = only(ledger.checkout("b", 0.0))
    ledger.closed = True
    assert ledger.repair(lambda slot: True, 0.0) == [Fail("b", CLOSED, Pressure(1, 0.0)), Close(connecting)]
    assert ledger.slots == {slot}


# --- histories -------------------------------------------------------------------------------------------

CHANCES = st.floats(0, 1)
STEP = 1 / 64  # time goes by in such steps, or right to when the ledger wants to be woken
SECONDS = st.sampled_from([0.25, 1.0, 3.0])


class InOrder(MutableSet):
    """A set that remembers the order, so that the same history always goes the same way."""

    def __init__(self):
        self.things = {}

    def __contains__(self, thing):
        return thing in self.things

    def __iter__(self):
        return iter(self.things)

    def __len__(self):
        return len(self.things)

    def add(self, thing):
        self.things[thing] = None

    def update(self, things):
        self.things.update(dict.fromkeys(things))

    def discard(self, thing):
        self.things.pop(thing, None)


class Waiter:
    """Who waits; it may refuse what it gets."""

    def __init__(self, number, since, refuses=False):
        self.number, self.since, self.refuses = number, since, refuses

    def __repr__(self):
        return f"waiter {self.number}"


class Histories(RuleBasedStateMachine):
    """A ledger, a pool that does what it says, and a model of what should be so.

    ``None`` as the state of a slot in the model means that the ledger is about to say what becomes of it.
    """

    @initialize(
        data=st.data(),
        min_workers=st.integers(0, 3),
        more=st.integers(0, 3),
        max_connecting=st.integers(1, 3) | st.just(8),
        lifo=st.booleans(),
    )
    def start(self, data, min_workers, more, max_connecting, lifo):
        def perhaps(name, values):
            return {name: data.draw(values, label=name)} if data.draw(st.booleans(), label=f"{name}?") else {}

        self.terms = ClientConfig(
            min_workers=min_workers,
            max_workers=max(1, min_workers + more),
            max_connecting=max_connecting,
            lifo=lifo,
            **{
                "max_idle": None,
                **perhaps("max_checkouts", st.integers(1, 12)),
                **perhaps("max_lifetime", SECONDS),
                **perhaps("max_idle", SECONDS),
                **perhaps("max_waiting", st.integers(0, 3)),
                **perhaps("shed_target", SECONDS),
                **perhaps("shed_interval", SECONDS),
                **perhaps("leak_after", SECONDS),
                **perhaps("reconnect_timeout", SECONDS),
            },
        )
        self.ledger = Ledger(self.terms, backoff=Backoff(0.25, 2.0), slots=InOrder())
        self.now = 128.0
        self.min, self.max = self.terms.min_workers, self.terms.max_workers
        self.era = 0
        self.waiters = 0
        self.newcomer = None
        self.line = []
        self.states = {}
        self.idle = []  # in the order in which they came back; None if that is unknown
        self.eras, self.loans, self.most, self.ends, self.since, self.wants_out = {}, {}, {}, {}, {}, {}
        self.undecided = {}  # slot -> the waiter to whom it is offered, who has not said yet whether it takes it
        self.forgotten = []
        self.cut_off = 0  # loans that ended in a repair
        self.most_by_now = self.max
        self.told = set()  # slots whose present loan was reported as leaked
        self.out_since = None  # since when no worker came
        self.told_unreachable = False
        self.stillborn = 0  # workers that died unused since one last came back from a loan
        self.not_before = -math.inf
        self.expected = dict.fromkeys(
            ("connects", "failed_connects", "rejected", "shed", "leaks", "waits", "uses", "retirements"), 0
        )

    # --- a pool ---

    def carry_out(self, actions):
        for action in actions:
            getattr(self, f"carry_out_{type(action).__name__.lower()}")(action)
        for slot, state in self.states.items():
            if state is None:  # it was not given to anybody, nor closed
                assert not self.unfit(slot)
                self.states[slot] = IDLE
                if self.idle is not None:
                    self.idle.append(slot)

    def carry_out_connect(self, action):
        assert action.slot not in self.states
        assert action.slot not in self.forgotten
        assert len(self.states) < self.max, "more than there may be"
        if self.ledger.backoff.failures:
            assert CONNECTING not in self.states.values(), "a second probe"
        assert self.now >= self.not_before, "before the pause was over"
        self.states[action.slot] = CONNECTING
        self.eras[action.slot] = self.era
        self.loans[action.slot] = 0

    def carry_out_give(self, action):
        slot = action.slot
        assert self.states.get(slot, GONE) in (IDLE, None), "given to two, or gone"
        assert not self.wants_out.get(slot), "it had asked not to be lent"
        assert self.eras[slot] == self.era, "it was drained"
        assert self.loans[slot] < self.most[slot], "lent too often"
        assert self.line[0] is action.waiter, "not the first in line"
        if self.states[slot] == IDLE:
            self.no_longer_idle(slot, self.lent_next)
        self.line.pop(0)
        self.states[slot] = BUSY
        self.since[slot] = self.now
        self.loans[slot] += 1
        self.told.discard(slot)
        self.expected["waits"] += 1
        if action.waiter.refuses:
            self.undecided[slot] = action.waiter

    def carry_out_close(self, action):
        state = self.states.pop(action.slot)
        if state == IDLE:
            self.no_longer_idle(action.slot)
        if state != CONNECTING:
            self.expected["retirements"] += 1
        self.forgotten.append(action.slot)

    def carry_out_fail(self, action):
        waiter, pressure = action.waiter, action.pressure
        self.line.remove(waiter)
        if action.why == FULL:
            assert waiter is self.newcomer
            assert IDLE not in self.states.values()
            assert len(self.line) >= self.coming + self.terms.max_waiting
            assert pressure.waiting == len(self.line)
            self.expected["rejected"] += 1
        elif action.why == SHED:
            assert self.now - waiter.since > self.terms.shed_target, "it had not waited so long"
            assert len(self.states) > self.number_of(CONNECTING), "there is no worker at all"
            self.expected["shed"] += 1

    def carry_out_leaked(self, action):
        slot = action.slot
        assert self.states[slot] == BUSY
        assert self.now - self.since[slot] >= self.terms.leak_after
        assert slot not in self.told
        self.told.add(slot)
        self.expected["leaks"] += 1

    def carry_out_unreachable(self, action):
        assert not self.told_unreachable
        assert self.now >= self.out_since + self.terms.reconnect_timeout  # as it is set: a difference is rounded
        self.told_unreachable = True

    def no_longer_idle(self, slot, expected=None):
        if self.idle is not None:
            assert expected in (None, slot), "another one was next"
            self.idle.remove(slot)

    @property
    def lent_next(self):
        return self.idle[-1 if self.terms.lifo else 0] if self.idle else None

    @property
    def coming(self):
        return self.number_of(CONNECTING) + max(0, self.max - len(self.states))

    def number_of(self, state):
        return list(self.states.values()).count(state)

    def unfit(self, slot):
        """Whether a worker that comes back now must go."""
        return bool(
            self.ledger.closed
            or self.wants_out.get(slot)
            or self.eras[slot] != self.era
            or self.loans[slot] >= self.most[slot]
            or self.now >= self.ends[slot]
            or len(self.states) > self.max
        )

    def those(self, *states):
        return [slot for slot, state in self.states.items() if state in states and slot not in self.undecided]

    def some(self, data, *states):
        return data.draw(st.sampled_from(self.those(*states)))

    def forget(self, slot):
        if self.states.pop(slot) == IDLE:
            self.no_longer_idle(slot)
        self.forgotten.append(slot)

    # --- what callers do ---

    @rule()
    def open(self):
        self.carry_out(self.ledger.open(self.now))

    @rule(refuse=st.lists(st.sampled_from([False, False, False, True]), min_size=1, max_size=4))
    @precondition(lambda self: not self.ledger.closed)
    def checkout(self, refuse):
        for refuses in refuse:
            self.do_checkout(refuses)

    def do_checkout(self, refuses):
        self.waiters += 1
        self.newcomer = Waiter(self.waiters, self.now, refuses)
        self.line.append(self.newcomer)
        must_fail = (
            self.terms.max_waiting is not None
            and IDLE not in self.states.values()
            and len(self.line) - 1 >= self.coming + self.terms.max_waiting
        )
        self.carry_out(self.ledger.checkout(self.newcomer, self.now))
        assert not (must_fail and self.newcomer in self.line)
        self.newcomer = None

    @rule(data=st.data())
    @precondition(lambda self: self.line)
    def leave(self, data):
        waiter = data.draw(st.sampled_from(self.line))
        self.ledger.leave(waiter)
        self.ledger.leave(waiter)
        self.line.remove(waiter)

    @rule(data=st.data())
    @precondition(lambda self: self.undecided)
    def refuse(self, data):
        slot = data.draw(st.sampled_from(list(self.undecided)))
        del self.undecided[slot]
        self.states[slot] = None
        self.loans[slot] -= 1
        self.expected["waits"] -= 1
        self.come_back(slot, lambda: self.ledger.refused(slot, self.now))

    @rule(data=st.data(), why=st.sampled_from(["", "", "", "a call raised"]), settles=st.booleans())
    @precondition(lambda self: self.those(BUSY))
    def release(self, data, why, settles):
        slot = self.some(data, BUSY)
        if settles and not why:
            self.states[slot] = SETTLING
            self.since[slot] = self.now
            self.expected["uses"] += 1
            self.stillborn = 0
            self.carry_out(self.ledger.settling(slot, self.now))
        else:
            self.give_back(slot, why)

    @rule(data=st.data(), why=st.sampled_from(["", "", "", "checkout_done raised"]))
    @precondition(lambda self: self.those(SETTLING))
    def settled(self, data, why):
        self.give_back(self.some(data, SETTLING), why)

    @rule(callers=st.integers(1, 4), chance=CHANCES, steps=st.integers(0, 30))
    @precondition(lambda self: not self.ledger.closed)
    def a_good_time(self, callers, chance, steps):
        """Some come, are served, and all but one go."""
        for _ in range(callers):
            self.do_checkout(refuses=False)
        self.all_connect(chance)
        self.wait(steps)
        for slot in self.those(BUSY, SETTLING)[1:]:
            self.give_back(slot)

    @rule()
    @precondition(lambda self: self.those(BUSY, SETTLING))
    def all_come_back(self):
        for slot in self.those(BUSY, SETTLING):
            self.give_back(slot)

    def give_back(self, slot, why=""):
        if self.states[slot] == BUSY:
            self.expected["uses"] += 1
            self.stillborn = 0
        self.states[slot] = None
        self.come_back(slot, lambda: self.ledger.returned(slot, self.now, why), must_go=bool(why))

    def come_back(self, slot, report, must_go=False):
        must_go = must_go or self.unfit(slot)
        self.carry_out(report())
        assert (slot in self.forgotten) is must_go

    @rule()
    @precondition(lambda self: not self.ledger.closed)
    def drain(self):
        self.era += 1
        self.carry_out(self.ledger.drain(self.now))
        assert IDLE not in self.states.values()

    @rule(min_workers=st.integers(0, 4), more=st.integers(0, 4))
    @precondition(lambda self: not self.ledger.closed)
    def resize(self, min_workers, more):
        before = len(self.states)
        self.min, self.max = min_workers, max(1, min_workers + more)
        self.carry_out(self.ledger.resize(self.min, self.max, self.now))
        assert len(self.states) <= max(self.max, before)
        assert len(self.states) <= self.max or IDLE not in self.states.values()
        assert len(self.states) >= min(self.max, before), "one that might have stayed"

    @rule()
    @precondition(lambda self: not self.ledger.closed and self.waiters > 12)
    def close(self):
        self.carry_out(self.ledger.close(self.now))

    # --- what befalls workers ---

    @rule(data=st.data(), chance=CHANCES)
    @precondition(lambda self: self.those(CONNECTING))
    def connect(self, data, chance):
        self.do_connect(self.some(data, CONNECTING), chance)

    @rule(chance=CHANCES)
    @precondition(lambda self: self.those(CONNECTING))
    def all_connect(self, chance):
        for slot in self.those(CONNECTING):
            self.do_connect(slot, chance)

    def do_connect(self, slot, chance):
        lifetime, checkouts = self.terms.max_lifetime, self.terms.max_checkouts
        self.states[slot] = None
        self.ends[slot] = math.inf if lifetime is None else self.now + lifetime * (1 - JITTER * chance)
        self.most[slot] = math.inf if checkouts is None else checkouts - math.floor(checkouts * JITTER * chance)
        self.expected["connects"] += 1
        self.out_since, self.told_unreachable = None, False
        if not self.stillborn:
            self.not_before = -math.inf
        self.come_back(slot, lambda: self.ledger.connected(slot, self.now, chance))
        assert self.ledger.failing_since is None

    @rule(data=st.data(), chance=CHANCES, setup_raised=st.booleans())
    @precondition(lambda self: self.those(CONNECTING))
    def fail_to_connect(self, data, chance, setup_raised):
        slot = self.some(data, CONNECTING)
        self.forget(slot)
        self.expected["failed_connects"] += 1
        self.out_since = self.now if self.out_since is None else self.out_since
        self.pause(chance, self.ledger.backoff.failures)
        self.carry_out(self.ledger.failed(slot, self.now, chance, setup_raised))
        assert not (setup_raised and self.line)

    def pause(self, chance, failures):
        if self.now >= self.not_before:
            self.not_before = self.now + Backoff(0.25, 2.0, failures).failed(chance)

    @rule()
    @precondition(lambda self: CONNECTING in self.states.values())
    def reach_the_server(self):
        self.ledger.reached()
        assert self.ledger.failing_since is None

    @rule(data=st.data(), chance=CHANCES, unused=st.booleans())
    @precondition(lambda self: self.those(IDLE, BUSY, SETTLING))
    def lose(self, data, chance, unused):
        """A worker dies; if its holder had not used it, it takes the first place in line again."""
        slot = self.some(data, IDLE, BUSY, SETTLING)
        stands_again = unused and self.states[slot] == BUSY and not self.ledger.closed
        self.expected["uses"] += self.states[slot] == BUSY
        self.forget(slot)
        if not self.loans[slot] or (stands_again and self.loans[slot] == 1):
            self.pause(chance, max(self.ledger.backoff.failures, self.stillborn))
            self.stillborn += 1
        if stands_again and self.loans[slot] == 1:
            self.ledger.died_unused(self.now, chance)
        self.carry_out(self.ledger.lost(slot, self.now, chance))
        if stands_again:
            self.waiters += 1
            self.line.insert(0, Waiter(self.waiters, self.now))
            self.carry_out(self.ledger.rejoin(self.line[0], self.now))

    @rule(data=st.data(), why=st.sampled_from(["memory", "draining"]))
    @precondition(lambda self: self.those(CONNECTING, IDLE, BUSY, SETTLING))
    def ask(self, data, why):
        slot = self.some(data, CONNECTING, IDLE, BUSY, SETTLING)
        self.wants_out[slot] = why
        was_idle = self.states[slot] == IDLE
        before = self.ledger.counters.retirements.get(why, 0)
        self.carry_out(self.ledger.retire_asked(slot, why, self.now))
        assert (slot in self.forgotten) is was_idle
        assert self.ledger.counters.retirements.get(why, 0) == before + was_idle

    @rule(data=st.data())
    @precondition(lambda self: self.forgotten)
    def late_news(self, data):
        """What is still told of a worker that is gone changes nothing."""
        slot = data.draw(st.sampled_from(self.forgotten))
        ledger, now = self.ledger, self.now
        assert ledger.connected(slot, now, 0.5) == [Close(slot)]
        assert ledger.failed(slot, now, 0.5, True) == ledger.lost(slot, now, 0.5) == []
        assert ledger.returned(slot, now) == ledger.returned(slot, now, "late") == ledger.refused(slot, now) == []
        assert ledger.settling(slot, now) == ledger.retire_asked(slot, "late", now) == []

    @rule(data=st.data())
    @precondition(lambda self: self.those(IDLE, CONNECTING))
    def double_release(self, data):
        """What is idle or connects is not lent, and cannot come back."""
        slot = self.some(data, IDLE, CONNECTING)
        assert self.ledger.returned(slot, self.now) == self.ledger.settling(slot, self.now) == []
        assert self.ledger.refused(slot, self.now) == []
        if self.states[slot] == CONNECTING:  # how the attempt ended is still to be told
            assert self.ledger.lost(slot, self.now, 0.5) == []

    @rule(data=st.data())
    def repair(self, data):
        """An interruption came amid some change; some workers are not what their slots say."""
        slots = self.those(CONNECTING, IDLE, BUSY, SETTLING)
        broken = data.draw(st.sets(st.sampled_from(slots), max_size=2)) if slots else set()
        self.expected["retirements"] += sum(self.states[slot] == CONNECTING for slot in broken)
        self.cut_off += sum(self.states[slot] == BUSY for slot in broken)  # nobody knows how long they were used
        self.idle = None  # their order may be lost
        self.carry_out(self.ledger.repair(lambda slot: slot not in broken, self.now))
        assert broken <= set(self.forgotten)

    # --- time ---

    @rule(steps=st.integers(0, 100))
    def wait(self, steps):
        self.now += steps * STEP
        if self.now >= self.ledger.wake_at:
            self.tick()

    @rule()
    @precondition(lambda self: self.ledger.wake_at < math.inf)
    def wait_until_it_wakes(self):
        self.now = max(self.now, self.ledger.wake_at)
        self.tick()

    @rule()
    def tick(self):
        self.carry_out(self.ledger.tick(self.now))
        assert self.ledger.wake_at > self.now, "it would be woken again and again"
        assert not any(state == IDLE and self.ends[slot] <= self.now for slot, state in self.states.items())

    # --- what holds after every step ---

    @invariant()
    def the_slots_are_those_of_the_model(self):
        assert {slot: slot.state for slot in self.ledger.slots} == self.states
        assert all(slot.state == GONE for slot in self.forgotten)
        assert {slot: slot.checkouts for slot in self.states} == {slot: self.loans[slot] for slot in self.states}
        for state in (CONNECTING, IDLE, BUSY, SETTLING):
            assert self.ledger.count(state) == self.number_of(state)

    @invariant()
    def no_slot_is_in_two_places(self):
        ledger = self.ledger
        assert len(ledger._idle) == len(set(ledger._idle)) == self.number_of(IDLE)
        assert all(slot.state == IDLE and slot.holder is None for slot in ledger._idle)
        assert ledger._connecting == self.number_of(CONNECTING)
        holders = [slot.holder for slot in self.states if slot.state == BUSY]
        assert None not in holders
        assert len({*holders, *ledger.line}) == len(holders) + len(ledger.line)

    @invariant()
    def there_are_not_too_many(self):
        """A resize may leave too many; then there are never more again until enough have gone."""
        assert len(self.states) <= max(self.max, self.most_by_now)
        self.most_by_now = len(self.states)

    @invariant()
    def the_line_is_that_of_the_model(self):
        assert self.ledger.line == self.line
        assert self.ledger.waiting == len(self.line)
        assert [self.ledger.ahead(waiter) for waiter in self.line] == list(range(len(self.line)))

    @invariant()
    def nobody_waits_while_a_worker_is_idle(self):
        assert not (self.line and IDLE in self.states.values())

    @invariant()
    def enough_workers_are_on_their_way(self):
        ledger = self.ledger
        if not ledger.opened or ledger.closed or len(self.states) >= self.max:
            return
        connecting = self.number_of(CONNECTING)
        soon = sum(state == SETTLING and self.now < self.since[slot] + PATIENCE for slot, state in self.states.items())
        enough = len(self.states) >= self.min and connecting >= len(self.line) - soon
        at_once = connecting == self.terms.max_connecting
        later = (ledger.backoff.failures and connecting) or (self.now < self.not_before and ledger.wake_at < math.inf)
        assert enough or at_once or later
        assert not (soon and connecting < len(self.line)) or ledger.wake_at < math.inf

    @invariant()
    def the_counters_agree(self):
        counters = self.ledger.counters
        counted = {name: getattr(counters, name) for name in ("connects", "failed_connects", "rejected", "shed")}
        counted |= {"leaks": counters.leaks, "waits": counters.waits.count, "uses": counters.uses.count}
        counted |= {"retirements": sum(counters.retirements.values())}
        assert counted == self.expected
        for watch in (counters.waits, counters.uses):
            assert sum(watch.snapshot().buckets) == watch.count
            assert min(watch.buckets) >= 0
        # Each loan is held, or has been counted as a use.
        assert self.expected["uses"] + self.number_of(BUSY) + self.cut_off == self.expected["waits"]

    @invariant()
    def after_the_end_only_the_lent_are_left(self):
        if self.ledger.closed:
            assert not self.line
            assert set(self.states.values()) <= {BUSY, SETTLING}
            assert self.ledger.wake_at == math.inf

    def teardown(self):
        if not hasattr(self, "ledger"):
            return
        if not self.ledger.closed:
            self.everybody_is_served()
            self.carry_out(self.ledger.close(self.now))
        for slot in list(self.undecided):
            self.undecided.pop(slot)
            self.give_back(slot)
        for slot, state in list(self.states.items()):
            assert state in (BUSY, SETTLING)
            self.give_back(slot)
        assert not self.ledger.slots
        assert not self.states

    def everybody_is_served(self):
        """With a server that works and callers that come to an end, the line moves until it is empty."""
        for waiter in self.line:
            waiter.refuses = False
        for slot in list(self.undecided):
            del self.undecided[slot]
            self.give_back(slot)
        for _ in range(4 * len(self.line) + 40):
            if not self.line:
                return
            busy = [slot for slot, state in self.states.items() if state in (BUSY, SETTLING)]
            connecting = [slot for slot, state in self.states.items() if state == CONNECTING]
            if busy:
                self.give_back(busy[0])
            elif connecting:
                self.do_connect(connecting[0], 0.5)
            else:
                assert self.ledger.wake_at < math.inf
                self.wait_until_it_wakes()
        raise AssertionError(f"{len(self.line)} still wait")


Histories.TestCase.settings = settings(deadline=None, stateful_step_count=80, phases=set(Phase) - {Phase.explain})
TestHistories = Histories.TestCase
TestHistories.__doc__ = """Through long random histories the ledger and a plain model agree after every step."""


@pytest.mark.parametrize("waiters", [[1, 2], ["a", object()]])
def test_any_hashable_may_wait(waiters):
    """The ledger only keeps them; what they are is the pool's."""
    ledger = new(max_workers=1)
    for waiter in waiters:
        ledger.checkout(waiter, 0.0)
    assert ledger.line == waiters
