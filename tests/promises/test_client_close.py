"""The point of this test is to ensure that a client's end is orderly: lent workers finish, all others are told.

The same whether by close(), at the end of a with block, or because the client was dropped.
"""

import gc
import os

import gevent
import pytest

import gtask
from gtask import testing

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def hold():
        open(os.path.join(DIR, "inside"), "w").close()
        with open(os.path.join(DIR, "gate")) as gate:
            gate.read()
        return os.getpid()
"""
SLOW_SETUP = (
    SOURCE
    + """
    setup = hold
"""
)


def wait_for_end(*pids):
    testing.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="the end of the workers")


def test_lent_workers_finish(serve, connect, tmp_path):
    """The call under way, queued ones and later calls of the same checkout; at its release the worker ends."""
    os.mkfifo(tmp_path / "gate")
    client = connect(serve(SOURCE), timeout=None)
    with client.checkout() as worker:
        pid = worker.pid()
        held, queued = worker.hold.submit(), worker.pid.submit()
        testing.wait_until((tmp_path / "inside").exists)
        client.close()
        (tmp_path / "gate").write_text("")
        assert [held.get(), queued.get(), worker.pid()] == [pid] * 3
    wait_for_end(pid)


def test_idle_workers_end(serve, connect):
    """At once."""
    client = connect(serve(SOURCE))
    checkouts = [client.checkout() for _ in range(3)]
    pids = [worker.pid() for worker in checkouts]
    for worker in checkouts:
        worker.release()
    client.close()
    wait_for_end(*pids)


def test_who_waits_is_told(serve, connect):
    """Calls and submitted calls in line get ClientClosed, and so do later calls of the same checkouts."""
    client = connect(serve(SOURCE), timeout=None, max_workers=1)
    with client.checkout() as holder:
        holder.pid()
        in_line, other = client.checkout(), client.checkout()
        caller, result = gevent.spawn(client.call, "pid"), in_line.pid.submit()
        gevent.sleep(0)
        client.close()
        for waiting in (caller, result):
            with pytest.raises(gtask.ClientClosed):
                waiting.get()
        for checkout in (in_line, other):
            with pytest.raises(gtask.ClientClosed):
                checkout.pid()


def test_nothing_can_be_begun_afterwards(serve, connect):
    """Whether the client had been used or not; closing again does nothing."""
    server = serve(SOURCE)
    used, unused = connect(server), connect(server)
    remote = used.remote
    used.call("pid")
    for client in (used, unused):
        client.close()
        client.close()
        for use in (client.checkout, client.open, lambda: client.call("pid"), client.remote.pid):  # noqa: B023
            with pytest.raises(gtask.ClientClosed, match="closed"):
                use()
    with pytest.raises(gtask.ClientClosed):
        remote.pid()


def test_a_client_is_a_context_manager(serve):
    """Its block's end closes it."""
    with gtask.Client(serve(SOURCE).address, min_workers=2) as client:
        pid = client.call("pid")
    with pytest.raises(gtask.ClientClosed):
        client.call("pid")
    wait_for_end(pid)


def test_a_dropped_client_closes_its_workers(serve):
    """Those that nobody uses."""
    client = gtask.Client(serve(SOURCE).address, min_workers=0)
    pid = client.call("pid")
    del client
    gc.collect()
    wait_for_end(pid)


def test_a_checkout_outlives_its_dropped_client(serve):
    """It has its worker until it ends."""
    client = gtask.Client(serve(SOURCE).address, min_workers=0)
    with client.checkout() as worker:
        pid = worker.pid()
        del client
        gc.collect()
        gevent.sleep(0)
        gevent.sleep(0)
        assert worker.pid() == pid
    wait_for_end(pid)


def test_a_remote_keeps_its_client(serve):
    """Who has only the remote object can go on calling; when it goes, the workers go."""
    remote = gtask.Client(serve(SOURCE).address, min_workers=0).remote
    pid = remote.pid()
    gc.collect()
    gevent.sleep(0)
    assert remote.pid() == pid
    del remote
    wait_for_end(pid)


def workers_of(server):
    with open(f"/proc/{server.pid}/task/{server.pid}/children") as children:
        return children.read().split()


def test_workers_that_are_only_just_starting(serve, connect, tmp_path):
    """Their setup hangs when the client closes: who waits for them is told at once, and the ladder ends it."""
    os.mkfifo(tmp_path / "gate")
    server = serve(SLOW_SETUP)
    client = connect(server, timeout=None)
    caller = gevent.spawn(client.call, "pid")
    testing.wait_until((tmp_path / "inside").exists)
    client.close()
    with pytest.raises(gtask.ClientClosed):
        caller.get()
    testing.wait_until(lambda: not workers_of(server), what="the end of the workers")


def test_a_client_that_never_found_its_server(connect, tmp_path):
    """It closes as any other."""
    client = connect(f"unix:{tmp_path}/nobody.sock", timeout=None, min_workers=2)
    caller = gevent.spawn(client.call, "pid")
    gevent.sleep(0)
    client.close()
    with pytest.raises(gtask.ClientClosed):
        caller.get()
