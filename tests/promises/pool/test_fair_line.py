"""The point of this test is to ensure that the line for workers is fair, and that moving it up disturbs nobody.

The place is taken when the checkout is made. A released worker goes straight to the first in line, in that very
moment, if that one still wants it. Releasing never switches to another greenlet.
"""

import itertools
import os
import signal
import time

import gevent
import greenlet
import pytest

import gtask
from tests.support.waiting import PATIENCE, turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def fail():
        raise LookupError("on purpose")

    def hold():
        with open(os.path.join(DIR, "gate")) as gate:
            gate.read()
"""
WITH_HOOK = (
    SOURCE
    + """
    def checkout_done():
        pass
"""
)


def switches(function):
    """How often greenlets were switched while a function ran."""
    seen = []
    before = greenlet.settrace(lambda event, ends: seen.append(event))
    try:
        function()
    finally:
        greenlet.settrace(before)
    return len(seen)


def test_the_place_is_taken_when_the_checkout_is_made(shared, connect):
    """Two stand in line before either has called; the second one's call does not help it past the first."""
    client = connect(shared(SOURCE), max_workers=1)
    holder = client.checkout()
    holder.pid()
    first, second = client.checkout(), client.checkout()
    assert client.stats().waiting == 2
    result = second.pid.submit()
    holder.release()
    turn_hub()
    assert not result.ready()
    assert client.stats().waiting == 1
    pid = first.pid()
    assert not result.ready()
    first.release()
    assert result.get() == pid


def test_a_worker_is_handed_over_directly(shared, connect):
    """Without a turn of the hub, so that one who comes in the same moment finds it taken, and stands behind."""
    client = connect(shared(SOURCE), max_workers=1)
    holder = client.checkout()
    pid = holder.pid()
    first = client.checkout()
    holder.release()
    stats = client.stats()
    assert (stats.busy, stats.idle, stats.waiting) == (1, 0, 0)
    late = client.checkout()
    assert client.stats().waiting == 1
    result = late.pid.submit()
    assert first.pid() == pid
    assert not result.ready()
    first.release()
    assert result.get() == pid


def test_an_idle_worker_is_lent_without_a_turn_of_the_hub(shared, connect):
    """Making the checkout switches no greenlet either, whether there is a worker or not."""
    client = connect(shared(SOURCE), max_workers=1)
    client.call("pid")
    checkouts = []
    assert switches(lambda: checkouts.append(client.checkout())) == 0
    assert client.stats().busy == 1
    assert switches(lambda: checkouts.append(client.checkout())) == 0
    assert client.stats().waiting == 1


def test_who_timed_out_is_passed_over(shared, connect):
    """The next in line gets the worker."""
    client = connect(shared(SOURCE), max_workers=1)
    holder = client.checkout()
    pid = holder.pid()
    hasty, patient = client.checkout(timeout=0.05), client.checkout()
    result = patient.pid.submit()
    with pytest.raises(gtask.AcquireTimeout, match=r"1 of 1 workers busy, 0 ahead in line"):
        hasty.pid()
    assert client.stats().waiting == 1
    holder.release()
    assert result.get() == pid


def test_thousands_who_want_nothing_any_more_are_passed_over(shared, connect):
    """Each was killed in its call after somebody else had released its checkout; the one behind them is served."""
    client = connect(shared(SOURCE), max_workers=1, timeout=None)
    holder = client.checkout()
    pid = holder.pid()
    checkouts = [client.checkout() for _ in range(3000)]
    callers = [gevent.spawn(checkout.pid) for checkout in checkouts]
    last = client.checkout()
    result = last.pid.submit()
    turn_hub()
    for checkout in checkouts:
        checkout.release()
    gevent.killall(callers)
    holder.release()
    assert result.get() == pid
    last.release()
    assert client.stats().waiting == 0
    assert client.call("pid") == pid


