"""The point of this test is to ensure that a client's end is orderly: lent workers finish, all others are told.

The same whether by close(), at the end of a with block, or because the client was dropped.
"""

import gc
import os
import textwrap

import gevent
import pytest

import gtask
from gtask import testing
from tests.support.waiting import turn_hub, wait_until

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
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="the end of the workers")


def test_lent_workers_finish(shared, connect, tmp_path):
    """The call under way, queued ones and later calls of the same checkout; at its release the worker ends."""
    os.mkfifo(tmp_path / "gate")
    client = connect(shared(SOURCE), timeout=None)
    with client.checkout() as worker:
        pid = worker.pid()
        held, queued = worker.hold.submit(), worker.pid.submit()
        wait_until((tmp_path / "inside").exists)
        client.close()
        (tmp_path / "gate").write_text("")
        assert [held.get(), queued.get(), worker.pid()] == [pid] * 3
    wait_for_end(pid)


def test_idle_workers_end(shared, connect):
    """At once."""
    client = connect(shared(SOURCE))
    checkouts = [client.checkout() for _ in range(3)]
    pids = [worker.pid() for worker in checkouts]
    for worker in checkouts:
        worker.release()
    client.close()
    wait_for_end(*pids)


def test_who_waits_is_told(shared, connect):
    """Calls and submitted calls in line get ClientClosed, and so do later calls of the same checkouts."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    with client.checkout() as holder:
        holder.pid()
        in_line, other = client.checkout(), client.checkout()
        caller, result = gevent.spawn(client.call, "pid"), in_line.pid.submit()
        turn_hub()
        client.close()
        for waiting in (caller, result):
            with pytest.raises(gtask.ClientClosed):
                waiting.get()
        for checkout in (in_line, other):
            with pytest.raises(gtask.ClientClosed):
                checkout.pid()


def test_nothing_can_be_begun_afterwards(shared, connect):
    """Whether the client had been used or not; closing again does nothing."""
    server = shared(SOURCE)
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


def test_a_client_is_a_context_manager(shared):
    """Its block's end closes it."""
    with gtask.Client(shared(SOURCE).address, min_workers=2) as client:
        pid = client.call("pid")
    with pytest.raises(gtask.ClientClosed):
        client.call("pid")
    wait_for_end(pid)


def test_a_dropped_client_closes_its_workers(shared):
    """Those that nobody uses."""
    client = gtask.Client(shared(SOURCE).address, min_workers=0)
    pid = client.call("pid")
    del client
    gc.collect()
    wait_for_end(pid)


def test_a_checkout_outlives_its_dropped_client(shared):
    """It has its worker until it ends."""
    client = gtask.Client(shared(SOURCE).address, min_workers=0)
    with client.checkout() as worker:
        pid = worker.pid()
        del client
        gc.collect()
        turn_hub()
        turn_hub()
        assert worker.pid() == pid
    wait_for_end(pid)


def test_a_remote_keeps_its_client(shared):
    """Who has only the remote object can go on calling; when it goes, the workers go."""
    remote = gtask.Client(shared(SOURCE).address, min_workers=0).remote
    pid = remote.pid()
    gc.collect()
    turn_hub()
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
    wait_until((tmp_path / "inside").exists)
    client.close()
    with pytest.raises(gtask.ClientClosed):
        caller.get()
    wait_until(lambda: not workers_of(server), what="the end of the workers")


def test_a_client_that_never_found_its_server(connect, tmp_path):
    """It closes as any other."""
    client = connect(f"unix:{tmp_path}/nobody.sock", timeout=None, min_workers=2)
    caller = gevent.spawn(client.call, "pid")
    turn_hub()
    client.close()
    with pytest.raises(gtask.ClientClosed):
        caller.get()


def hold_one(client, tmp_path):
    """A checkout whose worker is held in a call; and the greenlet that calls."""
    os.mkfifo(tmp_path / "gate")
    checkout = client.checkout()
    caller = gevent.spawn(checkout.hold)
    wait_until((tmp_path / "inside").exists)
    return checkout, caller


def test_close_with_a_time_out_waits_for_lent_workers(shared, connect, tmp_path):
    """It returns when the last of them is back, and its worker closed; nobody is cut off."""
    client = connect(shared(SOURCE), timeout=None)
    checkout, caller = hold_one(client, tmp_path)
    with client.checkout() as other:
        pid = other.pid()
        closing = gevent.spawn(client.close, 1000)
        turn_hub()
        assert "closed" in repr(client)
        assert other.pid() == pid
        (tmp_path / "gate").write_text("")
        assert caller.get() == checkout.pid()
        checkout.release()
        assert other.pid() == pid
        assert not closing.ready()
    closing.get()
    stats = client.stats()
    assert (stats.busy, stats.settling, stats.retirements) == (0, 0, {"close": 2})
    wait_for_end(pid)


