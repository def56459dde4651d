"""The point of this test is to ensure that drain() replaces all workers, and cuts short no checkout for it.

Idle ones go at once, lent ones when they come back. There are always min_workers, or they are on their way.
"""

import os

import gevent
import pytest

import gtask
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""
GATED = """
    import os
    import time

    def wait():
        with open(os.path.join(DIR, "inside"), "a") as file:
            file.write(f"{os.getpid()}\\n")
        while not os.path.exists(os.path.join(DIR, "open")):
            time.sleep(0.005)

    def pid():
        return os.getpid()
"""


def wait_for_end(*pids):
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="the end of the workers")


def inside(tmp_path):
    """The pids of the workers that have come to the gate."""
    return [int(pid) for pid in (tmp_path / "inside").read_text().split()] if (tmp_path / "inside").exists() else []


def open_gate(tmp_path):
    """Those who are at the gate go on; it may be that one was interrupted there, and nobody waits any more."""
    (tmp_path / "open").touch()


def idle_pids(client, number):
    """The pids of so many workers, which are idle again afterwards."""
    checkouts = [client.checkout() for _ in range(number)]
    pids = {checkout.pid() for checkout in checkouts}
    for checkout in checkouts:
        checkout.release()
    return pids


def test_idle_workers_go_at_once(shared, connect):
    """None of them is lent any more, not even by a checkout that is made in the same moment."""
    client = connect(shared(SOURCE))
    old = idle_pids(client, 3)
    client.drain()
    stats = client.stats()
    assert (stats.idle, stats.retirements) == (0, {"drain": 3})
    assert client.call("pid") not in old
    wait_for_end(*old)


def test_a_lent_worker_goes_when_it_comes_back(shared, connect):
    """Not before: its checkout goes on, and has the same worker to its end."""
    client = connect(shared(SOURCE), max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        submitted = worker.pid.submit()
        client.drain()
        assert [submitted.get(), worker.pid(), worker.pid()] == [pid] * 3
        assert client.stats().retirements == {}
        following = gevent.spawn(client.call, "pid")
        turn_hub()
    assert client.stats().retirements == {"drain": 1}
    assert following.get() != pid
    wait_for_end(pid)


def test_who_waits_in_line_is_served_by_new_workers(shared, connect):
    """All of them, though there was no room for new ones when the pool was drained."""
    client = connect(shared(SOURCE), max_workers=2)
    holders = [client.checkout() for _ in range(2)]
    old = {holder.pid() for holder in holders}
    callers = [gevent.spawn(client.call, "pid") for _ in range(20)]
    turn_hub()
    client.drain()
    for holder in holders:
        holder.release()
    assert not old & {caller.get() for caller in callers}
    assert client.stats().retirements == {"drain": 2}


def test_the_minimum_is_kept(shared, connect):
    """Those that take the place of idle ones are on their way at once, before anyone asks."""
    client = connect(shared(SOURCE), min_workers=3, max_workers=3)
    client.open(wait=True)
    old = idle_pids(client, 3)
    client.drain()
    stats = client.stats()
    assert (stats.idle, stats.connecting) == (0, 3)
    wait_until(lambda: client.stats().idle == 3, what="the new workers")
    assert not old & idle_pids(client, 3)


def test_a_new_worker_stays(shared, connect):
    """Only those that were there are replaced, and each once."""
    client = connect(shared(SOURCE), max_workers=1)
    old = client.call("pid")
    client.drain()
    new = {client.call("pid") for _ in range(10)}
    assert len(new) == 1
    assert old not in new
    client.drain()
    assert client.call("pid") not in new


def test_a_worker_that_was_on_its_way_goes_too(serve, connect, tmp_path):
    """Its server may have forked it from what has changed meanwhile: who waits gets one that came after the drain."""
    client = connect(serve(GATED + "\n    setup = wait\n"), max_workers=1, timeout=None)
    caller = gevent.spawn(client.call, "pid")
    wait_until(lambda: inside(tmp_path), what="the beginning of setup")
    (old,) = inside(tmp_path)
    client.drain()
    open_gate(tmp_path)
    assert caller.get() != old
    wait_for_end(old)


def test_a_worker_in_checkout_done_goes_when_that_has_run(serve, connect, tmp_path):
    """The hook is not cut short either."""
    client = connect(serve(GATED + "\n    checkout_done = wait\n"), max_workers=1, timeout=None)
    old = client.call("pid")
    wait_until(lambda: inside(tmp_path), what="the beginning of checkout_done")
    client.drain()
    stats = client.stats()
    assert (stats.settling, stats.retirements) == (1, {})
    open_gate(tmp_path)
    assert client.call("pid") != old
    assert client.stats().retirements == {"drain": 1}
    assert inside(tmp_path)[0] == old


def test_before_the_first_use_there_is_nothing_to_drain(shared, connect):
    """No worker comes of it."""
    client = connect(shared(SOURCE), min_workers=2)
    client.drain()
    stats = client.stats()
    assert (stats.idle, stats.connecting, stats.retirements) == (0, 0, {})
    assert client.call("pid") != os.getpid()


def test_after_close_there_is_nothing_to_drain(shared, connect):
    """That is said."""
    client = connect(shared(SOURCE))
    client.call("pid")
    client.close()
    with pytest.raises(gtask.ClientClosed):
        client.drain()
