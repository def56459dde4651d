"""Who gets which worker, and how many there are: single steps, and long random histories beside a model."""

from __future__ import annotations

import math

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gtask.client.backoff import Backoff
from gtask.client.ledger import BUSY, CONNECTING, GONE, IDLE, SETTLING, Close, Connect, Fail, Give, Ledger, Slot, Wake


def opened(min_workers=0, max_workers=4, idle=0, **options):
    """An open ledger with so many idle workers."""
    ledger = Ledger(min_workers, max_workers, **options)
    actions = ledger.open(0.0)
    for number in range(idle):
        if not any(slot.state == CONNECTING for slot in ledger.slots):
            actions = ledger.checkout(("helper", number), 0.0)
        (slot, *_) = (action.slot for action in actions if isinstance(action, Connect))
        ledger.leave(("helper", number))
        ledger.connected(slot, 0.0)
        actions = [Connect(slot) for slot in ledger.slots if slot.state == CONNECTING]
    assert ledger.count(IDLE) == idle
    return ledger


def only(actions):
    """The slot of the only action."""
    (action,) = actions
    return action.slot


# --- growing ---------------------------------------------------------------------------------------------


def test_nothing_happens_before_it_is_opened():
    """A new ledger wants no workers, whatever its minimum."""
    ledger = Ledger(2, 4)
    assert ledger.tick(0.0) == []
    assert not ledger.slots


def test_opening_connects_the_minimum():
    """As many connections as min_workers, and no more on a second open."""
    ledger = Ledger(3, 4)
    actions = ledger.open(0.0)
    assert [type(action) for action in actions] == [Connect] * 3
    assert ledger.count(CONNECTING) == len(ledger.slots) == 3
    assert ledger.open(0.0) == []


def test_a_checkout_opens_it():
    """The first place in line connects the minimum, or one worker if that is none."""
    assert len(Ledger(2, 4).checkout("a", 0.0)) == 2
    assert len(Ledger(0, 4).checkout("a", 0.0)) == 1


def test_each_waiter_has_a_connection_on_its_way_up_to_the_maximum():
    """One more for each who waits, but never more than max_workers."""
    ledger = Ledger(0, 3)
    assert [len(ledger.checkout(waiter, 0.0)) for waiter in "abcde"] == [1, 1, 1, 0, 0]
    assert ledger.waiting == 5


def test_a_worker_is_replaced_when_too_few_are_left():
    """One that is lost or retired is followed by another, if that is wanted."""
    ledger = opened(min_workers=2, idle=2)
    (slot, other) = ledger.slots
    give = only(ledger.checkout("a", 0.0))
    assert [type(action) for action in ledger.returned(give, 0.0, retire=True)] == [Close, Connect]
    assert give.state == GONE
    rest = other if give is slot else slot
    only(ledger.checkout("b", 0.0))
    assert [type(action) for action in ledger.lost(rest, 0.0, 0.5)] == [Connect]
    assert len(ledger.slots) == 2


def test_a_worker_is_not_replaced_when_nobody_needs_another():
    """Above the minimum, with nobody in line, fewer is fine."""
    ledger = opened(min_workers=0, idle=1)
    slot = only(ledger.checkout("a", 0.0))
    assert ledger.returned(slot, 0.0, retire=True) == [Close(slot)]
    assert not ledger.slots


# --- lending ---------------------------------------------------------------------------------------------


def test_an_idle_worker_is_given_at_once():
    """No waiting, no new connection."""
    ledger = opened(idle=1)
    (slot,) = ledger.slots
    assert ledger.checkout("a", 0.0) == [Give(slot, "a")]
    assert (slot.state, slot.checkouts) == (BUSY, 1)


def test_those_who_wait_are_served_in_the_order_of_their_places():
    """A returned worker goes to the first in line, directly, and newcomers stand behind."""
    ledger = opened(max_workers=1, idle=1)
    slot = only(ledger.checkout("a", 0.0))
    for waiter in "bcd":
        assert ledger.checkout(waiter, 0.0) == []
    assert [ledger.ahead(waiter) for waiter in "bcd"] == [0, 1, 2]
    for waiter in "bcd":
        assert ledger.returned(slot, 0.0, retire=False) == [Give(slot, waiter)]
    assert ledger.returned(slot, 0.0, retire=False) == []
    assert slot.state == IDLE


def test_a_new_connection_goes_to_the_first_in_line():
    """Not to the one that caused it."""
    ledger = Ledger(0, 1)
    slot = only(ledger.checkout("a", 0.0))
    ledger.checkout("b", 0.0)
    ledger.leave("a")
    assert ledger.connected(slot, 0.0) == [Give(slot, "b")]


