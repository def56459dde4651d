"""The point of this test is to ensure that a worker is replaced when max_lifetime is over, but never in a checkout.

Workers that began together end at different times: each lives max_lifetime, or up to a tenth less.
"""

import os
import time

import pytest

from gtask.client import in_line
from gtask.client.loop import Loop
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""


class Clock:
    """The pool's clock, which can be put forward."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch):
    """The clock of the pool and of its line is put forward by adding to ``clock.ahead``."""
    clock = Clock()
    monkeypatch.setattr(Loop, "clock", staticmethod(clock))
    monkeypatch.setattr(in_line, "monotonic", clock)
    return clock


def lend(client, number):
    """So many checkouts, each with its worker, and their pids."""
    checkouts = [client.checkout() for _ in range(number)]
    return checkouts, [checkout.pid() for checkout in checkouts]


def give_back(checkouts):
    for checkout in checkouts:
        checkout.release()


def retired(client):
    return client.stats().retirements.get("max_lifetime", 0)


def wait_for_end(*pids):
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="the end of the workers")


def test_a_checkout_is_never_cut_short(shared, connect, clock):
    """It has its worker to its end, a hundred lifetimes later; then that worker goes, and the next one is new."""
    client = connect(shared(SOURCE), max_workers=1, max_lifetime=1000)
    with client.checkout() as worker:
        pid = worker.pid()
        clock.ahead += 100_000
        client.open()
        following = client.checkout()
        turn_hub()
        assert [worker.pid(), worker.pid()] == [pid] * 2
        assert retired(client) == 0
    assert retired(client) == 1
    assert following.pid() != pid
    wait_for_end(pid)


def test_a_lifetime_that_ends_in_a_checkout(shared, connect):
    """The same with the real clock: the alarm for idle workers goes off beside it, and does it no harm."""
    client = connect(shared(SOURCE), max_lifetime=0.1)
    (held, idle), (pid, _) = lend(client, 2)
    idle.release()
    wait_until(lambda: retired(client) == 1, what="the end of the idle one")
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        assert held.pid() == pid
    held.release()
    assert retired(client) == 2
    wait_for_end(pid)


def test_idle_workers_end_by_themselves(shared, connect):
    """Not before nine tenths of it, and without being asked for."""
    begun = time.monotonic()
    client = connect(shared(SOURCE), max_lifetime=0.3)
    checkouts, pids = lend(client, 3)
    give_back(checkouts)
    wait_until(lambda: retired(client) > 0, what="the end of the first")
    assert time.monotonic() - begun >= 0.9 * 0.3
    wait_until(lambda: retired(client) == 3, what="the end of all")
    assert client.stats().idle == 0
    wait_for_end(*pids)


def test_the_minimum_is_replaced(shared, connect):
    """Generation after generation, before anyone asks."""
    client = connect(shared(SOURCE), min_workers=2, max_workers=2, max_lifetime=0.2)
    client.open(wait=True)
    checkouts, pids = lend(client, 2)
    give_back(checkouts)
    wait_until(lambda: retired(client) >= 4, what="the end of two generations")
    wait_for_end(*pids)
    wait_until(lambda: client.stats().idle == 2, what="the next one")


def test_workers_that_began_together_end_at_different_times(shared, connect, clock):
    """Of twenty none ends before nine tenths, some end in the last tenth and some at its end; none lives longer."""
    client = connect(shared(SOURCE), max_workers=20, max_lifetime=10_000, max_idle=None)
    checkouts, _ = lend(client, 20)
    clock.ahead += 8_900
    give_back(checkouts)
    assert (retired(client), client.stats().idle) == (0, 20)
    checkouts, pids = lend(client, 20)
    clock.ahead += 600  # halfway through the last tenth
    give_back(checkouts)
    halfway = retired(client)
    assert 0 < halfway < 20
    checkouts, rest = lend(client, 20 - halfway)
    assert set(rest) < set(pids)
    clock.ahead += 600
    give_back(checkouts)
    assert retired(client) == 20


def test_by_default_there_is_no_limit(shared, connect, clock):
    """Ten years, one worker."""
    client = connect(shared(SOURCE), max_workers=1, max_idle=None)
    pid = client.call("pid")
    clock.ahead += 10 * 365 * 86400
    with client.checkout() as worker:
        assert worker.pid() == pid
    assert client.call("pid") == pid
