"""The point of this test is to ensure that however many signals come, the daemon ends up in one clean state.

Row 51 of the table of faults: TERM or HUP 50 times while it starts and later. It either serves, with one master, or it
is gone, with all that it made.
"""

import os
import random
import signal
import time

import gevent
import pytest

from tests.support.daemon import APPLICATION, daemons, write
from tests.support.process import children, processes
from tests.support.waiting import wait_until


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(*arguments)`` starts a daemon in tmp_path that ends with the test."""
    with daemons(tmp_path) as start:
        yield lambda *arguments, **options: start("--pid", "pid", *arguments, **options)


def assert_gone(daemon, statuses=(0,)):
    """It has ended, and there is no process, socket, lock or pid file."""
    assert daemon.wait() in statuses, daemon.log
    assert processes(daemon.directory) == []
    assert not [*daemon.directory.glob("server.sock*"), *daemon.directory.glob("pid")]
    assert "Traceback" not in daemon.log


def assert_serves(daemon, connect):
    """It serves with one master, and there is nobody else."""
    wait_until(lambda: children(daemon.pid) == [daemon.serving], "one master")
    assert connect(daemon).call("master") == daemon.serving
    assert daemon.process.poll() is None
    assert set(processes(daemon.directory)) >= {daemon.pid, daemon.serving}
    assert "Traceback" not in daemon.log


def storm(daemon, numbers, pause=0.001):
    """Send it all these signals, as long as it is there."""
    for number in numbers:
        if daemon.process.poll() is not None:
            return
        daemon.send(number)
        gevent.sleep(pause)


def it_listens(daemon):
    """It has its socket; its first master is only about to start."""
    wait_until((daemon.directory / "server.sock").exists)


def test_term_while_it_starts(start):
    """Fifty times, from the very moment at which there is something to be left behind."""
    for _ in range(3):
        daemon = start(wait=False)
        while not os.path.exists(daemon.directory / "pid"):
            assert daemon.process.poll() is None
        storm(daemon, [signal.SIGTERM] * 50)
        assert_gone(daemon)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_from_the_first_moment(start, connect, number):
    """At any time of its start: it is gone, or it serves. Python may still be starting, and be ended by the signal."""
    for _ in range(6):
        daemon = start(wait=False)
        time.sleep(random.random() * 0.1)
        daemon.send(number)
        if number == signal.SIGHUP:
            wait_until(lambda daemon=daemon: "serves" in daemon.log or daemon.process.poll() is not None)
        else:
            daemon.wait()
        if daemon.process.poll() is None:
            assert_serves(daemon, connect)
            assert daemon.end() == 0
        else:
            assert daemon.process.returncode in (0, -number), daemon.log
        assert processes(daemon.directory) == []
        assert not [*daemon.directory.glob("server.sock"), *daemon.directory.glob("pid")]


def test_hup_while_it_starts(start, connect, tmp_path):
    """Fifty times: it serves, with the code as it was at the last of them."""
    daemon = start(wait=False)
    it_listens(daemon)
    storm(daemon, [signal.SIGHUP] * 49)
    write(tmp_path, VERSION=2)
    daemon.send(signal.SIGHUP)
    wait_until(lambda: connect(daemon).call("version") == 2, "the last version")
    assert_serves(daemon, connect)


def test_hup_later(start, connect, tmp_path):
    """Fifty reloads asked for within a moment are a few, one after the other; a held checkout is not disturbed."""
    daemon = start()
    with connect(daemon).checkout() as worker:
        pid = worker.pid()
        storm(daemon, [signal.SIGHUP] * 50)
        write(tmp_path, VERSION=2)
        daemon.send(signal.SIGHUP)
        wait_until(lambda: connect(daemon).call("version") == 2, "the last version")
        assert 2 <= daemon.log.count("serves") <= 52
        assert worker.pid() == pid
    assert_serves(daemon, connect)


def test_term_until_the_very_end(start):
    """Also while it cleans up: the status is 0, and nothing stays."""
    for _ in range(3):
        daemon = start()
        while daemon.process.poll() is None:
            daemon.send(signal.SIGTERM)
            time.sleep(0.0002)
        assert_gone(daemon)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_term_and_hup_in_turn(start, first):
    """Whichever comes first, it ends."""
    daemon = start()
    second = signal.SIGHUP if first == signal.SIGTERM else signal.SIGTERM
    storm(daemon, [first, second] * 25)
    assert_gone(daemon)
    if first == signal.SIGTERM:
        assert "reloads" not in daemon.log


ALL = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGWINCH] * 4


def test_twenty_signals_at_once(start, connect):
    """They all lie there when it looks: one reload, one state, and whoever holds a checkout keeps it."""
    daemon = start("--log-file", "daemon.log", wait=False)
    wait_until(lambda: daemon.directory.joinpath("daemon.log").exists())
    daemon._log = daemon.directory / "daemon.log"
    daemon.wait_for(" serves")
    with connect(daemon).checkout() as worker:
        pid = worker.pid()
        daemon.send(signal.SIGSTOP)
        for number in ALL:
            daemon.send(number)
        daemon.send(signal.SIGCONT)
        daemon.wait_for(" serves", 2)
        assert worker.pid() == pid
    assert_serves(daemon, connect)
    assert daemon.log.count("serves") == 2
    assert daemon.log.count("0 reloads; workers: 1 ") == 1
    assert daemon.end() == 0


@pytest.mark.parametrize("last", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_twenty_signals_at_once_and_one_that_ends_it(start, connect, last):
    """The end wins, whatever else was asked for."""
    daemon = start()
    assert connect(daemon).call("pid")
    daemon.send(signal.SIGSTOP)
    for number in [*ALL[:10], last, *ALL[10:]]:
        daemon.send(number)
    daemon.send(signal.SIGCONT)
    assert_gone(daemon)
    assert daemon.log.count("serves") == 1


def test_masters_that_fail_in_a_storm(start, connect, tmp_path):
    """Reloads onto code that is now broken, now sound, and at last sound, end with the last code."""
    daemon = start()
    for version in range(10):
        write(tmp_path, APPLICATION + ("\n1 / 0\n" if version % 2 else ""), VERSION=version)
        daemon.send(signal.SIGHUP)
        gevent.sleep(0.02)  # the pace of the storm
    write(tmp_path, VERSION=10)
    daemon.send(signal.SIGHUP)
    wait_until(lambda: connect(daemon).call("version") == 10, "the last version")
    wait_until(lambda: children(daemon.pid) == [daemon.serving], "one master")


def test_a_storm_of_all_kinds_at_random(start, connect):
    """Everything but an end, in any order and at any time, leaves it serving."""
    daemon = start()
    client = connect(daemon)
    numbers = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGPIPE]
    for _ in range(60):
        daemon.send(random.choice(numbers))
        if random.random() < 0.2:
            assert client.call("pid")
    assert os.path.exists(f"/proc/{daemon.pid}")
    assert connect(daemon).call("pid")
    assert daemon.end() == 0