def test_a_late_connection_joins_the_pool():
    """Whoever wanted it may have gone meanwhile."""
    ledger = Ledger(0, 1)
    slot = only(ledger.checkout("a", 0.0))
    ledger.leave("a")
    assert ledger.connected(slot, 0.0) == []
    assert slot.state == IDLE
    assert ledger.checkout("b", 0.0) == [Give(slot, "b")]


def test_a_refused_worker_is_the_next_ones():
    """A waiter that gave up in the same moment passes it on, and the loan is not counted."""
    ledger = opened(max_workers=1, idle=1, max_checkouts=2)
    slot = only(ledger.checkout("a", 0.0))
    for waiter in "bc":
        ledger.checkout(waiter, 0.0)
    assert ledger.returned(slot, 0.0, retire=False) == [Give(slot, "b")]
    assert ledger.refused(slot) == [Give(slot, "c")]
    assert slot.checkouts == 2
    assert ledger.refused(slot) == []
    assert (slot.state, slot.checkouts) == (IDLE, 1)


def test_one_that_is_not_in_line_may_leave():
    """Nothing happens."""
    ledger = opened(max_workers=1, idle=1)
    only(ledger.checkout("a", 0.0))
    ledger.checkout("b", 0.0)
    ledger.leave("a")
    ledger.leave("nobody")
    assert ledger.waiting == 1
    assert ledger.ahead("nobody") == 1


def test_a_settling_worker_is_not_lent():
    """While checkout_done runs, others wait; then the first of them gets it."""
    ledger = opened(max_workers=1, idle=1)
    slot = only(ledger.checkout("a", 0.0))
    ledger.settling(slot)
    assert slot.state == SETTLING
    assert ledger.checkout("b", 0.0) == []
    assert ledger.returned(slot, 0.0, retire=False) == [Give(slot, "b")]


def test_max_checkouts_replaces_a_worker():
    """After that many loans it is closed, and another connects for who waits."""
    ledger = opened(max_workers=1, idle=1, max_checkouts=2)
    slot = only(ledger.checkout("a", 0.0))
    assert ledger.returned(slot, 0.0, retire=False) == []
    assert only(ledger.checkout("b", 0.0)) is slot
    ledger.checkout("c", 0.0)
    close, connect = ledger.returned(slot, 0.0, retire=False)
    assert close == Close(slot)
    assert ledger.connected(connect.slot, 0.0) == [Give(connect.slot, "c")]


# --- failing ---------------------------------------------------------------------------------------------


def test_while_attempts_fail_there_is_one_probe_at_a_time():
    """The first failure stops all new connections until its pause is over; then one tries, and its success opens up."""
    ledger = Ledger(0, 9, backoff=Backoff(first=1.0, longest=8.0))
    slots = [only(ledger.checkout(waiter, 0.0)) for waiter in "abc"]
    assert ledger.failed(slots[0], 10.0, 1.0, for_all=False) == []  # two more are under way
    assert ledger.failing_since == 10.0
    assert ledger.failed(slots[1], 11.0, 1.0, for_all=False) == []
    assert ledger.failed(slots[2], 12.0, 1.0, for_all=False) == [Wake(16.0)]
    assert ledger.checkout("d", 13.0) == [Wake(16.0)]
    assert ledger.tick(15.0) == [Wake(16.0)]
    probe = only(ledger.tick(16.0))
    assert ledger.checkout("e", 17.0) == []
    assert ledger.failing_since == 10.0
    give, *rest = ledger.connected(probe, 18.0)
    assert give == Give(probe, "a")
    assert [type(action) for action in rest] == [Connect] * 4
    assert ledger.failing_since is None


def test_those_who_wait_are_told_of_a_failed_setup():
    """All of them, in order, and the line is empty."""
    ledger = Ledger(1, 2)
    (first, *_) = (action.slot for action in [*ledger.checkout("a", 0.0), *ledger.checkout("b", 0.0)])
    assert ledger.failed(first, 1.0, 0.0, for_all=True)[:2] == [Fail("a"), Fail("b")]
    assert ledger.waiting == 0


def test_a_failed_setup_does_not_stop_the_stock():
    """min_workers are still wanted, after the pause."""
    ledger = Ledger(1, 2)
    slot = only(ledger.open(0.0))
    (wake,) = ledger.failed(slot, 0.0, 1.0, for_all=True)
    assert isinstance(wake, Wake)
    assert isinstance(ledger.tick(wake.at)[0], Connect)


