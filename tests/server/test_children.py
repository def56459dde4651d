"""What the master does to its workers when, and what it says of their deaths."""

from __future__ import annotations

import math
import signal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gtask.server.master.children import GRACE, LAST_GRACE, Children, Signal
from gtask.server.scoreboard import CALL, DECODE, HOOKS, IDLE, SETUP, View
from tests.support.examples import examples

ALARM, ABORT, KILL = signal.SIGALRM, signal.SIGABRT, signal.SIGKILL


def exited(code):
    """The status of a process that exited, as waitpid gives it."""
    return code << 8


class Worker:
    """What a worker's slot would say."""

    def __init__(self, pid, since=100.0, phase=IDLE, method=""):
        self.pid = pid
        self.view = View(since, phase, method)

    def does(self, now, phase, method=""):
        self.view = View(now, phase, method)

    def look(self):
        return self.view


def living(*workers, limit=None, stop_timeout=5.0):
    children = Children(limit, stop_timeout)
    for worker in workers:
        children.forked(worker.pid, 100.0, worker.look)
    return children


def climb(children, pid, now):
    """All that is done to a worker that does not react, as [(seconds, signal, whether to its group)]."""
    done = []
    while children.next_due(now) < math.inf and len(done) < 4:
        at = children.next_due(now)
        for order in children.due(at):
            assert order.pid == pid
            done.append((round(at - 100.0, 3), order.number, order.group))
        now = at
    return done


@pytest.mark.parametrize("phase", [CALL, DECODE, SETUP])
def test_the_ladder_against_a_call_whose_client_hung_up(phase):
    """SIGALRM at once and aimed, SIGABRT after the grace, SIGKILL to the group a second later."""
    worker = Worker(11, phase=phase, method="hash")
    children = living(worker)
    assert children.hung_up(11, 100.0) == [Signal(11, ALARM, aim=100.0)]
    assert children.due(100.0 + GRACE - 0.01) == []
    assert climb(children, 11, 100.0)[:2] == [(GRACE, ABORT, False), (GRACE + LAST_GRACE, KILL, True)]


@pytest.mark.parametrize("phase", [IDLE, HOOKS])
def test_a_worker_between_calls_gets_time_for_its_hooks(phase):
    """A normal close starts no ladder against a worker that closes its database; only after stop_timeout."""
    worker = Worker(11, phase=phase)
    children = living(worker, stop_timeout=5.0)
    assert children.hung_up(11, 100.0) == []
    assert children.due(104.9) == []
    assert children.due(105.0) == [Signal(11, ALARM, aim=100.0)]
    assert children.due(105.0 + GRACE) == [Signal(11, ABORT)]


def test_a_call_that_begins_after_the_hang_up():
    """A request that was unread when its client died is interrupted as soon as the master looks again."""
    worker = Worker(11, phase=IDLE)
    children = living(worker, stop_timeout=5.0)
    assert children.hung_up(11, 100.0) == []
    worker.does(100.01, CALL)
    assert children.due(100.0 + GRACE) == [Signal(11, ALARM, aim=100.01)]
    assert children.due(100.0 + 2 * GRACE) == [Signal(11, ABORT)]


def test_an_interrupted_call_gets_time_for_its_hooks():
    """When the call has ended within the grace, the worker has stop_timeout for checkout_done and teardown."""
    worker = Worker(11, phase=CALL)
    children = living(worker, stop_timeout=5.0)
    children.hung_up(11, 100.0)
    worker.does(100.05, HOOKS)
    assert children.due(100.0 + GRACE) == []
    assert children.due(104.0) == []
    assert [order.number for order in children.due(100.0 + GRACE + 5.0)] == [ALARM]


def test_what_begins_between_two_looks_is_not_interrupted():
    """The signal is aimed at the call that was seen, though the worker is in its hooks by the time it is sent."""
    views = iter([View(100.0, CALL, "hash"), View(100.5, HOOKS, "")])
    children = Children(None, 5.0)
    children.forked(11, 100.0, lambda: next(views))
    assert children.hung_up(11, 100.4) == [Signal(11, ALARM, aim=100.0)]


def test_a_worker_is_put_on_the_ladder_once():
    """A second hang-up, or one of a worker that is gone, changes nothing."""
    worker = Worker(11, phase=CALL)
    children = living(worker)
    assert children.hung_up(11, 100.0)
    assert children.hung_up(11, 100.01) == []
    assert children.hung_up(99, 100.0) == []


@pytest.mark.parametrize("phase", [CALL, DECODE, SETUP, HOOKS])
def test_a_hung_worker_is_found_by_its_start_time(phase):
    """Without any hang-up, what takes longer than hung_worker_timeout is interrupted."""
    worker = Worker(11, since=100.0, phase=phase)
    children = living(worker, limit=300.0)
    assert children.next_due(100.0) == 400.0
    assert children.due(399.9) == []
    assert children.due(400.0) == [Signal(11, ALARM, aim=100.0)]


def test_an_idle_worker_is_never_hung():
    """However long nobody calls it; and the master looks again no sooner than it could be."""
    worker = Worker(11, since=100.0, phase=IDLE)
    children = living(worker, limit=300.0)
    assert children.due(10_000.0) == []
    assert children.next_due(10_000.0) == 10_300.0


def test_a_stopped_master_kills_nobody_healthy():
    """The master was stopped for an hour; a call that began a moment ago is left alone."""
    worker = Worker(11, phase=CALL)
    children = living(worker, limit=300.0)
    worker.does(3699.0, CALL)
    assert children.due(3700.0) == []


