"""The point of this test is to ensure that no more than max_connecting workers are on their way at a time.

And that attempts which fail are made one at a time, and less and less often.
"""

import os
import signal
from time import monotonic

import gevent
import gevent.server
import gevent.socket
import pytest

from gtask.wire.frames import Encoder
from gtask.wire.messages import Greeting
from tests.support.waiting import stays, wait_until

GREETING = Encoder().encode(Greeting(pid=os.getpid(), name="fake"))

FIRST, LONGEST = 0.01, 0.25
"""Seconds that the first pause lasts at least, and that later ones do; each is twice as long as the one before."""


class Fake:
    """A server in this process. What it does with a connection is given; it notes when each came.

    Attributes:
        came: the times at which the connections came.
        silent: those that have not been greeted.
        most: how many of them there were at most.
    """

    def __init__(self, path, handle):
        self.address = f"unix:{path}"
        self.came = []
        self.silent = []
        self.greeted = []
        self.most = 0
        self._handle = handle
        listener = gevent.socket.socket(gevent.socket.AF_UNIX)
        listener.bind(path)
        listener.listen(100)
        self._server = gevent.server.StreamServer(listener, self._serve)
        self._server.start()

    def _serve(self, sock, _):
        self.came.append(monotonic())
        self.silent.append(sock)
        self.most = max(self.most, len(self.silent))
        self._handle(self, sock)

    def greet(self, sock):
        self.silent.remove(sock)
        self.greeted.append(sock)
        sock.sendall(GREETING)

    def stop(self):
        self._server.stop()
        for sock in self.silent + self.greeted:
            sock.close()


def keep(fake, sock):
    """Neither greet nor hang up: wait for the test. The server closes the original when this ends."""
    fake.silent[fake.silent.index(sock)] = sock.dup()


def hang_up(fake, sock):
    """Accept and close."""
    fake.silent.remove(sock)


def greet_and_hang_up(fake, sock):
    """As a worker that dies as soon as it is there."""
    fake.silent.remove(sock)
    sock.sendall(GREETING)


@pytest.fixture
def fake(tmp_path):
    """``fake(handle)`` starts a server."""
    fakes = []

    def start(handle):
        fakes.append(Fake(f"{tmp_path}/fake.sock", handle))
        return fakes[-1]

    yield start
    for server in fakes:
        server.stop()


def most_attempts(seconds, at_once):
    """How many there can be in so many seconds, if pauses grow as they should."""
    count, pause, passed = at_once, FIRST, 0.0
    while passed + pause <= seconds:
        passed += pause
        pause = min(2 * pause, LONGEST)
        count += 1
    return count


def test_no_more_at_a_time(fake, connect):
    """20 wait; three attempts are under way; as each worker comes, the next is sent for, until all are served."""
    server = fake(keep)
    client = connect(server, max_workers=20, max_connecting=3)
    checkouts = [client.checkout() for _ in range(20)]
    for served in range(20):
        expected = min(20, served + 3)
        wait_until(lambda expected=expected: len(server.came) == expected, what=f"connection {expected}")
        assert client.stats().connecting == expected - served
        server.greet(server.silent[0])
        wait_until(lambda served=served: client.stats().busy == served + 1, what="the hand-off")
    assert server.most == 3
    assert len(server.came) == 20
    del checkouts


def test_min_workers_come_so_too(fake, connect):
    """Also those that nobody waits for."""
    server = fake(keep)
    client = connect(server, min_workers=8, max_connecting=2)
    client.open()
    for there in range(8):
        expected = min(8, there + 2)
        wait_until(lambda expected=expected: len(server.came) == expected, what=f"connection {expected}")
        server.greet(server.silent[0])
        wait_until(lambda there=there: client.stats().idle == there + 1, what="the worker")
    assert server.most == 2


def test_failing_attempts_are_made_one_at_a_time_and_less_and_less_often(fake, connect):
    """After the first few, which were under way together, each waits for the one before, and for a growing pause."""
    server = fake(hang_up)
    client = connect(server, timeout=None, max_connecting=4)
    checkouts = [client.checkout() for _ in range(30)]
    wait_until(lambda: len(server.came) >= 12, "12 connections")
    pauses = [after - before for before, after in zip(server.came[3:], server.came[4:], strict=False)]
    least = FIRST
    for pause in pauses:
        assert pause >= 0.99 * least, pauses
        least = min(LONGEST, 2 * least)
    stats = client.stats()
    assert stats.waiting == 30
    assert stats.connecting <= 1
    assert stats.connects == 0
    assert stats.failed_connects >= 11
    del checkouts


def test_a_socket_that_refuses_is_not_tried_more_often(connect, tmp_path):
    """The rate is bounded, however many wait; and attempts go on."""
    with gevent.socket.socket(gevent.socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/dead.sock")
        client = connect(f"unix:{tmp_path}/dead.sock", timeout=None, max_workers=500)
        began = monotonic()
        checkouts = [client.checkout() for _ in range(500)]
        stays(lambda: client.stats().failed_connects <= most_attempts(monotonic() - began, at_once=8), 1)
        wait_until(lambda: client.stats().failed_connects > 8, "attempts")
        count = client.stats().failed_connects
        wait_until(lambda: client.stats().failed_connects > count, what="one more attempt")
        del checkouts


@pytest.mark.parametrize("who", ["nobody", "somebody"])
def test_workers_that_die_as_soon_as_they_are_there_are_not_replaced_more_often(fake, connect, who):
    """A worker that greets and dies, before anything was asked of it, is a failure like any other."""
    server = fake(greet_and_hang_up)
    client = connect(server, timeout=None, min_workers=1)
    began = monotonic()
    client.open()
    checkout = client.checkout() if who == "somebody" else None
    stays(lambda: len(server.came) <= most_attempts(monotonic() - began, at_once=2), 1)
    wait_until(lambda: len(server.came) > 3, "attempts")
    del checkout


def test_a_success_ends_the_pauses(serve, connect, tmp_path):
    """Once the server is there, all who wait get their workers at the usual pace; the next outage begins anew."""
    address = f"unix:{tmp_path}/late.sock"
    client = connect(address, max_workers=6, max_connecting=6)
    callers = [gevent.spawn(client.call, "echo", number) for number in range(6)]
    wait_until(lambda: client.stats().failed_connects >= 8)
    server = serve("def echo(value): return value", address=address)
    assert [caller.get() for caller in callers] == list(range(6))
    failed = client.stats().failed_connects
    os.kill(server.pid, signal.SIGKILL)
    wait_until(server.obituary, what="the end of the server")
    client.drain()
    caller = gevent.spawn(client.call, "echo", "late")
    wait_until(lambda: client.stats().failed_connects >= failed + 3)
    serve("def echo(value): return value", address=address)
    assert caller.get() == "late"
