"""The point of this test is to ensure that a connection whose waiter has given up joins the pool, and serves the next.

The attempt goes on without its waiter: a worker that is about to come is not thrown away. (Row 31 of the table of
faults.)
"""

import contextlib
import os

import gevent
import pytest

import gtask
from tests.support.waiting import wait_until

SOURCE = """
    import os

    def setup():
        with open(os.path.join(DIR, "setups"), "a") as file:
            file.write(f"{os.getpid()}\\n")
        with open(os.path.join(DIR, "gate")) as gate:
            gate.read()

    def pid():
        return os.getpid()
"""


def setups(tmp_path):
    return [int(pid) for pid in (tmp_path / "setups").read_text().split()] if (tmp_path / "setups").exists() else []


@pytest.fixture
def gate(tmp_path, serve, connect):
    """``server, leave = gate`` is a server that holds back every setup until ``leave()`` is called."""
    path = tmp_path / "gate"
    path.touch()
    server = serve(SOURCE)
    connect(server).call("pid")  # so that the server is there
    path.unlink()
    (tmp_path / "setups").unlink()
    os.mkfifo(path)
    writing = os.open(path, os.O_RDWR)

    def leave():
        nonlocal writing
        if writing >= 0:
            path.rename(tmp_path / "fifo")
            path.touch()
            os.close(writing)
            writing = -1

    yield server, leave
    leave()


def give_up(way, checkout, caller):
    """End a checkout whose caller is blocked in a call."""
    if way == "cancelled":
        checkout.cancel("enough")
        with pytest.raises(gtask.Cancelled):
            caller.get()
    elif way == "killed":
        caller.kill()
    elif way == "interrupted":
        caller.kill(OSError("on purpose"))
        with pytest.raises(OSError, match="on purpose"):
            caller.get()
    else:
        with pytest.raises(gtask.AcquireTimeout):
            caller.get()
    checkout.release()


WAYS = ["cancelled", "killed", "interrupted", "timed out"]


@pytest.mark.parametrize("way", WAYS)
def test_it_joins_the_pool(connect, tmp_path, gate, way):
    """Three waiters give up, each while its worker starts; then all three workers are idle, and serve three others."""
    server, leave = gate
    client = connect(server, max_workers=3)
    checkouts = [client.checkout(timeout=0.05 if way == "timed out" else None) for _ in range(3)]
    callers = [gevent.spawn(checkout.pid) for checkout in checkouts]
    wait_until(lambda: len(setups(tmp_path)) == 3, "three setups")
    for checkout, caller in zip(checkouts, callers, strict=True):
        give_up(way, checkout, caller)
    stats = client.stats()
    assert (stats.waiting, stats.connecting, stats.idle) == (0, 3, 0)
    leave()
    wait_until(lambda: client.stats().idle == 3, what="three idle workers")
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(client.checkout()) for _ in range(3)]
        assert {worker.pid() for worker in workers} == set(setups(tmp_path))
    assert len(setups(tmp_path)) == 3
    stats = client.stats()
    assert (stats.connects, stats.failed_connects, stats.checkouts) == (3, 0, 3)


@pytest.mark.parametrize("way", WAYS)
def test_it_serves_who_waits_behind(connect, tmp_path, gate, way):
    """The first in line gives up, and the second gets the worker that was on its way for the first."""
    server, leave = gate
    client = connect(server, max_workers=1)
    first = client.checkout(timeout=0.05 if way == "timed out" else None)
    second = client.checkout()
    callers = [gevent.spawn(first.pid), gevent.spawn(second.pid)]
    wait_until(lambda: len(setups(tmp_path)) == 1, "a setup")
    give_up(way, first, callers[0])
    leave()
    assert [callers[1].get()] == setups(tmp_path)
    second.release()


def test_a_dropped_checkout_leaves_its_worker_too(connect, tmp_path, gate):
    """Nobody called anything, and nobody holds it any more."""
    server, leave = gate
    client = connect(server, max_workers=1)
    checkout = client.checkout()
    wait_until(lambda: len(setups(tmp_path)) == 1, "a setup")
    del checkout
    wait_until(lambda: client.stats().waiting == 0, what="an empty line")
    leave()
    wait_until(lambda: client.stats().idle == 1, what="an idle worker")
    assert [client.call("pid")] == setups(tmp_path)


def test_it_does_not_join_a_closed_client(connect, tmp_path, gate):
    """The attempt ends with the client, and the worker with it."""
    server, leave = gate
    client = connect(server, max_workers=1)
    caller = gevent.spawn(client.call, "pid")
    wait_until(lambda: len(setups(tmp_path)) == 1, "a setup")
    client.close()
    with pytest.raises(gtask.ClientClosed):
        caller.get()
    leave()
    (pid,) = setups(tmp_path)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the worker")
    stats = client.stats()
    assert (stats.idle, stats.busy, stats.connecting) == (0, 0, 0)
