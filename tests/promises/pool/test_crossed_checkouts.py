"""The point of this test is to ensure that who waits for workers crosswise is told so, at once where it is certain.

A greenlet holds a worker of one client and waits for one of another, whose holders wait for the first client's. A
worker that calls its own server may wait for itself.
"""

import gevent
import pytest

import gtask
from tests.support.waiting import wait_until

SOURCE = """
    import os
    import gtask

    def pid():
        return os.getpid()

    def call_itself(address):
        with gtask.Client(address, min_workers=1, max_workers=1, timeout=0.5) as client:
            try:
                return client.call("pid")
            except gtask.AcquireTimeout as error:
                return str(error)
"""
PATIENT = {"timeout": 20, "min_workers": 1}
"""Far more than these tests take: a wait that is not refused at once ends by AcquireTimeout, and fails the test."""


def use(first, second, ready, go):
    """Hold a worker of one client, and when all are ready call one of the other."""
    with first.checkout() as worker:
        worker.pid()
        ready.append(None)
        go.wait()
        with second.checkout() as other:
            return other.pid()


def outcomes(*pairs):
    """What becomes of greenlets each of which holds a worker of its first client and waits for one of its second."""
    ready, go = [], gevent.event.Event()
    greenlets = [gevent.spawn(use, *pair, ready, go) for pair in pairs]
    wait_until(lambda: len(ready) == len(pairs))
    go.set()
    gevent.joinall(greenlets)
    return [greenlet.exception or greenlet.value for greenlet in greenlets]


@pytest.fixture
def make(serve, connect):
    """``make(name, number)`` gives a client of this name, with this number of workers at the most."""
    address = serve(SOURCE).address
    return lambda name, number, **options: connect(address, name=name, max_workers=number, **PATIENT | options)


def test_two_clients_in_crossed_order(make):
    """The greenlet that closes the ring is told at once, and by name; the other one goes on."""
    a, b = make("a", 1), make("b", 1)
    got = outcomes((a, b), (b, a))
    (error,) = [one for one in got if isinstance(one, gtask.NestedCheckout)]
    assert len([one for one in got if isinstance(one, int)]) == 1
    wants, holds = ("a", "b") if "no worker for client 'a'" in str(error) else ("b", "a")
    assert f"no worker for client {wants!r}" in str(error)
    assert f"for what this greenlet holds, 1 worker of client {holds!r}" in str(error)


def test_a_ring_of_three(make):
    """One of them is told, and the others go on."""
    a, b, c = (make(name, 1) for name in "abc")
    got = outcomes((a, b), (b, c), (c, a))
    assert sorted(type(one).__name__ for one in got) == ["NestedCheckout", "int", "int"]


def test_several_workers_each(make):
    """All workers of both are held by those who wait for the other's."""
    a, b = make("a", 2), make("b", 2)
    got = outcomes((a, b), (b, a), (a, b), (b, a))
    assert {type(one) for one in got} == {gtask.NestedCheckout, int}
    assert sum(isinstance(one, int) for one in got) >= 2


def test_not_where_it_may_resolve(make):
    """Same order; or somebody outside of the ring holds a worker, or there is room for one more."""
    a, b = make("a", 2), make("b", 2)
    assert all(isinstance(one, int) for one in outcomes((a, b), (a, b)))
    assert all(isinstance(one, int) for one in outcomes((a, b), (b, a)))
    held = b.checkout()
    held.pid()
    gevent.spawn_later(0.1, held.release)
    a.resize(1, 1)
    assert all(isinstance(one, int) for one in outcomes((a, b), (b, a)))


def test_a_time_out_says_what_was_held(make):
    """Where it is not certain: a worker of the other client is in a checkout that may end at any moment."""
    a, b = make("a", 1, timeout=1), make("b", 2, timeout=1)
    a.open(wait=True)
    b.open(wait=True)
    held = b.checkout()
    held.pid()
    got = outcomes((a, b), (b, a))
    errors = [str(one) for one in got if isinstance(one, gtask.AcquireTimeout)]
    assert [text for text in errors if "the greenlet that waits here holds 1 worker of client " in text]
    held.release()


def test_who_holds_nothing_is_told_nothing_of_it(make):
    """An ordinary time-out has its ordinary text."""
    a = make("a", 1, timeout=0.2)
    a.open(wait=True)
    with a.checkout() as worker:
        worker.pid()
        error = gevent.spawn(a.call, "pid").get
        with pytest.raises(gtask.AcquireTimeout) as caught:
            error()
    assert "waits here" not in str(caught.value)
    assert "itself" not in str(caught.value)


def test_a_worker_calls_its_own_server(serve, connect):
    """The only worker that the server may have waits for another one of the same server: the text says so."""
    server = serve(SOURCE, "--max-workers", "1")
    client = connect(server, max_workers=1)
    said = client.call("call_itself", str(server.address))
    assert "connected, but no worker has greeted" in said
    assert "this process is itself a worker of that server and holds one of its workers" in said


def test_a_worker_calls_its_own_server_that_has_room(serve, connect):
    """That is allowed."""
    server = serve(SOURCE)
    client = connect(server, max_workers=1)
    assert client.call("call_itself", str(server.address)) != client.call("pid")
