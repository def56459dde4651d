"""Which master serves, which follows and which goes."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gtask.server.daemon.succession import (
    DRAINING,
    KILL_AFTER,
    LONGEST_PAUSE,
    SERVING,
    SHORT_LIFE,
    STARTING,
    Drain,
    Kill,
    Quit,
    Say,
    Start,
    Succession,
)
from tests.support.examples import examples

TIMEOUTS = GRACEFUL_TIMEOUT, STOP_TIMEOUT = 30.0, 5.0
PATIENCE = GRACEFUL_TIMEOUT + STOP_TIMEOUT
KILLED, BROKEN = "was ended by SIGKILL", "exited with status 1"


def serving(pid=11, now=100.0):
    """A daemon whose first master serves."""
    succession = Succession()
    assert succession.begin() == [Start()]
    assert succession.started(pid, now) == []
    assert succession.ready(pid, now, *TIMEOUTS) == [Say(f"master {pid} serves", ready=True)]
    return succession


def silent(actions):
    """The actions, without what is said."""
    return [action for action in actions if not isinstance(action, Say)]


def said(actions):
    """What is said."""
    (say,) = (action for action in actions if isinstance(action, Say))
    return say


def test_the_first_master_serves_when_it_is_ready():
    """It is starting until it says so; then the daemon is ready, without a reload."""
    succession = Succession()
    succession.begin()
    succession.started(11, 100.0)
    assert (succession.pids(STARTING), succession.pids(SERVING), succession.reloads) == ([11], [], -1)
    succession.ready(11, 101.0, *TIMEOUTS)
    assert (succession.pids(STARTING), succession.pids(SERVING), succession.reloads) == ([], [11], 0)
    assert succession.next_due() == math.inf
    assert not succession.is_over


def test_a_first_master_that_says_itself_why_it_cannot_serve():
    """With status 1 the application has told its own story; the daemon is over and adds nothing."""
    succession = Succession()
    succession.begin()
    succession.started(11, 100.0)
    assert succession.exited(11, BROKEN, 100.1) == []
    assert succession.failed
    assert succession.is_over
    assert succession.reload() == []


@pytest.mark.parametrize("how", [KILLED, "exited with status 7", "exited with status 0"])
def test_a_first_master_that_dies_without_a_word(how):
    """Then the daemon says how it ended, and is over."""
    succession = Succession()
    succession.begin()
    succession.started(11, 100.0)
    assert succession.exited(11, how, 100.1) == [Say(f"the master 11 {how} before it was ready", warning=True)]
    assert succession.failed


def test_a_reload_disturbs_nobody_until_the_new_master_is_ready():
    """Both are there meanwhile; then the old one drains and the new one serves."""
    succession = serving()
    assert succession.reload() == [Start()]
    assert succession.started(12, 101.0) == []
    assert (succession.pids(SERVING), succession.pids(STARTING)) == ([11], [12])
    assert succession.ready(12, 104.0, *TIMEOUTS) == [Drain(11), Say("master 12 serves, and 1 drain", ready=True)]
    assert (succession.pids(SERVING), succession.pids(DRAINING), succession.reloads) == ([12], [11], 1)
    assert succession.exited(11, "exited with status 0", 105.0) == []
    assert succession.pids() == [12]


def test_a_failed_reload_leaves_the_old_master_serving():
    """It says so, and nothing is done to the old one; the next reload is a new try."""
    succession = serving()
    succession.reload()
    succession.started(12, 101.0)
    actions = succession.exited(12, BROKEN, 101.5)
    assert silent(actions) == []
    assert said(actions).text == (
        "the new master 12 exited with status 1 before it was ready: the old one goes on serving"
    )
    assert said(actions).warning
    assert succession.pids() == succession.pids(SERVING) == [11]
    assert succession.next_due() == math.inf
    assert succession.reload() == [Start()]


def test_a_reload_for_which_there_is_no_process():
    """The old one goes on serving, too, and it is said why."""
    succession = serving()
    succession.reload()
    actions = succession.not_spawned("resource temporarily unavailable", 101.0)
    assert silent(actions) == []
    assert "resource temporarily unavailable" in said(actions).text
    assert succession.pids(SERVING) == [11]
    assert succession.reload() == [Start()]


def test_a_first_master_for_which_there_is_no_process():
    """The daemon is over, and says why."""
    succession = Succession()
    succession.begin()
    assert "no such file" in said(succession.not_spawned("no such file", 100.0)).text
    assert succession.failed
    assert succession.is_over


def test_a_reload_asked_for_during_a_reload_is_not_lost():
    """However often: one more follows the one that is under way, which may have read what has changed since."""
    succession = serving()
    succession.reload()
    assert succession.reload() == []  # not even before the new one has its pid
    succession.started(12, 101.0)
    assert succession.reload() == succession.reload() == []
    actions = succession.ready(12, 102.0, *TIMEOUTS)
    assert silent(actions) == [Drain(11), Start()]
    succession.started(13, 102.0)
    assert silent(succession.ready(13, 103.0, *TIMEOUTS)) == [Drain(12)]


def test_a_reload_asked_for_during_a_reload_that_fails_is_not_lost():
    """What was broken may have been mended meanwhile."""
    succession = serving()
    succession.reload()
    succession.started(12, 101.0)
    succession.reload()
    assert silent(succession.exited(12, BROKEN, 102.0)) == [Start()]
    succession.started(13, 102.0)
    assert silent(succession.exited(13, BROKEN, 103.0)) == []


def test_a_reload_asked_for_while_the_first_master_starts_is_not_lost():
    """It follows when that one serves."""
    succession = Succession()
    succession.begin()
    succession.started(11, 100.0)
    assert succession.reload() == []
    assert silent(succession.ready(11, 101.0, *TIMEOUTS)) == [Start()]


def test_a_master_that_dies_is_replaced_at_once():
    """The daemon says how it ended."""
    succession = serving()
    assert succession.exited(11, KILLED, 200.0) == [
        Say("master 11 was ended by SIGKILL; another is started in 0 s", warning=True),
        Start(),
    ]


def test_masters_that_die_again_and_again_are_replaced_with_pauses():
    """At once, then after pauses that double up to the longest; one that has served for a while makes all good."""
    succession = serving()
    now, pauses = 100.0, []
    for pid in range(11, 23):
        now += SHORT_LIFE / 2
        actions = silent(succession.exited(pid, KILLED, now))
        due = succession.next_due()
        pauses.append(0.0 if due == math.inf else due - now)
        if actions != [Start()]:
            assert succession.tick(due - 0.001) == []
            now = due
            assert succession.tick(now) == [Start()]
        succession.started(pid + 1, now)
        succession.ready(pid + 1, now, *TIMEOUTS)
    assert pauses[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE
    assert Start() in succession.exited(23, KILLED, now + 2 * SHORT_LIFE)


def test_a_master_that_never_gets_ready_again_is_tried_for_ever():
    """Days of it break nothing, and the pause stays the longest."""
    succession = serving()
    now = 200.0
    actions = succession.exited(11, KILLED, now)
    for pid in range(12, 3000):
        if Start() not in actions:
            now = succession.next_due()
            actions = succession.tick(now)
        assert silent(actions) == [Start()]
        succession.started(pid, now)
        actions = succession.exited(pid, BROKEN, now)
    assert succession.next_due() - now == LONGEST_PAUSE


def test_a_reload_does_not_wait_for_a_pause():
    """The operator has mended what was broken, and one master is started, not two."""
    succession = serving()
    succession.exited(11, KILLED, 100.1)
    succession.started(12, 100.1)
    succession.exited(12, BROKEN, 100.2)
    due = succession.next_due()
    assert due < math.inf
    assert succession.reload() == [Start()]
    succession.started(13, 100.3)
    assert succession.tick(due) == []


def test_a_reload_asked_for_during_a_try_does_not_wait_for_a_pause():
    """When that fails, the next try follows at once: what was broken may have been mended meanwhile."""
    succession = serving()
    succession.exited(11, KILLED, 100.1)
    succession.started(12, 100.1)
    assert succession.reload() == []
    assert Start() in succession.exited(12, BROKEN, 100.2)
    succession.started(13, 100.2)
    assert Start() not in succession.exited(13, BROKEN, 100.3)  # nobody has asked meanwhile


def test_a_master_that_dies_during_a_reload_is_not_replaced_twice():
    """The new one is on its way; if that fails, too, another is started."""
    succession = serving()
    succession.reload()
    succession.started(12, 110.0)
    assert silent(succession.exited(11, KILLED, 111.0)) == []
    assert Start() in succession.exited(12, BROKEN, 112.0)


def test_stop_lets_a_serving_master_drain():
    """SIGTERM for it; when it is gone, the daemon is over."""
    succession = serving()
    assert succession.stop(110.0, at_once=False) == [Drain(11)]
    assert succession.stop(110.1, at_once=False) == []
    assert not succession.is_over
    assert succession.exited(11, "exited with status 0", 111.0) == []
    assert succession.is_over


def test_stop_at_once():
    """SIGQUIT for who serves and who drains, SIGKILL for who loads the application."""
    succession = serving()
    succession.reload()
    succession.started(12, 101.0)
    succession.ready(12, 102.0, *TIMEOUTS)
    succession.reload()
    succession.started(13, 103.0)
    assert succession.stop(104.0, at_once=True) == [Quit(11), Quit(12), Quit(13, at_once=True)]


def test_stop_at_once_after_a_patient_stop():
    """Who drains is told to stop at once."""
    succession = serving()
    succession.stop(110.0, at_once=False)
    assert succession.stop(111.0, at_once=True) == [Quit(11)]


def test_a_patient_stop_after_stop_at_once():
    """It gives no more time."""
    succession = serving()
    succession.stop(110.0, at_once=True)
    due = succession.next_due()
    assert succession.stop(111.0, at_once=False) == []
    assert succession.next_due() == due


def test_stop_while_a_master_is_about_to_start():
    """It is killed as soon as it has a pid, and the daemon is not over before."""
    succession = Succession()
    succession.begin()
    succession.stop(100.0, at_once=False)
    assert not succession.is_over
    assert succession.started(11, 100.1) == [Quit(11, at_once=True)]
    assert not succession.is_over
    succession.exited(11, KILLED, 100.2)
    assert succession.is_over
    assert not succession.failed


def test_stop_during_a_pause():
    """No master is started any more."""
    succession = serving()
    succession.exited(11, KILLED, 100.1)
    succession.started(12, 100.1)
    succession.exited(12, BROKEN, 100.2)
    due = succession.next_due()
    assert succession.stop(100.3, at_once=False) == []
    assert succession.is_over
    assert succession.tick(due) == []


def test_a_master_that_gets_ready_after_stop_does_not_serve():
    """It is told to drain; nothing is announced."""
    succession = serving()
    succession.reload()
    succession.started(12, 101.0)
    succession.stop(102.0, at_once=False)
    assert succession.ready(12, 102.1, *TIMEOUTS) == [Drain(12)]
    assert succession.pids(SERVING) == []
    assert succession.reload() == []


def test_a_master_that_does_not_drain_is_killed():
    """When its patience and a while more have passed, and again until it is gone."""
    succession = serving()
    succession.stop(100.0, at_once=False)
    due = succession.next_due()
    assert due == 100.0 + PATIENCE + KILL_AFTER
    assert succession.tick(due - 0.1) == []
    assert succession.tick(due) == [Kill(11)]
    assert succession.tick(due + 0.1) == []
    assert succession.tick(succession.next_due()) == [Kill(11)]
    succession.exited(11, KILLED, due + 1)
    assert succession.is_over


def test_a_master_that_does_not_stop_at_once_is_killed():
    """It gets the time that its workers get, and a while more; not the time for checkouts to end."""
    succession = serving()
    succession.stop(100.0, at_once=True)
    due = succession.next_due()
    assert due == 100.0 + STOP_TIMEOUT + KILL_AFTER
    assert succession.tick(due) == [Kill(11)]


def test_each_master_has_the_time_of_its_own_configuration():
    """Which may be another after a reload; the old master drains by the old one."""
    succession = serving()
    succession.reload()
    succession.started(12, 101.0)
    succession.ready(12, 102.0, 600.0, 60.0)
    assert succession.next_due() == 102.0 + PATIENCE + KILL_AFTER
    succession.exited(11, "exited with status 0", 103.0)
    succession.stop(104.0, at_once=False)
    assert succession.next_due() == 104.0 + 660.0 + KILL_AFTER
    succession.stop(105.0, at_once=True)
    assert succession.next_due() == 105.0 + 60.0 + KILL_AFTER


def test_words_and_ends_of_strangers():
    """A process that is no master, or is none any more, changes nothing."""
    succession = serving()
    assert succession.exited(99, KILLED, 101.0) == []
    assert succession.ready(99, 101.0, *TIMEOUTS) == []
    assert succession.ready(11, 101.0, *TIMEOUTS) == []
    assert succession.reloads == 0


class Daemons(RuleBasedStateMachine):
    """Masters start, get ready, die, drain or hang, and signals come, in any order."""

    def __init__(self):
        super().__init__()
        self.now = 100.0
        self.succession = Succession()
        self.next_pid = 11
        self.to_start = 0
        self.told = {}  # of the living: the signals that they got
        self.tries = 0  # masters that were ordered
        self.asked_at = -1  # how many had been when a reload was last asked for
        self.has_served = False
        self.carry_out(self.succession.begin())

    def carry_out(self, actions):
        for action in actions:
            if isinstance(action, Start):
                assert not self.succession.stopping
                self.to_start += 1
                self.tries += 1
            elif not isinstance(action, Say):
                self.told[action.pid].append(type(action))

    def start_one(self):
        self.to_start -= 1
        pid, self.next_pid = self.next_pid, self.next_pid + 1
        self.told[pid] = []
        self.carry_out(self.succession.started(pid, self.now))

    def some(self, data, *states):
        return data.draw(st.sampled_from(self.succession.pids(*states)))

    @precondition(lambda self: self.to_start)
    @rule(works=st.integers(0, 9))
    def start(self, works):
        if works:
            self.start_one()
        else:
            self.to_start -= 1
            self.carry_out(self.succession.not_spawned("out of memory", self.now))

    @precondition(lambda self: self.succession.pids(STARTING))
    @rule(data=st.data())
    def get_ready(self, data):
        pid = self.some(data, STARTING)
        old = self.succession.pids(SERVING)
        self.carry_out(self.succession.ready(pid, self.now, *TIMEOUTS))
        if self.succession.stopping:
            assert self.told[pid]
        else:
            self.has_served = True
            assert self.succession.pids(SERVING) == [pid]
            assert all(Drain in self.told[other] for other in old)

    @precondition(lambda self: self.succession.pids())
    @rule(data=st.data(), how=st.sampled_from([KILLED, BROKEN, "exited with status 0"]))
    def die(self, data, how):
        pid = self.some(data)
        served = self.succession.pids(SERVING)
        del self.told[pid]
        self.carry_out(self.succession.exited(pid, how, self.now))
        assert set(self.succession.pids(SERVING)) == set(served) - {pid}

    @rule()
    def reload(self):
        before, tries = self.succession.pids(SERVING), self.tries
        self.carry_out(self.succession.reload())
        assert self.succession.pids(SERVING) == before
        if not (self.succession.stopping or self.succession.failed):
            self.asked_at = tries

    @rule(at_once=st.booleans())
    def stop(self, at_once):
        self.carry_out(self.succession.stop(self.now, at_once))
        self.asked_at = -1
        if at_once:
            assert all(Quit in told for told in self.told.values())

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 40.0, 500.0]))
    def wait(self, seconds):
        self.now += seconds
        self.carry_out(self.succession.tick(self.now))
        assert self.succession.next_due() > self.now

    @invariant()
    def one_serves_and_one_starts(self):
        succession = self.succession
        assert len(succession.pids(SERVING)) <= 1
        assert len(succession.pids(STARTING)) + self.to_start <= 1
        assert set(succession.pids()) == set(self.told)

    @invariant()
    def who_serves_is_left_alone_and_who_drains_was_told(self):
        for pid in self.succession.pids(SERVING):
            assert self.told[pid] == []
        for pid in self.succession.pids(DRAINING):
            assert self.told[pid]

    @invariant()
    def somebody_serves_or_will(self):
        succession = self.succession
        if not (succession.stopping or succession.failed):
            comes = self.to_start or succession.pids(STARTING) or succession.next_due() < math.inf
            assert succession.pids(SERVING) or comes
        if succession.failed:
            assert not self.has_served

    @invariant()
    def no_reload_is_lost(self):
        """A master was ordered after it was asked for, or one that was ordered before is still on its way."""
        if not self.succession.failed:
            is_on_its_way = self.to_start or self.succession.pids(STARTING) or self.succession.is_put_off
            assert self.tries > self.asked_at or is_on_its_way

    @invariant()
    def whoever_is_to_end_is_watched(self):
        draining = self.succession.pids(DRAINING)
        if draining:
            assert self.succession.next_due() <= self.now + PATIENCE + KILL_AFTER

    @invariant()
    def over_is_over(self):
        succession = self.succession
        if succession.is_over:
            assert not succession.pids()
            assert not self.to_start
            assert succession.next_due() == math.inf

    def teardown(self):
        """After stop, whoever reacts to its signals ends, and nothing comes after."""
        self.carry_out(self.succession.stop(self.now, at_once=False))
        while self.to_start:
            self.start_one()
        for pid in list(self.told):
            assert self.told[pid], "a master was not told to end"
            del self.told[pid]
            self.carry_out(self.succession.exited(pid, "exited with status 0", self.now))
        assert self.succession.is_over


TestDaemons = Daemons.TestCase
TestDaemons.settings = settings(deadline=None, max_examples=examples(1), stateful_step_count=40)
