"""The point of this test is to ensure that SIGTERM lets what is under way end, then ends all, soon and completely.

Row 48 of the table of faults: checkouts that are held finish; those that do not within graceful-timeout are ended by
the ladder.
"""

import os
import signal
import time
import traceback

import pytest

import gtask
from tests.support.daemon import APPLICATION, daemons, write
from tests.support.process import is_gone, processes
from tests.support.waiting import SOON, stays, turn_hub, wait_until


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(*arguments)`` starts a daemon in tmp_path that ends with the test."""
    with daemons(tmp_path) as start:
        yield start


def is_served(daemon):
    """Whether somebody who comes now gets a worker."""
    with gtask.Client(daemon.address, min_workers=0, timeout=0.5) as client:
        try:
            return client.call("pid")
        except gtask.AcquireTimeout:
            return False


def nothing_left(directory):
    """No process, no socket, no lock."""
    return processes(directory) == [] and not list(directory.glob("server.sock*"))


def test_a_held_checkout_finishes(start, connect, tmp_path):
    """Its calls go on to be served by the same worker; then the daemon ends with status 0, and leaves nothing."""
    daemon = start()
    with connect(daemon).checkout() as worker:
        pid = worker.pid()
        daemon.send(signal.SIGTERM)
        wait_until(lambda: os.path.exists(f"/proc/{daemon.pid}") and worker.pid() == pid)
        stays(lambda: worker.pid() == pid and daemon.process.poll() is None, 0.1)
    assert daemon.wait() == 0
    assert is_gone(pid)
    assert nothing_left(tmp_path)


def test_a_running_call_finishes(start, connect, tmp_path):
    """Its caller gets the value."""
    daemon = start()
    os.mkfifo(tmp_path / "gate")
    worker = connect(daemon).checkout()
    assert worker.pid()
    running = worker.wait_for.submit(str(tmp_path / "gate"))
    with open(tmp_path / "gate", "w") as gate:  # opens when the call has begun
        daemon.send(signal.SIGTERM)
        wait_until(lambda: not is_served(daemon), what="a master that accepts no more")
        gate.write("finished")
    assert running.get() == "finished"
    worker.release()
    assert daemon.wait() == 0
    assert nothing_left(tmp_path)


def test_graceful_timeout_then_the_ladder(start, connect, tmp_path):
    """Calls that do not end are interrupted at the very line, stubborn ones are killed; the log says so."""
    stubborn = """
def stubborn():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
    write(tmp_path, APPLICATION + stubborn)
    daemon = start("--graceful-timeout", "0.3")
    client = connect(daemon)
    one, two, idle = (client.checkout() for _ in range(3))
    pids = [worker.pid() for worker in (one, two, idle)]
    running = [one.sleep.submit(), two.stubborn.submit()]
    turn_hub()
    begun = time.monotonic()
    daemon.send(signal.SIGTERM)
    daemon.wait_for("stops the checkouts that have not ended within 0.3 s")
    assert time.monotonic() - begun >= 0.3
    with pytest.raises(gtask.Error) as interrupted:
        running[0].get()
    assert "time.sleep(seconds)" in "".join(traceback.format_exception(interrupted.value))
    with pytest.raises(gtask.CallTimeout, match="because the server stopped") as died:
        running[1].get()
    assert "in stubborn" in died.value.stacks
    assert daemon.wait() == 0
    assert all(map(is_gone, pids))
    assert nothing_left(tmp_path)
    assert "was ended by SIGABRT in stubborn" in daemon.log


def test_it_waits_for_every_child(start, connect, tmp_path):
    """Also for workers that are busy with their hooks."""
    os.mkfifo(tmp_path / "gate")
    hook = f"""
def teardown():
    open({str(tmp_path / "begun")!r}, "w").close()
    with open({str(tmp_path / "gate")!r}) as gate:
        gate.read()
    open({str(tmp_path / "done")!r}, "w").close()
"""
    write(tmp_path, APPLICATION + hook)
    daemon = start()
    assert connect(daemon).call("pid")
    daemon.send(signal.SIGTERM)
    wait_until((tmp_path / "begun").exists)
    with open(tmp_path / "gate", "w"):
        stays(lambda: daemon.process.poll() is None, 0.05)
    assert daemon.wait() == 0
    assert (tmp_path / "done").exists()
    assert nothing_left(tmp_path)


def test_with_idle_workers_it_is_gone_in_a_moment(unmeasured, start, connect, tmp_path):
    """From SIGTERM to completely gone, long before graceful-timeout, and no worker has to be stopped."""
    daemon = start("--graceful-timeout", "300")
    client = connect(daemon)
    workers = [client.checkout() for _ in range(3)]
    pids = [worker.pid() for worker in workers]
    for worker in workers:
        worker.release()
    begun = time.monotonic()
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert time.monotonic() - begun < SOON
    assert all(map(is_gone, pids))
    assert nothing_left(tmp_path)
    assert "stops the checkouts" not in daemon.log
    assert "was ended by" not in daemon.log
