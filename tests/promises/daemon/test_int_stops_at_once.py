"""The point of this test is to ensure that SIGINT and SIGQUIT stop the daemon at once: nobody is waited for."""

import os
import signal
import time

import pytest

import gtask
from tests.support.daemon import APPLICATION, daemons, write
from tests.support.process import is_gone, processes, sockets
from tests.support.waiting import SOON, wait_until

AT_ONCE = [signal.SIGINT, signal.SIGQUIT]


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(*arguments)`` starts a daemon in tmp_path that ends with the test; it would drain for five minutes."""
    with daemons(tmp_path) as start:
        yield lambda *arguments, **options: start("--graceful-timeout", "300", *arguments, **options)


def assert_ends(daemon, number, status=0):
    """It ends with this status, long before graceful-timeout, and leaves nothing."""
    begun = time.monotonic()
    assert daemon.end(number) == status
    assert time.monotonic() - begun < SOON
    assert processes(daemon.directory) == []
    assert not list(daemon.directory.glob("server.sock*"))


@pytest.mark.parametrize("number", AT_ONCE)
def test_running_calls_are_interrupted(start, connect, tmp_path, number):
    """Held checkouts end, too; their callers are told, and the log names no failure of the daemon's."""
    daemon = start()
    client = connect(daemon)
    busy, held = client.checkout(), client.checkout()
    pids = [busy.pid(), held.pid()]
    os.mkfifo(tmp_path / "gate")
    running = busy.wait_for.submit(str(tmp_path / "gate"))
    with open(tmp_path / "gate", "w"):  # opens when the call has begun
        assert_ends(daemon, number)
    with pytest.raises(gtask.Error):
        running.get()
    with pytest.raises(gtask.WorkerDied):
        held.pid()
    assert all(map(is_gone, pids))
    assert "Traceback" not in daemon.log


def test_a_call_that_cannot_be_interrupted_is_killed(start, connect, tmp_path):
    """By the ladder: SIGABRT, which leaves its stacks, for a loop in C; what it has started goes with it."""
    more = """
import itertools
import subprocess

def mark(path):
    child = subprocess.Popen(["sleep", "60"])
    with open(path, "w") as mark:
        mark.write(str(child.pid))
    yield 0

def loop(path):
    -1 in itertools.chain(mark(path), itertools.count())
"""
    write(tmp_path, APPLICATION + more)
    daemon = start()
    worker = connect(daemon).checkout()
    assert worker.pid()
    os.mkfifo(tmp_path / "mark")
    running = worker.loop.submit(str(tmp_path / "mark"))
    with open(tmp_path / "mark") as mark:
        child = int(mark.read())
    assert_ends(daemon, signal.SIGINT)
    with pytest.raises(gtask.CallTimeout, match="because the server stopped") as caught:
        running.get()
    assert "in loop" in caught.value.stacks
    assert "was ended by SIGABRT in loop" in daemon.log
    wait_until(lambda: is_gone(child), what="the end of the grandchild")


@pytest.mark.parametrize("number", [*AT_ONCE, signal.SIGTERM])
def test_a_daemon_that_starts_is_stopped(start, tmp_path, number):
    """Whatever the application does while it is loaded."""
    write(tmp_path, "import time\nopen('begun', 'w').close()\ntime.sleep(60)\n")
    daemon = start(wait=False)
    wait_until((tmp_path / "begun").exists)
    assert_ends(daemon, number)
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize("number", AT_ONCE)
def test_a_daemon_that_drains_is_hurried(start, connect, number):
    """SIGINT after SIGTERM does not wait any longer."""
    daemon = start()
    with connect(daemon).checkout() as worker:
        pid = worker.pid()
        daemon.send(signal.SIGTERM)
        wait_until(lambda: not sockets(daemon.serving) & sockets(daemon.pid), "the drain")
        assert worker.pid() == pid
        assert_ends(daemon, number)
    assert is_gone(pid)


def test_an_old_master_that_drains_is_stopped_too(start, connect):
    """After a reload there are two masters; both go."""
    daemon = start()
    with connect(daemon).checkout() as worker:
        pid, master = worker.pid(), daemon.serving
        daemon.reload()
        assert worker.master() == master != daemon.serving
        assert_ends(daemon, signal.SIGINT)
        assert is_gone(pid)
        assert is_gone(master)
