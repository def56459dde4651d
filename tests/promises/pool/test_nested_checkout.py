"""The point of this test is to ensure that a greenlet which waits for a worker that only itself could give back is
told so at once.

Likewise several greenlets that wait for one another. It is told only when nobody could ever serve it, and whoever is
told ends its own checkout, so that the others go on.
"""

import gc
import os

import gevent
import pytest

import gtask
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def fail():
        raise LookupError("on purpose")

    def hold():
        open(os.path.join(DIR, "inside"), "w").close()
        with open(os.path.join(DIR, "gate")) as gate:
            gate.read()
"""
PATIENT = {"timeout": 8}
"""Far more than these tests take: a wait that is not refused at once ends by AcquireTimeout, and fails the test."""


@pytest.fixture
def address(shared):
    return shared(SOURCE).address


def nested(client):
    """A call in a checkout within another, which is used before."""
    with client.checkout() as outer:
        outer.pid()
        with client.checkout() as inner:
            return inner.pid()


# --- it can never be served --------------------------------------------------------------------------------


def test_a_checkout_within_the_only_one(address, connect):
    """The error comes at once, says what to do, and the pool serves on."""
    client = connect(address, name="shop", max_workers=1, **PATIENT)
    with pytest.raises(gtask.NestedCheckout) as told:
        nested(client)
    for words in ("'shop'", str(address), "only worker", "with block", "max_workers"):
        assert words in str(told.value)
    assert client.call("pid")
    assert client.stats().waiting == 0


def test_client_call_within_a_checkout(address, connect):
    """client.call() makes a checkout, too; the outer checkout is unharmed by it."""
    client = connect(address, max_workers=1, **PATIENT)
    with client.checkout() as outer:
        pid = outer.pid()
        with pytest.raises(gtask.NestedCheckout):
            client.call("pid")
        with pytest.raises(gtask.NestedCheckout):
            client.remote.pid()
        assert outer.pid() == pid
    assert client.call("pid") == pid


def test_a_checkout_made_without_a_with_block_within_one(address, connect):
    """It is the wait that never ends, however the checkout that waits was made. The error is sticky."""
    client = connect(address, max_workers=1, **PATIENT)
    with client.checkout() as outer:
        outer.pid()
        inner = client.checkout()
        for _ in range(2):
            with pytest.raises(gtask.NestedCheckout):
                inner.pid()


def test_the_outer_one_was_not_used_before(address, connect):
    """Its place in line is the first one, so it gets the only worker, and the inner one waits for that for ever."""
    client = connect(address, max_workers=1, **PATIENT)
    with client.checkout() as outer, client.checkout() as inner:
        with pytest.raises(gtask.NestedCheckout):
            inner.pid()
        assert outer.pid()


def test_the_outer_one_was_not_used_before_and_waits_itself(address, connect):
    """The same, when the only worker is given to the outer one by another greenlet."""
    client = connect(address, max_workers=1, **PATIENT)
    holder = client.checkout()
    holder.pid()

    def lazily_nested():
        with client.checkout(), client.checkout() as inner:
            inner.pid()

    waiting = gevent.spawn(lazily_nested)
    wait_until(lambda: client.stats().waiting == 2)
    holder.release()
    with pytest.raises(gtask.NestedCheckout):
        waiting.get()


def test_as_deep_as_there_are_workers(address, connect):
    """A greenlet may hold all workers but not wait for one more."""
    client = connect(address, max_workers=3, **PATIENT)
    with client.checkout() as one, client.checkout() as two, client.checkout() as three:
        assert len({one.pid(), two.pid(), three.pid()}) == 3
        with pytest.raises(gtask.NestedCheckout, match="all 3 workers"):
            client.call("pid")


def test_others_in_line_do_not_matter(address, connect):
    """Waiters before and behind it, which hold nothing, are no hope for it; they are served afterwards."""
    client = connect(address, max_workers=1, **PATIENT)

    def nested_behind_others():
        with client.checkout() as outer:
            outer.pid()
            others.append(gevent.spawn(client.call, "pid"))
            wait_until(lambda: client.stats().waiting == 1)
            inner = client.checkout()
            others.append(gevent.spawn(client.call, "pid"))
            wait_until(lambda: client.stats().waiting == 3)
            inner.pid()

    others = []
    with pytest.raises(gtask.NestedCheckout):
        gevent.spawn(nested_behind_others).get()
    assert len([other.get() for other in others]) == 2


def test_it_is_told_before_its_time_out(address, connect):
    """A time-out of its own changes nothing, and no AcquireTimeout is counted."""
    client = connect(address, max_workers=1, timeout=60)
    with client.checkout() as outer:
        outer.pid()
        inner = client.checkout(timeout=50)
        with pytest.raises(gtask.NestedCheckout):
            inner.pid()
    assert client.stats().acquire_timeouts == 0


def test_after_the_pool_has_shrunk(address, connect):
    """With resize() it is the new maximum that counts."""
    client = connect(address, max_workers=2, **PATIENT)
    assert nested(client)
    client.resize(0, 1)
    with pytest.raises(gtask.NestedCheckout):
        nested(client)


# --- greenlets that wait for one another -------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 5])
def test_of_greenlets_that_deadlock_the_last_one_is_told(address, connect, number):
    """Each holds a worker and waits for another: the last to wait gets the error, all others their worker."""
    client = connect(address, max_workers=number, **PATIENT)
    order, told = [], []

    def deadlock(me):
        with client.checkout() as outer:
            outer.pid()
            wait_until(lambda: client.stats().busy == number)
            try:
                order.append(me)
                client.call("pid")
            except gtask.NestedCheckout:
                told.append(me)

    greenlets = [gevent.spawn(deadlock, me) for me in range(number)]
    gevent.joinall(greenlets, raise_error=True)
    assert len(order) == number
    assert told == order[-1:]
    assert client.stats().waiting == client.stats().busy == 0


def test_a_deadlock_among_others(address, connect):
    """The last is told also while others, which hold nothing, stand in line before, between and behind."""
    client = connect(address, max_workers=2, **PATIENT)
    order, told, others = [], [], []

    def other():
        others.append(gevent.spawn(client.call, "pid"))
        before = client.stats().waiting
        wait_until(lambda: client.stats().waiting == before + 1)

    def deadlock(me):
        with client.checkout() as outer:
            outer.pid()
            wait_until(lambda: client.stats().busy == 2)
            if me == 1:
                wait_until(lambda: order)
            other()
            try:
                order.append(me)
                client.call("pid")
            except gtask.NestedCheckout:
                told.append(me)

    gevent.joinall([gevent.spawn(deadlock, me) for me in range(2)], raise_error=True)
    gevent.joinall(others, raise_error=True)
    assert len(others) == 2
    assert told == order[-1:] == [1]


def test_the_last_worker_goes_to_one_that_waits_already(address, connect):
    """The deadlock is complete when a greenlet that waits in an inner checkout is given the worker of its outer one."""
    client = connect(address, max_workers=2, **PATIENT)
    told, go_on = [], gevent.event.Event()

    def early():
        with client.checkout() as outer:
            outer.pid()
            go_on.wait()
            client.call("pid")

    def late():
        with client.checkout() as outer, client.checkout() as inner:
            try:
                inner.pid()
            except gtask.NestedCheckout:
                told.append(client.stats().busy)
            assert outer.pid()

    holder = client.checkout()
    holder.pid()
    greenlets = [gevent.spawn(early)]
    wait_until(lambda: client.stats().busy == 2)
    greenlets.append(gevent.spawn(late))
    wait_until(lambda: client.stats().waiting == 2)
    go_on.set()
    wait_until(lambda: client.stats().waiting == 3)
    assert told == []
    holder.release()
    gevent.joinall(greenlets, raise_error=True)
    assert told == [2]


def test_a_worker_that_goes_to_one_that_waits_already_while_there_are_others(address, connect):
    """No deadlock: a third greenlet, which waits for nothing, will give its worker back."""
    client = connect(address, max_workers=2, **PATIENT)
    go_on = gevent.event.Event()

    def other():
        with client.checkout() as worker:
            worker.pid()
            go_on.wait()

    def late():
        with client.checkout() as outer, client.checkout() as inner:
            return inner.pid() != outer.pid()

    holder = client.checkout()
    holder.pid()
    greenlets = [gevent.spawn(other)]
    wait_until(lambda: client.stats().busy == 2)
    greenlets.append(gevent.spawn(late))
    wait_until(lambda: client.stats().waiting == 2)
    holder.release()
    wait_until(lambda: client.stats().waiting == 1)
    turn_hub()
    assert not greenlets[1].ready()
    go_on.set()
    assert greenlets[1].get()
    greenlets[0].get()


# --- it can be served --------------------------------------------------------------------------------------


def test_while_the_pool_can_grow(address, connect):
    """A nested checkout gets a worker of its own."""
    client = connect(address, max_workers=2, **PATIENT)
    assert nested(client)


def test_while_another_greenlet_holds_a_worker(address, connect, tmp_path):
    """It waits for that one, which is in a call and not in line, and gets its worker."""
    os.mkfifo(tmp_path / "gate")
    client = connect(address, max_workers=2, **PATIENT)

    def other():
        with client.checkout() as worker:
            worker.hold()

    holder = gevent.spawn(other)
    wait_until((tmp_path / "inside").exists)
    waiting = gevent.spawn(nested, client)
    wait_until(lambda: client.stats().waiting == 1 and client.stats().busy == 2)
    assert not waiting.ready()
    (tmp_path / "gate").write_text("")
    assert waiting.get()
    holder.get()


def test_while_another_greenlet_holds_one_without_a_call(address, connect):
    """It is in its with block, neither in a call nor in line, and will go on."""
    client = connect(address, max_workers=2, **PATIENT)
    go_on = gevent.event.Event()

    def other():
        with client.checkout() as worker:
            worker.pid()
            go_on.wait()

    holder = gevent.spawn(other)
    wait_until(lambda: client.stats().busy == 1)
    waiting = gevent.spawn(nested, client)
    wait_until(lambda: client.stats().waiting == 1 and client.stats().busy == 2)
    assert not waiting.ready()
    go_on.set()
    assert waiting.get()
    holder.get()


def test_after_the_outer_one_was_released(address, connect):
    """release() within the with block gives its worker back, and the next checkout may have it."""
    client = connect(address, max_workers=1, **PATIENT)
    with client.checkout() as outer:
        pid = outer.pid()
        outer.release()
        assert client.call("pid") == pid


def test_after_the_outer_one_was_released_with_calls_under_way(address, connect, tmp_path):
    """The worker comes back when they are through."""
    os.mkfifo(tmp_path / "gate")
    client = connect(address, max_workers=1, **PATIENT)

    def nested_behind_a_call():
        with client.checkout() as outer:
            pid = outer.pid()
            outer.hold.submit()
            outer.release()
            return client.call("pid") == pid

    waiting = gevent.spawn(nested_behind_a_call)
    wait_until(lambda: client.stats().waiting == 1 and (tmp_path / "inside").exists())
    (tmp_path / "gate").write_text("")
    assert waiting.get()


def test_while_the_outer_one_of_another_greenlet_has_calls_under_way(address, connect, tmp_path):
    """That greenlet waits for a second worker, too, but it has released its first one."""
    os.mkfifo(tmp_path / "gate")
    client = connect(address, max_workers=2, **PATIENT)

    def other():
        with client.checkout() as outer:
            outer.hold.submit()
            outer.release()
            return client.call("pid")

    with client.checkout() as mine:
        mine.pid()
        waiting = gevent.spawn(other)
        wait_until((tmp_path / "inside").exists)
        wait_until(lambda: client.stats().waiting == 1)
        gevent.get_hub().loop.run_callback((tmp_path / "gate").write_text, "")
        assert client.call("pid")
    assert waiting.get()


def test_after_the_outer_one_has_lost_its_worker(address, connect):
    """A checkout that has ended by an error holds none."""
    client = connect(address, max_workers=1, **PATIENT)
    with client.checkout() as outer:
        outer.pid()
        outer.cancel("enough")
        assert client.call("pid")


def test_an_outer_one_without_a_with_block(address, connect):
    """Who holds a checkout so may have given it to anybody, and is waited for."""
    client = connect(address, max_workers=1, **PATIENT)
    outer = client.checkout()
    pid = outer.pid()
    gevent.spawn(outer.release)
    assert client.call("pid") == pid


def test_one_that_another_greenlet_has_entered(address, connect):
    """The greenlet that made it does not hold it any more: the one in the with block does."""
    client = connect(address, max_workers=1, **PATIENT)
    go_on = gevent.event.Event()

    def borrow(checkout):
        with checkout:
            checkout.pid()
            go_on.wait()

    borrower = gevent.spawn(borrow, client.checkout())
    wait_until(lambda: client.stats().busy == 1)
    waiting = gevent.spawn_later(0, go_on.set)
    assert client.call("pid")
    gevent.joinall([borrower, waiting], raise_error=True)


def test_one_whose_greenlet_has_gone(address, connect):
    """A checkout whose with block was begun in a greenlet that has ended, is nobody's."""
    client = connect(address, max_workers=1, **PATIENT)
    kept = []

    def enter():
        checkout = client.checkout()
        checkout.__enter__()
        checkout.pid()
        kept.append(checkout)

    gevent.spawn(enter).get()
    gc.collect()
    releaser = gevent.spawn_later(0, lambda: kept[0].release())
    assert client.call("pid")
    releaser.get()


def test_two_clients(address, connect):
    """A checkout of one client holds no worker of another."""
    one, other = connect(address, max_workers=1, **PATIENT), connect(address, max_workers=1, **PATIENT)
    with one.checkout() as outer:
        outer.pid()
        assert other.call("pid")


def test_one_after_another(address, connect):
    """A greenlet that had a checkout before and ended it, also by an error, holds none."""
    client = connect(address, max_workers=1, **PATIENT)
    for _ in range(2):
        with client.checkout() as worker:
            worker.pid()
        with pytest.raises(LookupError), client.checkout() as worker:
            worker.fail()
    assert client.call("pid")