def test_a_worker_that_dies_before_it_was_ever_lent_counts_as_a_failure():
    """Or a server whose workers die at once would be asked for new ones without a pause."""
    ledger = opened(min_workers=1, max_workers=1, idle=1)
    (slot,) = ledger.slots
    (wake,) = ledger.lost(slot, 5.0, 1.0)
    assert isinstance(wake, Wake)
    assert wake.at > 5.0


def test_a_worker_that_has_worked_may_die_without_a_pause():
    """It is replaced at once."""
    ledger = opened(min_workers=1, max_workers=1, idle=1)
    slot = only(ledger.checkout("a", 0.0))
    assert [type(action) for action in ledger.lost(slot, 5.0, 1.0)] == [Connect]


# --- the end ---------------------------------------------------------------------------------------------


def test_closing_lets_the_lent_finish():
    """Who waits is turned away, all but the lent are closed, and those are as they come back."""
    ledger = opened(min_workers=3, max_workers=4, idle=3)
    lent = only(ledger.checkout("a", 0.0))
    settling = only(ledger.checkout("b", 0.0))
    ledger.settling(settling)
    (idle,) = (slot for slot in ledger.slots if slot.state == IDLE)
    only(ledger.checkout("c", 0.0))
    connecting = only(ledger.checkout("d", 0.0))
    ledger.checkout("e", 0.0)
    actions = ledger.close()
    assert actions[:2] == [Fail("d"), Fail("e")]
    assert {action.slot for action in actions[2:]} == {settling, connecting}
    assert ledger.slots == {lent, idle}
    assert ledger.connected(connecting, 0.0) == [Close(connecting)]
    assert ledger.failed(connecting, 0.0, 0.0, for_all=False) == []
    assert ledger.returned(lent, 0.0, retire=False) == [Close(lent)]
    assert ledger.lost(idle, 0.0, 0.0) == []
    assert not ledger.slots
    assert ledger.tick(9.0) == []
    assert ledger.open(9.0) == []


def test_a_worker_that_is_refused_after_the_end_is_closed():
    """A lent worker that comes back after close() is closed, also if its waiter never took it."""
    ledger = opened(max_workers=1, idle=1)
    slot = only(ledger.checkout("a", 0.0))
    ledger.close()
    assert ledger.refused(slot) == [Close(slot)]
    assert not ledger.slots


def test_news_of_a_worker_that_is_gone_is_ignored():
    """A lost worker is given to nobody, whatever is still told of it."""
    ledger = opened(max_workers=1, idle=1)
    slot = only(ledger.checkout("a", 0.0))
    ledger.lost(slot, 0.0, 0.0)
    assert ledger.lost(slot, 0.0, 0.0) == []
    assert ledger.refused(slot) == []
    assert (slot.state, ledger.count(IDLE)) == (GONE, 0)
    assert isinstance(only(ledger.checkout("b", 0.0)), Slot)
    assert slot not in ledger.slots


# --- histories -------------------------------------------------------------------------------------------

CHANCES = st.floats(0, 1)