def test_close_with_a_time_out_turns_away_who_waits_at_once(shared, connect, tmp_path):
    """They do not wait for that time-out."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    with client.checkout() as holder:
        holder.pid()
        waiting = gevent.spawn(client.call, "pid")
        turn_hub()
        closing = gevent.spawn(client.close, 1000)
        with pytest.raises(gtask.ClientClosed):
            waiting.get()
        assert not closing.ready()
    closing.get()


def test_after_the_time_out_whoever_still_has_a_worker_is_cut_off(shared, connect, tmp_path):
    """Calls under way and queued ones get ClientClosed, which sticks; also who holds its worker without a call."""
    client = connect(shared(SOURCE), timeout=None)
    busy, caller = hold_one(client, tmp_path)
    queued = busy.pid.submit()
    released = client.checkout()
    under_way = released.hold.submit()
    released.release()
    idle = client.checkout()
    pid = idle.pid()
    client.close(timeout=0.05)
    for waiting in (caller, queued, under_way):
        with pytest.raises(gtask.ClientClosed, match=r"had not ended 0\.05 s later"):
            waiting.get()
    for checkout in (busy, idle):
        for _ in range(2):
            with pytest.raises(gtask.ClientClosed, match=r"had not ended 0\.05 s later"):
                checkout.pid()
        checkout.release()
    stats = client.stats()
    assert (stats.busy, stats.idle, stats.settling, stats.waiting) == (0, 0, 0, 0)
    wait_for_end(pid)


def test_who_is_cut_off_does_not_leave_its_worker_running(serve, connect, tmp_path):
    """Though that is in a call which would never end."""
    server = serve(SOURCE)
    client = connect(server, timeout=None)
    _, caller = hold_one(client, tmp_path)
    client.close(timeout=0.05)
    with pytest.raises(gtask.ClientClosed):
        caller.get()
    wait_until(lambda: not workers_of(server), what="the end of the workers")


def test_after_the_time_out_no_worker_is_waited_for_that_is_in_checkout_done(serve, connect, tmp_path):
    """It was released after the client had been closed, and its hook would never end."""
    os.mkfifo(tmp_path / "gate")
    server = serve(SOURCE + "\n    checkout_done = hold\n", "--stop-timeout", "0.1")
    client = connect(server, timeout=None)
    checkout = client.checkout()
    checkout.pid()
    closing = gevent.spawn(client.close, 0.3)
    turn_hub()
    checkout.release()
    wait_until((tmp_path / "inside").exists, what="the beginning of checkout_done")
    closing.get()
    stats = client.stats()
    assert (stats.busy, stats.settling) == (0, 0)
    wait_until(lambda: not workers_of(server), what="the end of the workers")


def test_close_with_a_time_out_waits_for_checkout_done(serve, connect, tmp_path):
    """As long as there is time, the hook runs to its end."""
    os.mkfifo(tmp_path / "gate")
    client = connect(serve(SOURCE + "\n    checkout_done = hold\n"), timeout=None)
    checkout = client.checkout()
    checkout.pid()
    closing = gevent.spawn(client.close, 1000)
    turn_hub()
    checkout.release()
    wait_until((tmp_path / "inside").exists, what="the beginning of checkout_done")
    turn_hub()
    assert not closing.ready()
    assert client.stats().settling == 1
    (tmp_path / "gate").write_text("")
    closing.get()
    assert client.stats().settling == 0


def test_where_nobody_has_a_worker_no_time_out_is_waited_for(shared, connect, tmp_path):
    """Idle workers, attempts to connect, and a client that was never used."""
    used, unused = connect(shared(SOURCE)), connect(f"unix:{tmp_path}/nobody.sock")
    failing = connect(f"unix:{tmp_path}/nobody.sock", min_workers=2)
    used.call("pid")
    failing.open()
    for client in (used, unused, failing):
        client.close(timeout=1000)


def test_close_again_with_a_time_out(shared, connect, tmp_path):
    """A client that was closed without one can be told so later; several may wait, each for its own time."""
    client = connect(shared(SOURCE), timeout=None)
    _, caller = hold_one(client, tmp_path)
    client.close()
    patient = gevent.spawn(client.close, timeout=1000)
    turn_hub()
    assert not patient.ready()
    assert not caller.ready()
    client.close(timeout=0.05)
    patient.get()
    with pytest.raises(gtask.ClientClosed):
        caller.get()


def test_a_private_server_ends_after_the_time_out(tmp_path, monkeypatch):
    """It has nothing left to do."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "held.py").write_text(f"DIR = {str(tmp_path)!r}\n" + textwrap.dedent(SOURCE))
    client = gtask.Client("spawn:held", timeout=None, min_workers=0)
    others = testing.Leftovers().children
    _, caller = hold_one(client, tmp_path)
    (server,) = testing.Leftovers().children - others
    client.close(timeout=0.05)
    with pytest.raises(gtask.ClientClosed):
        caller.get()
    wait_for_end(server)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "soon"])
def test_bad_time_outs_do_not_close(shared, connect, timeout):
    """The message says what is allowed, and the client serves on."""
    client = connect(shared(SOURCE))
    pid = client.call("pid")
    with pytest.raises((ValueError, TypeError), match=r"timeout=.*: write a number of seconds over 0"):
        client.close(timeout=timeout)
    assert client.call("pid") == pid
