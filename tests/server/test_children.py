"""What the master does to its workers, and what it says of their deaths."""

from __future__ import annotations

import math
import os
import signal

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gtask.server.children import Children, Signal


def exited(code):
    """The status of a process that exited, as waitpid gives it."""
    return code << 8


def killed(number, core=False):
    """The status of a process that a signal ended, as waitpid gives it."""
    return number | (0x80 if core else 0)


def living(*pids, stop_timeout=5.0, now=100.0):
    children = Children(stop_timeout)
    for pid in pids:
        children.forked(pid, now)
    return children


def test_it_counts_the_living():
    """Forked ones are in, reaped ones out; a server without workers has nothing due."""
    children = living(11, 12)
    assert len(children) == 2
    children.ended(11, exited(0), 101.0)
    assert len(children) == 1
    children.ended(12, exited(1), 101.0)
    assert not len(children)


def test_while_the_server_runs_nothing_is_done_to_workers():
    """They come and go by themselves."""
    children = living(11, 12)
    assert children.due(1e9) == []
    assert children.next_due() == math.inf


def test_to_stop_is_sigterm_and_later_sigkill():
    """SIGTERM to all at once; SIGKILL to those who still live when the time is over, and not before."""
    children = living(11, 12, 13, stop_timeout=5.0)
    assert children.stop(200.0) == [Signal(pid, signal.SIGTERM) for pid in (11, 12, 13)]
    assert children.next_due() == 205.0
    assert children.due(204.9) == []
    children.ended(12, killed(signal.SIGTERM), 203.0)
    assert children.due(205.0) == [Signal(pid, signal.SIGKILL) for pid in (11, 13)]


def test_a_worker_that_does_not_die_of_sigkill_at_once_does_not_make_the_master_spin():
    """When all that was due is done, the next thing that is due lies ahead, or never comes."""
    children = living(11, stop_timeout=5.0)
    children.stop(200.0)
    children.due(205.0)
    assert children.next_due() > 205.0


def test_without_workers_nothing_is_due():
    """A server that stops and has no worker left need not wait for anything."""
    children = living(11)
    children.stop(200.0)
    children.ended(11, exited(0), 201.0)
    assert children.next_due() == math.inf
    assert children.due(300.0) == []
    assert living().stop(1.0) == []


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (exited(1), "worker 11 exited with status 1 after 2.5 s"),
        (exited(70), "worker 11 exited with status 70 after 2.5 s"),
        (exited(255), "worker 11 exited with status 255 after 2.5 s"),
        (killed(signal.SIGKILL), "worker 11 was killed by SIGKILL after 2.5 s"),
        (killed(signal.SIGSEGV, core=True), "worker 11 was killed by SIGSEGV after 2.5 s"),
        (killed(signal.SIGTERM), "worker 11 was killed by SIGTERM after 2.5 s"),
    ],
)
def test_a_death_has_a_line(status, line):
    """With the process id, the exit status or the signal's name, and the worker's age."""
    assert living(11, now=100.0).ended(11, status, 102.5) == line


def test_every_signal_has_a_line():
    """Also real-time signals, of which Python's enumeration names only the first and the last."""
    names = {known.value: known.name for known in signal.Signals}
    for number in signal.valid_signals():
        line = living(11).ended(11, killed(number), 101.0)
        assert names.get(number, str(int(number))) in line


def test_a_clean_end_says_nothing():
    """Neither an exit with status 0, nor the end of a process that was no worker."""
    children = living(11)
    assert children.ended(11, exited(0), 101.0) == ""
    assert children.ended(99, killed(signal.SIGKILL), 101.0) == ""
    assert len(children) == 0


def test_those_who_were_told_to_go_say_nothing():
    """Once the server stops, deaths are no news."""
    children = living(11, 12)
    children.stop(200.0)
    assert children.ended(11, killed(signal.SIGTERM), 201.0) == ""
    assert children.ended(12, exited(1), 201.0) == ""


def test_the_statuses_above_are_those_of_the_system():
    """What this file calls exited and killed is what the system calls so."""
    assert (os.waitstatus_to_exitcode(exited(7)), os.waitstatus_to_exitcode(killed(9))) == (7, -9)
    assert os.WCOREDUMP(killed(11, core=True))


class Histories(RuleBasedStateMachine):
    """Workers that come and go in any order, before and after the stop, beside a plain set of them."""

    def __init__(self):
        super().__init__()
        self.children = Children(5.0)
        self.living = set()
        self.pids = 0
        self.now = 100.0
        self.stopped_at = None
        self.killed = set()

    @rule()
    @precondition(lambda self: self.stopped_at is None)
    def fork(self):
        self.pids += 1
        self.living.add(self.pids)
        self.children.forked(self.pids, self.now)

    @rule(data=st.data(), status=st.sampled_from([exited(0), exited(3), killed(9), killed(15)]))
    @precondition(lambda self: self.living)
    def end(self, data, status):
        pid = data.draw(st.sampled_from(sorted(self.living)))
        self.living.remove(pid)
        line = self.children.ended(pid, status, self.now)
        assert bool(line) == (status != 0 and self.stopped_at is None)
        assert not line or f"worker {pid} " in line

    @rule()
    @precondition(lambda self: self.stopped_at is None)
    def stop(self):
        self.stopped_at = self.now
        orders = self.children.stop(self.now)
        assert {order.pid for order in orders} == self.living
        assert len(orders) == len(self.living)
        assert {order.number for order in orders} <= {signal.SIGTERM}

    @rule(seconds=st.floats(0.1, 4))
    def wait(self, seconds):
        self.now += seconds
        orders = self.children.due(self.now)
        assert all(order.number == signal.SIGKILL for order in orders)
        self.killed |= {order.pid for order in orders}

    @invariant()
    def it_knows_the_living(self):
        assert len(self.children) == len(self.living)

    @invariant()
    def nobody_is_killed_too_early_or_forgotten(self):
        over = self.stopped_at is not None and self.now >= self.stopped_at + 5.0
        assert self.killed >= self.living if over else not self.killed
        if not self.living or self.stopped_at is None:
            assert self.children.next_due() == math.inf


Histories.TestCase.settings = settings(deadline=None, phases=set(Phase) - {Phase.explain})
TestHistories = Histories.TestCase
TestHistories.__doc__ = """In any history nobody is killed before the time, and nobody is left after it."""