class Histories(RuleBasedStateMachine):
    """A ledger, a pool that does what it says, and a model of what should be so."""

    @initialize(
        min_workers=st.integers(0, 3),
        more=st.integers(0, 3),
        max_checkouts=st.none() | st.integers(1, 3),
    )
    def start(self, min_workers, more, max_checkouts):
        self.ledger = Ledger(min_workers, max(1, min_workers + more), max_checkouts, Backoff(0.25, 2.0))
        self.now = 100.0
        self.wake = math.inf
        self.line = []
        self.states = {}
        self.undecided = {}  # slot -> the waiter to whom it is offered
        self.forgotten = []
        self.waiters = 0
        self.killed = set()

    # --- a pool ---

    def carry_out(self, actions):
        for action in actions:
            getattr(self, f"carry_out_{type(action).__name__.lower()}")(action)

    def carry_out_connect(self, action):
        assert action.slot not in self.states
        assert action.slot not in self.forgotten
        if self.ledger.backoff.failures:
            assert CONNECTING not in self.states.values(), "a second probe"
            assert self.now >= self.not_before, "a probe before the pause was over"
        self.states[action.slot] = CONNECTING

    def carry_out_give(self, action):
        assert self.states.get(action.slot) in (IDLE, None), "given to two"
        assert self.line[0] == action.waiter, "not the first in line"
        self.line.pop(0)
        self.states[action.slot] = BUSY
        if action.waiter in self.killed:
            self.undecided[action.slot] = action.waiter

    def carry_out_close(self, action):
        self.states.pop(action.slot, None)
        self.forgotten.append(action.slot)

    def carry_out_fail(self, action):
        assert self.line[0] == action.waiter
        self.line.pop(0)

    def carry_out_wake(self, action):
        assert action.at > self.now
        self.wake = min(self.wake, action.at)

    def some(self, data, *states):
        slots = [slot for slot, state in self.states.items() if state in states and slot not in self.undecided]
        return data.draw(st.sampled_from(slots)) if slots else None

    # --- what callers do ---

    @rule()
    def open(self):
        self.carry_out(self.ledger.open(self.now))

    @rule(will_refuse=st.sampled_from([False, False, False, True]))
    @precondition(lambda self: not self.ledger.closed)
    def checkout(self, will_refuse):
        self.waiters += 1
        self.line.append(self.waiters)
        if will_refuse:
            self.killed.add(self.waiters)
        self.carry_out(self.ledger.checkout(self.waiters, self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.waiters)
    def leave(self, data):
        waiter = data.draw(st.integers(1, self.waiters))
        self.ledger.leave(waiter)
        if waiter in self.line:
            self.line.remove(waiter)

    @rule(data=st.data())
    @precondition(lambda self: self.undecided)
    def refuse(self, data):
        slot = data.draw(st.sampled_from(list(self.undecided)))
        del self.undecided[slot]
        self.states[slot] = None  # the ledger is to say what becomes of it
        self.carry_out(self.ledger.refused(slot))
        if self.states.get(slot, BUSY) is None:
            self.states[slot] = IDLE

    @rule(data=st.data(), retire=st.booleans(), settles=st.booleans())
    def release(self, data, retire, settles):
        slot = self.some(data, BUSY)
        if slot is None:
            return
        if settles and not retire:
            self.ledger.settling(slot)
            self.states[slot] = SETTLING
        else:
            self.give_back(slot, retire)

    @rule(data=st.data(), retire=st.booleans())
    def settled(self, data, retire):
        slot = self.some(data, SETTLING)
        if slot is not None:
            self.give_back(slot, retire)

    def give_back(self, slot, retire):
        spent = slot.checkouts == self.ledger.max_checkouts
        self.states[slot] = None
        self.carry_out(self.ledger.returned(slot, self.now, retire))
        if retire or spent or self.ledger.closed:
            assert slot in self.forgotten
        elif self.states.get(slot, BUSY) is None:
            self.states[slot] = IDLE

    # --- what befalls workers ---

    @rule(data=st.data())
    def connect(self, data):
        slot = self.some(data, CONNECTING)
        if slot is None:
            return
        self.states[slot] = None
        self.carry_out(self.ledger.connected(slot, self.now))
        assert self.ledger.failing_since is None
        if self.states.get(slot, BUSY) is None:
            self.states[slot] = IDLE

    @rule(data=st.data(), chance=CHANCES, setup_raised=st.booleans())
    def fail_to_connect(self, data, chance, setup_raised):
        slot = self.some(data, CONNECTING)
        if slot is None:
            return
        del self.states[slot]
        self.forgotten.append(slot)
        self.not_before = self.now + Backoff(0.25, 2.0, self.ledger.backoff.failures).failed(chance)
        self.carry_out(self.ledger.failed(slot, self.now, chance, setup_raised))
        if setup_raised:
            assert not self.line

    @rule(data=st.data(), chance=CHANCES)
    def lose(self, data, chance):
        slot = self.some(data, IDLE, BUSY, SETTLING)
        if slot is None:
            return
        del self.states[slot]
        self.forgotten.append(slot)
        if not slot.checkouts:
            self.not_before = self.now + Backoff(0.25, 2.0, self.ledger.backoff.failures).failed(chance)
        self.carry_out(self.ledger.lost(slot, self.now, chance))

    @rule(data=st.data())
    @precondition(lambda self: self.forgotten)
    def late_news(self, data):
        slot = data.draw(st.sampled_from(self.forgotten))
        assert self.ledger.connected(slot, self.now) == [Close(slot)]
        assert self.ledger.failed(slot, self.now, 0.5, True) == []
        assert self.ledger.lost(slot, self.now, 0.5) == []

    @rule(data=st.data(), chance=CHANCES)
    def lose_unused(self, data, chance):
        """The worker died before its holder had used it, and the holder takes the first place in line again."""
        slot = self.some(data, BUSY)
        if slot is None or self.ledger.closed:
            return
        del self.states[slot]
        self.forgotten.append(slot)
        self.carry_out(self.ledger.lost(slot, self.now, chance))
        self.waiters += 1
        self.line.insert(0, self.waiters)
        self.carry_out(self.ledger.rejoin(self.waiters, self.now))

    @rule()
    @precondition(lambda self: CONNECTING in self.states.values())
    def reach_the_server(self):
        self.ledger.reached()
        assert self.ledger.failing_since is None

    @rule(data=st.data())
    def repair(self, data):
        """An interruption came amid some change; some workers are not what their slots say."""
        slots = [slot for slot in self.states if slot not in self.undecided]
        broken = data.draw(st.sets(st.sampled_from(slots), max_size=2)) if slots else set()
        self.carry_out(self.ledger.repair(lambda slot: slot not in broken, self.now))
        assert broken <= set(self.forgotten)

    @rule(seconds=st.floats(0.01, 3.0))
    def wait(self, seconds):
        self.now += seconds
        if self.now >= self.wake:
            self.wake = math.inf
            self.carry_out(self.ledger.tick(self.now))

    @rule()
    @precondition(lambda self: not self.ledger.closed and self.waiters > 3)
    def close(self):
        self.carry_out(self.ledger.close())

    # --- what holds after every step ---

    @invariant()
    def the_slots_are_those_of_the_model(self):
        assert {slot: slot.state for slot in self.ledger.slots} == self.states
        assert len(self.states) <= self.ledger.max_workers
        assert all(slot.state == GONE for slot in self.forgotten)
        for state in (CONNECTING, IDLE, BUSY, SETTLING):
            assert self.ledger.count(state) == list(self.states.values()).count(state)

    @invariant()
    def the_line_is_that_of_the_model(self):
        assert self.ledger.waiting == len(self.line)
        assert [self.ledger.ahead(waiter) for waiter in self.line] == list(range(len(self.line)))

    @invariant()
    def nobody_waits_while_a_worker_is_idle(self):
        assert not (self.line and IDLE in self.states.values())

    @invariant()
    def enough_workers_are_on_their_way(self):
        ledger = self.ledger
        if not ledger.opened or ledger.closed or len(self.states) == ledger.max_workers:
            return
        connecting = list(self.states.values()).count(CONNECTING)
        enough = len(self.states) >= ledger.min_workers and connecting >= len(self.line)
        assert enough or (ledger.backoff.failures and (connecting or self.wake < math.inf))

    @invariant()
    def no_worker_is_lent_too_often(self):
        most = self.ledger.max_checkouts or math.inf
        assert all(0 <= slot.checkouts <= most for slot in self.states)

    @invariant()
    def after_the_end_only_the_lent_are_left(self):
        if self.ledger.closed:
            assert not self.line
            assert set(self.states.values()) <= {BUSY, SETTLING}

    def teardown(self):
        if not hasattr(self, "ledger"):
            return
        if not self.ledger.closed:
            self.everybody_is_served()
            self.carry_out(self.ledger.close())
        for slot in list(self.undecided):
            self.carry_out(self.ledger.refused(slot))
        for slot, state in list(self.states.items()):
            assert state in (BUSY, SETTLING)
            self.carry_out(self.ledger.returned(slot, self.now, False))
        assert not self.ledger.slots
        assert not self.states

    def everybody_is_served(self):
        """With a server that works and callers that come to an end, the line moves until it is empty."""
        for slot in list(self.undecided):
            del self.undecided[slot]
            self.give_back(slot, False)
        self.killed.clear()
        for _ in range(4 * len(self.line) + 20):
            if not self.line:
                return
            busy = [slot for slot, state in self.states.items() if state in (BUSY, SETTLING)]
            connecting = [slot for slot, state in self.states.items() if state == CONNECTING]
            if busy:
                self.give_back(busy[0], False)
            elif connecting:
                self.states[connecting[0]] = None
                self.carry_out(self.ledger.connected(connecting[0], self.now))
            else:
                assert self.wake < math.inf
                self.now, self.wake = self.wake, math.inf
                self.carry_out(self.ledger.tick(self.now))
        raise AssertionError(f"{len(self.line)} still wait")


Histories.TestCase.settings = settings(deadline=None, stateful_step_count=60, phases=set(Phase) - {Phase.explain})
TestHistories = Histories.TestCase
TestHistories.__doc__ = """Through long random histories the ledger and a plain model agree after every step."""


@pytest.mark.parametrize("waiters", [[1, 2], ["a", object()]])
def test_any_hashable_may_wait(waiters):
    """The ledger only keeps them; what they are is the pool's."""
    ledger = Ledger(0, 1)
    for waiter in waiters:
        ledger.checkout(waiter, 0.0)
    assert ledger.waiting == 2
