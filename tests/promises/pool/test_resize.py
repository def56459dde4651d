"""The point of this test is to ensure that resize() takes effect at once, and cuts short no checkout for it.

Who waits gets the new workers that there may be. If there are too many, idle ones end now, and others when they come
back.
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
SLOW_SETUP = (
    SOURCE
    + """
    def setup():
        if os.path.exists(os.path.join(DIR, "gate")):
            with open(os.path.join(DIR, "inside"), "a") as file:
                file.write(f"{os.getpid()}\\n")
            with open(os.path.join(DIR, "gate"), "rb", buffering=0) as gate:
                gate.read(1)
"""
)


def lend(client, number):
    """So many checkouts, each with its worker, and their pids."""
    checkouts = [client.checkout() for _ in range(number)]
    return checkouts, [checkout.pid() for checkout in checkouts]


def test_more_workers_serve_who_waits(shared, connect):
    """While the worker that there is stays lent."""
    client = connect(shared(SOURCE), max_workers=1, timeout=None)
    (holder,), (pid,) = lend(client, 1)
    callers = [gevent.spawn(client.call, "pid") for _ in range(6)]
    turn_hub()
    assert client.stats().waiting == 6
    client.resize(0, 3)
    pids = {caller.get() for caller in callers}
    assert pid not in pids
    assert len(pids) <= 2
    assert holder.pid() == pid
    stats = client.stats()
    assert (stats.min_workers, stats.max_workers) == (0, 3)


def test_a_higher_minimum_is_kept(shared, connect):
    """The workers come before anyone asks for them."""
    client = connect(shared(SOURCE), min_workers=1, max_workers=1)
    client.open(wait=True)
    client.resize(3, 5)
    wait_until(lambda: client.stats().idle == 3, what="the new workers")
    assert client.stats().connecting == 0


def test_idle_workers_that_are_too_many_end_now(shared, connect):
    """The one that was used last stays."""
    client = connect(shared(SOURCE))
    checkouts, pids = lend(client, 3)
    for checkout in checkouts:
        checkout.release()
    client.resize(0, 1)
    stats = client.stats()
    assert (stats.idle, stats.retirements) == (1, {"resize": 2})
    assert client.call("pid") == pids[-1]
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids[:2]), what="their end")


def test_lent_workers_that_are_too_many_end_when_they_come_back(shared, connect):
    """Their checkouts go on; who waits gets a worker when there are no more than there may be."""
    client = connect(shared(SOURCE), timeout=None)
    checkouts, pids = lend(client, 3)
    client.resize(0, 1)
    assert client.stats().retirements == {}
    assert [checkout.pid() for checkout in checkouts] == pids
    waiting = client.checkout()
    result = waiting.pid.submit()
    for gone, checkout in enumerate(checkouts[:2], 1):
        checkout.release()
        stats = client.stats()
        assert (stats.retirements, stats.busy, stats.idle, stats.waiting) == ({"resize": gone}, 3 - gone, 0, 1)
    assert not result.ready()
    checkouts[2].release()
    assert result.get() == pids[2]
    waiting.release()
    stats = client.stats()
    assert (stats.idle, stats.connecting, stats.retirements) == (1, 0, {"resize": 2})


def test_idle_ones_go_first_and_lent_ones_later(shared, connect):
    """With two of each, and room for one."""
    client = connect(shared(SOURCE))
    checkouts, pids = lend(client, 4)
    for checkout in checkouts[2:]:
        checkout.release()
    client.resize(1, 1)
    stats = client.stats()
    assert (stats.busy, stats.idle, stats.retirements) == (2, 0, {"resize": 2})
    for checkout in checkouts[:2]:
        checkout.release()
    assert client.stats().retirements == {"resize": 3}
    assert client.call("pid") == pids[1]


def test_workers_that_are_on_their_way_are_too_many_when_they_come(serve, connect, tmp_path):
    """Of three that are asked for, one stays, and serves all."""
    client = connect(serve(SLOW_SETUP), timeout=None)
    client.call("pid")  # for while it is not clear that workers can be had, one is tried at a time
    os.mkfifo(tmp_path / "gate")
    client.drain()
    callers = [gevent.spawn(client.call, "pid") for _ in range(3)]
    wait_until(
        lambda: (tmp_path / "inside").exists() and len((tmp_path / "inside").read_text().split()) == 3,
        what="three setups",
    )
    client.resize(0, 1)
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    os.write(gate, b"...")
    served = {caller.get() for caller in callers}
    os.close(gate)
    stats = client.stats()
    assert (stats.idle, stats.busy, stats.connecting) == (1, 0, 0)
    assert len(served) == 1


def test_there_are_never_more_than_the_new_maximum_in_use(shared, connect):
    """While 60 greenlets are served, the pool is made smaller and larger, again and again."""
    client = connect(shared(SOURCE), max_workers=4, timeout=None)
    sizes = [4, 1, 3, 2, 4, 1]

    def work():
        with client.checkout() as worker:
            pid = worker.pid()
            turn_hub()
            assert worker.pid() == pid

    for size in sizes:
        callers = [gevent.spawn(work) for _ in range(10)]
        turn_hub()
        client.resize(min(size, 2), size)
        gevent.joinall(callers, raise_error=True)
        stats = client.stats()
        assert stats.busy == stats.waiting == 0
        assert stats.idle + stats.connecting <= size


def test_before_the_first_use_it_counts_from_the_beginning(shared, connect):
    """And nothing is begun by it."""
    client = connect(shared(SOURCE), min_workers=2, max_workers=5)
    client.resize(1, 1)
    stats = client.stats()
    assert (stats.idle, stats.connecting, stats.max_workers) == (0, 0, 1)
    checkouts = [client.checkout() for _ in range(3)]
    checkouts[0].pid()
    stats = client.stats()
    assert (stats.busy, stats.connecting, stats.waiting) == (1, 0, 2)


@pytest.mark.parametrize(
    ("numbers", "error", "advice"),
    [
        ((-1, 1), ValueError, "min_workers=-1: write a number of at least 0"),
        ((0, 0), ValueError, "max_workers=0: write a number of at least 1"),
        ((3, 2), ValueError, "min_workers=3 is more than max_workers=2"),
        (("1", 2), TypeError, "min_workers='1': write a whole number"),
        ((1, 2.5), TypeError, r"max_workers=2\.5: write a whole number"),
        ((1, None), TypeError, "max_workers=None: write a whole number"),
    ],
)
def test_bad_numbers_change_nothing(shared, connect, numbers, error, advice):
    """The message says what is allowed; the pool is as before, and serves."""
    client = connect(shared(SOURCE), min_workers=1, max_workers=2)
    pid = client.call("pid")
    with pytest.raises(error, match=advice):
        client.resize(*numbers)
    stats = client.stats()
    assert (stats.min_workers, stats.max_workers) == (1, 2)
    assert client.call("pid") == pid


@pytest.mark.parametrize("used", [True, False])
def test_after_close_there_is_nothing_to_resize(shared, connect, used):
    """That is said, also where the client had never been used."""
    client = connect(shared(SOURCE))
    if used:
        client.call("pid")
    client.close()
    with pytest.raises(gtask.ClientClosed):
        client.resize(1, 2)
