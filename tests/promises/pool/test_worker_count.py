"""The point of this test is to ensure that there are never more workers than max_workers, and soon min_workers of them.

Once the pool is open, min_workers are connected and their setup has run before anyone asks for them.
"""

import os
import signal
from collections import Counter

import gevent
import pytest

from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    def setup():
        with open(os.path.join(DIR, "setups"), "a") as file:
            file.write(f"{os.getpid()}\\n")

    def siblings():
        # The master's children, as the kernel counts them at this moment.
        with open(f"/proc/{os.getppid()}/task/{os.getppid()}/children") as listing:
            return [int(pid) for pid in listing.read().split()]

    def pid():
        return os.getpid()

    def fail():
        raise LookupError("on purpose")
"""


def setups(tmp_path):
    return [int(pid) for pid in (tmp_path / "setups").read_text().split()] if (tmp_path / "setups").exists() else []


def test_never_more_than_max_workers(serve, connect, tmp_path):
    """60 greenlets, of which each holds a worker over several turns of the hub, in three waves."""
    client = connect(serve(SOURCE), min_workers=1, max_workers=3)
    most = Counter()

    def work():
        with client.checkout() as worker:
            for _ in range(3):
                most[len(worker.siblings())] += 1

    for _ in range(3):
        gevent.joinall([gevent.spawn(work) for _ in range(20)], raise_error=True)
    assert max(most) <= 3
    assert len(setups(tmp_path)) <= 3


def test_never_more_are_in_use_than_max_workers(serve, connect):
    """Also while workers are replaced, because they raised or were lent often enough."""
    client = connect(serve(SOURCE), max_workers=3, max_checkouts=4)
    using = most = 0

    def work(number):
        nonlocal using, most
        with client.checkout() as worker:
            worker.pid()
            using += 1
            most = max(most, using)
            if not number % 3:
                with pytest.raises(LookupError):
                    worker.fail()
            worker.pid()
            using -= 1

    gevent.joinall([gevent.spawn(work, number) for number in range(60)], raise_error=True)
    assert most <= 3


def test_min_workers_are_ready_before_anyone_asks(serve, connect, tmp_path):
    """Not at construction, but after open(); three checkouts are then served without a turn of the hub."""
    client = connect(serve(SOURCE), min_workers=3)
    turn_hub()
    assert "not yet open" in repr(client)
    client.open()
    wait_until(lambda: len(setups(tmp_path)) == 3)
    ready = setups(tmp_path)
    pids = []

    def served_at_once():
        checkouts = [client.checkout() for _ in range(3)]
        at_once = client.stats().busy == 3
        if at_once:
            pids.extend(worker.pid() for worker in checkouts)
        for worker in checkouts:
            worker.release()
        return at_once

    wait_until(served_at_once)  # soon: the greetings are on their way
    assert sorted(pids) == sorted(ready)
    assert setups(tmp_path) == ready


def test_the_first_use_opens_the_pool(serve, connect, tmp_path):
    """One call, and min_workers are there soon after."""
    client = connect(serve(SOURCE), min_workers=3)
    client.call("pid")
    wait_until(lambda: len(setups(tmp_path)) == 3)


def test_min_workers_are_kept(serve, connect, tmp_path):
    """One that was killed and one that was retired are replaced before anyone asks."""
    client = connect(serve(SOURCE), min_workers=2, max_workers=2)
    client.open()
    wait_until(lambda: "of 2 workers" in repr(client) and len(setups(tmp_path)) == 2)
    os.kill(setups(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: len(setups(tmp_path)) == 3)
    with pytest.raises(LookupError):
        client.call("fail")
    wait_until(lambda: len(setups(tmp_path)) == 4)
    assert len(set(setups(tmp_path))) == 4
