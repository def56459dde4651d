"""The point of this test is to ensure that a setup which fails does not make the server fork all the time.

Whoever waits is told at once what setup has raised; the attempts become rare; and when setup works again, so does the
service, by itself. (Row 13 of the table of faults.)
"""

import contextlib
from time import monotonic

import gevent
import pytest

import gtask
from tests.support.waiting import stays, wait_until

SOURCE = """
    import os

    def setup():
        with open(os.path.join(DIR, "setups"), "a") as file:
            file.write(f"{os.getpid()}\\n")
        if not os.path.exists(os.path.join(DIR, "repaired")):
            raise LookupError("no database")

    def pid():
        return os.getpid()
"""

MAX_CONNECTING = 8


def setups(tmp_path):
    return (tmp_path / "setups").read_text().split() if (tmp_path / "setups").exists() else []


def most_setups(seconds):
    """How many there can be: the first attempts go together, then pauses double from 0.01 s, at least, to 0.25 s."""
    count, pause, passed = MAX_CONNECTING, 0.01, 0.0
    while passed + pause <= seconds:
        passed += pause
        pause = min(2 * pause, 0.25)
        count += 1
    return count


def test_stubborn_callers_cause_few_forks(shared, connect, tmp_path):
    """50 callers, of which each tries again as soon as it has failed, without any time-out; then setup works."""
    client = connect(shared(SOURCE), timeout=None, max_workers=50, max_connecting=MAX_CONNECTING)
    told = 0

    def work():
        nonlocal told
        while True:
            with contextlib.suppress(gtask.SetupError):
                return client.call("pid")
            told += 1

    callers = [gevent.spawn(work) for _ in range(50)]
    wait_until(lambda: setups(tmp_path), "the first setup")
    began = monotonic()
    stays(lambda: len(setups(tmp_path)) <= most_setups(monotonic() - began + 0.05), 1)
    wait_until(lambda: told >= 2 * 50, "that everybody was told, and again")
    (tmp_path / "repaired").touch()
    pids = [caller.get() for caller in callers]
    assert {str(pid) for pid in pids} <= set(setups(tmp_path))


def test_each_waiter_has_an_error_of_its_own(shared, connect):
    """At once, with the worker's traceback, although nobody's time is up."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    callers = [gevent.spawn(client.call, "pid") for _ in range(20)]
    errors = []
    for caller in callers:
        with pytest.raises(gtask.SetupError, match="no database") as caught:
            caller.get()
        assert caught.traceback[-1].name == "setup"
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 20
    assert client.stats().acquire_timeouts == 0


def test_min_workers_cause_few_forks_and_heal_by_themselves(shared, connect, tmp_path):
    """Nobody asks; the pool tries now and then, and has its workers when setup works."""
    client = connect(shared(SOURCE), min_workers=3)
    client.open()
    wait_until(lambda: setups(tmp_path), "the first setup")
    began = monotonic()
    stays(lambda: len(setups(tmp_path)) <= most_setups(monotonic() - began + 0.05), 1)
    wait_until(lambda: len(setups(tmp_path)) >= 2, "another attempt")
    (tmp_path / "repaired").touch()
    wait_until(lambda: client.stats().idle == 3, what="three workers")
    assert client.stats().failed_connects >= 3
    assert str(client.call("pid")) in setups(tmp_path)


def test_healthy_workers_go_on(shared, connect, tmp_path):
    """Setup begins to fail: who has a worker keeps it, and who waits for a new one is told."""
    (tmp_path / "repaired").touch()
    client = connect(shared(SOURCE), max_workers=2)
    with client.checkout() as healthy:
        pid = healthy.pid()
        (tmp_path / "repaired").unlink()
        with pytest.raises(gtask.SetupError):
            client.call("pid")
        assert healthy.pid() == pid
    assert client.call("pid") == pid
