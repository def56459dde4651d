"""The point of this test is to ensure that a full backlog makes a client wait, cheaply, until the server accepts.

A unix socket whose backlog is full refuses with EAGAIN, and never tells when there is room; the client has pauses of
its own for that. (Row 62 of the table of faults.)
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import gevent
import pytest

import gtask
from tests.support.process import check_that_it_rests
from tests.support.waiting import wait_until

SOURCE = """
import sys, gtask
gtask.Server("unix:" + sys.argv[1], {"echo": lambda value: value}, backlog=1).run()
"""


@pytest.fixture
def jam(tmp_path, unmeasured):
    """``path, resume = jam()`` gives a stopped server whose backlog is full, and what lets it run again."""
    processes, fillers = [], []

    def resume():
        os.kill(processes[0].pid, signal.SIGCONT)
        while fillers:
            fillers.pop().close()

    def start():
        path = f"{tmp_path}/server.sock"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        server = subprocess.Popen([sys.executable, "-c", SOURCE, path], env=environment)
        processes.append(server)
        wait_until(lambda: can_connect(path), what="the server's socket")
        os.kill(server.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{server.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", what="its stop")
        with pytest.raises(BlockingIOError):  # noqa: PT012 - until it is full
            while len(fillers) < 100:
                fillers.append(socket.socket(socket.AF_UNIX))
                fillers[-1].setblocking(False)
                fillers[-1].connect(path)
        return path, resume

    yield start
    for process in processes:
        resume()
        process.terminate()
        assert process.wait(10) == 0


def can_connect(path):
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0


def test_it_waits_cheaply_and_is_served(jam, connect):
    """Ten callers try now and then, and their process rests; they are served as soon as the server accepts."""
    path, resume = jam()
    client = connect(f"unix:{path}", timeout=60)
    callers = [gevent.spawn(client.call, "echo", number) for number in range(10)]
    wait_until(lambda: client.stats().waiting == 10)
    check_that_it_rests(os.getpid())
    wait_until(lambda: client.stats().failed_connects >= 2, "attempts")
    assert client.stats().connects == 0
    assert not any(caller.ready() for caller in callers)
    resume()
    assert [caller.get(timeout=30) for caller in callers] == list(range(10))


def test_who_cannot_wait_is_told_why(jam, connect):
    """In time, with the reason and the address; the next who can wait is served."""
    path, resume = jam()
    client = connect(f"unix:{path}", timeout=0.2)
    with pytest.raises(gtask.AcquireTimeout, match=r"temporarily unavailable|backlog") as caught:
        client.call("echo", 1)
    assert path in str(caught.value)
    with client.checkout(timeout=60) as patient:
        caller = gevent.spawn(patient.echo, 2)
        wait_until(lambda: client.stats().waiting == 1)
        resume()
        assert caller.get(timeout=30) == 2