def test_without_limit_nothing_is_due():
    """hung_worker_timeout=None: an hour in a call is the client's affair."""
    children = living(Worker(11, phase=CALL))
    assert children.next_due(100.0) == math.inf
    assert children.due(3700.0) == []


def test_stopping_is_a_hang_up_of_all():
    """Calls are interrupted, workers between calls get time for their hooks."""
    busy, idle = Worker(11, phase=CALL), Worker(12)
    children = living(busy, idle)
    assert children.stop(100.0) == [Signal(11, ALARM, aim=100.0)]
    assert children.next_due(100.0) == 100.0 + GRACE


def test_a_death_in_a_call_has_a_line_with_its_cause():
    """The line tells pid, how, in which method, after how long, and why."""
    worker = Worker(11, since=100.0, phase=CALL, method="hash")
    obituary = living(worker).ended(11, signal.SIGSEGV, 102.5)
    assert obituary.line == "worker 11 was ended by SIGSEGV in hash after 2.5 s"
    assert (obituary.signal, obituary.exitcode, obituary.method, obituary.elapsed) == ("SIGSEGV", None, "hash", 2.5)
    assert not obituary.orphans


@pytest.mark.parametrize(
    ("status", "is_interrupted", "cause"),
    [
        (signal.SIGSEGV, False, "SIGSEGV"),
        (7 << 8, False, "exit 7"),
        (0, False, "exit 0"),
        (0, True, "interrupted"),
        (7 << 8, True, "exit 7"),
        (signal.SIGABRT, True, "SIGABRT"),
    ],
)
def test_causes_are_few_words(status, is_interrupted, cause):
    """To count by: a signal or a status, and what could be interrupted is told from what left by itself."""
    children = living(Worker(11, since=99.0, phase=CALL, method="hash"))
    if is_interrupted:
        children.hung_up(11, 100.0)
    assert children.ended(11, status, 100.5).cause == cause


def test_a_worker_on_the_ladder_leaves_orphans():
    """What it leaves behind goes too, and the line says why it was ended."""
    children = living(Worker(11, since=99.0, phase=CALL, method="hash"))
    children.hung_up(11, 100.0)
    obituary = children.ended(11, signal.SIGABRT, 100.5)
    assert obituary.orphans
    assert obituary.line == "worker 11 was ended by SIGABRT in hash after 1.5 s, because its client hung up"


@pytest.mark.parametrize(
    ("phase", "status", "line"),
    [
        (IDLE, exited(0), ""),
        (HOOKS, exited(0), ""),
        (CALL, exited(0), "worker 11 exited with status 0 in a call after 1 s"),
        (IDLE, exited(7), "worker 11 exited with status 7 waiting for its client after 1 s"),
        (SETUP, signal.SIGKILL, "worker 11 was ended by SIGKILL in setup after 1 s"),
        (HOOKS, exited(1), "worker 11 exited with status 1 in checkout_done or teardown after 1 s"),
        (IDLE, 40, "worker 11 was ended by signal 40 waiting for its client after 1 s"),
    ],
)
def test_lines(phase, status, line):
    """An orderly end has no line; any other has one that reads like a sentence."""
    assert living(Worker(11, phase=phase)).ended(11, status, 101.0).line == line


def test_a_process_that_is_no_worker():
    """A child of the application's is reaped without a word."""
    assert living().ended(99, exited(1), 100.0) is None


class Histories(RuleBasedStateMachine):
    """Workers come, call, hang, are hung up on and die in any order."""

    def __init__(self):
        super().__init__()
        self.now = 100.0
        self.children = Children(300.0, 5.0)
        self.workers = {}
        self.rungs = {}

    def carry_out(self, orders):
        for order in orders:
            worker = self.workers[order.pid]
            rungs = self.rungs.setdefault(order.pid, [])
            if order.number == ALARM:
                assert order.aim == worker.view.since
            if order.number == ABORT:
                assert rungs[-1] == ALARM
            if order.number == KILL:
                assert rungs[-1] in (ABORT, KILL)
            rungs.append(order.number)

    @rule()
    def fork(self):
        worker = Worker(len(self.rungs) + len(self.workers) + 1000, since=self.now)
        while worker.pid in self.workers or worker.pid in self.rungs:
            worker.pid += 1
        self.workers[worker.pid] = worker
        self.children.forked(worker.pid, self.now, worker.look)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), phase=st.sampled_from([IDLE, CALL, HOOKS]))
    def change(self, data, phase):
        self.workers[data.draw(st.sampled_from(sorted(self.workers)))].does(self.now, phase)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def hang_up(self, data):
        self.carry_out(self.children.hung_up(data.draw(st.sampled_from(sorted(self.workers))), self.now))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), status=st.sampled_from([0, 256, 9, 6]))
    def die(self, data, status):
        pid = data.draw(st.sampled_from(sorted(self.workers)))
        obituary = self.children.ended(pid, status, self.now)
        assert obituary.orphans or pid not in self.rungs
        assert obituary.line or not status
        del self.workers[pid]

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 5.0, 400.0]))
    def wait(self, seconds):
        self.now += seconds
        self.carry_out(self.children.due(self.now))

    @invariant()
    def the_living_are_counted_and_watched(self):
        assert self.children.next_due(self.now) == math.inf or self.workers
        assert len(self.children) == len(self.workers)


TestHistories = Histories.TestCase
TestHistories.settings = settings(deadline=None, max_examples=examples(0.5), stateful_step_count=40)
