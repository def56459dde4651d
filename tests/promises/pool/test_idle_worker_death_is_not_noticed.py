"""The point of this test is to ensure that nobody notices when a worker dies that nobody uses: another one serves.

The pool does, at once and without being asked, and keeps its min_workers.
"""

import os
import signal
import time

import pytest

import gtask
from tests.support.waiting import PATIENCE, stays, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def test_the_pool_forgets_it(shared, connect):
    """Once the hub has heard of its end, it is not in the pool any more."""
    client = connect(shared(SOURCE), max_workers=1)
    pid = client.call("pid")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: client.stats().idle == 0, what="an empty pool")
    assert client.stats().deaths == {"SIGKILL": 1}
    assert client.call("pid") != pid


@pytest.mark.parametrize("way", ["call", "submit"])
def test_it_is_not_lent_either_before_the_hub_has_run(shared, connect, way):
    """The worker is dead and the hub has had no turn to learn it when the next call is made."""
    client = connect(shared(SOURCE), max_workers=1)
    pid = client.call("pid")
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while not is_gone(pid):  # not wait_until: that would let the hub run
        assert time.monotonic() < deadline
    with client.checkout() as worker:
        assert (worker.pid() if way == "call" else worker.pid.submit().get()) != pid


def idle_pids(client, number):
    """The pids of so many workers, which are idle again afterwards."""
    checkouts = [client.checkout() for _ in range(number)]
    pids = {checkout.pid() for checkout in checkouts}
    for checkout in checkouts:
        checkout.release()
    return pids


@pytest.mark.parametrize("victims", [1, 3])
def test_min_workers_are_kept(shared, connect, victims):
    """Whether one dies or all do: as many new ones come before anyone asks, and the others are still there."""
    client = connect(shared(SOURCE), min_workers=3, max_workers=3)
    client.open(wait=True)
    pids = idle_pids(client, 3)
    killed = sorted(pids)[:victims]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: sum(client.stats().deaths.values()) == victims, what="the notice of their deaths")
    wait_until(lambda: client.stats().idle == 3, what="new workers")
    now = idle_pids(client, 3)
    assert len(now) == 3
    assert pids - now == set(killed)
    assert client.stats().deaths == {"SIGKILL": victims}


def test_one_that_was_never_used_is_replaced_too(serve, connect):
    """After a moment, since the next one might die in the same way."""
    server = serve(SOURCE)
    client = connect(server, min_workers=2)
    client.open(wait=True)
    kill_one_of(server, client)
    wait_until(lambda: client.stats().idle == 2, what="a new worker")
    assert client.stats().deaths == {"SIGKILL": 1}


def kill_one_of(server, client, but=None):
    """Kill a worker of this server, and wait until its client has noticed."""
    with open(f"/proc/{server.pid}/task/{server.pid}/children") as children:
        workers = [int(pid) for pid in children.read().split()]
    os.kill(next(pid for pid in workers if pid != but), signal.SIGKILL)
    wait_until(lambda: client.stats().deaths, what="the notice of its death")


def test_it_is_not_taken_for_a_server_that_is_gone(serve, connect):
    """One that was never used dies where it need not be replaced: on_reconnect_failed stays silent."""
    reports, server = [], serve(SOURCE)
    client = connect(server, min_workers=2, reconnect_timeout=0.05, on_reconnect_failed=reports.append)
    client.open(wait=True)
    reports.clear()  # of the time when the server was not yet there
    client.resize(1, 2)
    with client.checkout() as worker:
        kill_one_of(server, client, but=worker.pid())
        stays(lambda: worker.pid() > 0 and reports == [], 0.2)  # four times reconnect_timeout


def test_it_is_not_the_reason_why_there_is_no_worker(serve, connect):
    """One that was never used dies where it may not be replaced; who waits is told that the other one is busy."""
    server = serve(SOURCE)
    client = connect(server, min_workers=2)
    client.open(wait=True)
    client.resize(0, 2)
    holder = client.checkout()
    kill_one_of(server, client, but=holder.pid())
    client.resize(0, 1)
    with pytest.raises(gtask.AcquireTimeout, match="1 of 1 workers busy"):
        client.checkout(timeout=0.05).pid()
    assert holder.pid() > 0