def kill_unnoticed(pid):
    """Kill a worker, and wait until it is gone without letting the hub run."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline


def nobody_waits(client, checkout):
    """It becomes idle."""


def somebody_waits(client, checkout):
    """It is handed over."""
    return [gevent.spawn(client.call, "pid") for _ in range(2)]


def calls_are_under_way(client, checkout):
    """It comes back later."""
    return [checkout.pid.submit() for _ in range(3)]


def it_raised(client, checkout):
    """It is retired, and another one is connected."""
    with pytest.raises(LookupError):
        checkout.fail()
    return somebody_waits(client, checkout)


def it_was_drained(client, checkout):
    """It is retired, and another one is connected."""
    client.drain()
    return somebody_waits(client, checkout)


def the_client_is_closed(client, checkout):
    """It is closed."""
    client.close()


def it_is_dead(client, checkout):
    """The hub does not know that yet."""
    kill_unnoticed(checkout.pid())
    return [client.checkout().pid.submit()]


SITUATIONS = [
    nobody_waits,
    somebody_waits,
    calls_are_under_way,
    it_raised,
    it_was_drained,
    the_client_is_closed,
    it_is_dead,
]


@pytest.mark.parametrize("source", [SOURCE, WITH_HOOK], ids=["without a hook", "with checkout_done"])
@pytest.mark.parametrize("prepare", SITUATIONS)
def test_release_never_switches(serve, connect, source, prepare):
    """Whatever becomes of the worker: greenlet's own tracing sees no switch before release has returned."""
    client = connect(serve(source), max_workers=1)
    checkout = client.checkout()
    checkout.pid()
    waiting = prepare(client, checkout) or []
    if any(isinstance(thing, gevent.Greenlet) for thing in waiting):
        turn_hub()
        assert client.stats().waiting == len(waiting)
    assert switches(checkout.release) == 0
    assert switches(checkout.release) == 0
    for thing in waiting:
        thing.get()


def test_release_in_line_never_switches(shared, connect):
    """Nor does that of a checkout that has no worker yet."""
    client = connect(shared(SOURCE), max_workers=1)
    with client.checkout() as holder:
        holder.pid()
        waiting = client.checkout()
        assert switches(waiting.release) == 0
        assert client.stats().waiting == 0
        assert switches(lambda: turn_hub()) > 0  # so it does see them


def test_10000_greenlets_over_20_workers(shared, connect):
    """While all of them want a worker all the time, nobody is passed over for long."""
    client = connect(shared(SOURCE), min_workers=20, max_workers=20, timeout=None)
    client.open(wait=True)
    numbers, served, most = itertools.count(), [], 0

    def work():
        nonlocal most
        client.call("pid")
        # Now all are in line, or have a worker. Who is served stands behind all the others again.
        number = next(numbers)
        with client.checkout() as worker:
            worker.pid()
            served.append(number)
            most = max(most, client.stats().busy)

    gevent.joinall([gevent.spawn(work) for _ in range(10_000)], raise_error=True)
    stats = client.stats()
    assert (stats.checkouts, stats.waits.count, stats.waiting) == (20_000, 20_000, 0)
    assert most == 20
    # Not to the letter: while the machine does not run a worker, its siblings serve those behind.
    assert max(abs(place - number) for place, number in enumerate(served)) <= 1_000


def test_one_dead_worker_does_not_cost_the_place(shared, connect):
    """Who was given a worker that is found dead before anything was sent is the first in line again."""
    client = connect(shared(SOURCE), max_workers=1)
    holder = client.checkout()
    first, second = client.checkout(), client.checkout()
    pid = holder.pid()
    kill_unnoticed(pid)
    order = []
    for name, checkout in (("second", second), ("first", first)):
        checkout.pid.submit().rawlink(lambda result, name=name: order.append((name, result.get())))
        checkout.release()
    holder.release()
    wait_until(lambda: len(order) == 2)
    assert [name for name, _ in order] == ["first", "second"]
    assert order[0][1] == order[1][1] != pid
