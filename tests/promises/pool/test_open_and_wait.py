"""The point of this test is to ensure that open(wait=True) tells whether min_workers can be had, and if not, why.

A program can thus refuse to start without its workers. The client can be used all the same, and goes on trying. Who
does not ask for that gets a lazy client: nothing begins before the first use.
"""

import os
import socket

import gevent
import greenlet
import pytest

import gtask
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""
BROKEN = (
    SOURCE
    + """
    def setup():
        if not os.path.exists(os.path.join(DIR, "repaired")):
            raise LookupError("no database at königsberg")
"""
)
ONLY_ONE = (
    SOURCE
    + """
    def setup():
        try:
            os.close(os.open(os.path.join(DIR, "first"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            with open(os.path.join(DIR, "gate")) as gate:
                gate.read()
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


def workers_of(server):
    with open(f"/proc/{server.pid}/task/{server.pid}/children") as children:
        return children.read().split()


def test_it_waits_for_all_of_them(shared, connect):
    """When it returns, min_workers stand ready, and as many checkouts are served without a turn of the hub."""
    client = connect(shared(SOURCE), min_workers=3, max_workers=5)
    client.open(wait=True)
    stats = client.stats()
    assert (stats.idle, stats.connecting, stats.busy) == (3, 0, 0)
    checkouts = [client.checkout() for _ in range(3)]
    assert client.stats().busy == 3
    assert len({checkout.pid() for checkout in checkouts}) == 3


def test_lent_workers_count(shared, connect):
    """They are there, though somebody has them; opening again is not wrong."""
    client = connect(shared(SOURCE), min_workers=2, max_workers=2)
    client.open(wait=True)
    with client.checkout() as one, client.checkout() as other:
        assert one.pid() != other.pid()
        assert switches(lambda: client.open(wait=True)) == 0


def test_none_are_soon_there(connect, tmp_path):
    """With min_workers=0 there is nothing to wait for, not even a server."""
    client = connect(f"unix:{tmp_path}/nobody.sock", min_workers=0)
    assert switches(lambda: client.open(wait=True)) == 0


def test_it_waits_for_a_server_that_comes_late(serve, connect, tmp_path):
    """Which is no reason to fail as long as it comes in time."""
    address = f"unix:{tmp_path}/later.sock"
    client = connect(address, min_workers=2)
    opening = gevent.spawn(client.open, wait=True)
    wait_until(lambda: client.stats().failed_connects > 1, what="attempts that fail")
    assert not opening.ready()
    serve(SOURCE, address=address)
    opening.get()
    assert client.stats().idle == 2


def test_the_server_cannot_be_reached(serve, connect, tmp_path):
    """That is said, since when and why; and once it is there, the same client serves and can be opened."""
    address = f"unix:{tmp_path}/later.sock"
    client = connect(address, min_workers=2, name="web")
    reason = rf"0 of min_workers=2 workers came.*'web'.*server unreachable since \S+ s: no such file.* at {address}"
    with pytest.raises(gtask.AcquireTimeout, match=reason):
        client.open(wait=True, timeout=0.2)
    serve(SOURCE, address=address)
    assert client.call("pid") != os.getpid()
    client.open(wait=True)
    assert client.stats().idle == 2


def test_nobody_listens(connect, tmp_path):
    """A socket that a dead server has left is told from none."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{tmp_path}/stale.sock")
    client = connect(f"unix:{tmp_path}/stale.sock", min_workers=1)
    with pytest.raises(gtask.AcquireTimeout, match=r"server unreachable since \S+ s: connection refused at unix:"):
        client.open(wait=True, timeout=0.2)


def test_setup_raises(serve, connect, tmp_path):
    """Its own exception comes at once, with the worker's frames; when setup works again, so does the client."""
    client = connect(serve(BROKEN), min_workers=2)
    with pytest.raises(LookupError, match="no database at königsberg") as caught:
        client.open(wait=True, timeout=1000)  # which the test does not have
    assert isinstance(caught.value, gtask.SetupError)
    assert caught.traceback[-1].name == "setup"
    with pytest.raises(gtask.SetupError):
        client.open(wait=True, timeout=1000)
    (tmp_path / "repaired").touch()
    client.open(wait=True)
    assert client.stats().idle == 2
    assert client.call("pid") != os.getpid()


def test_there_are_fewer_than_that(serve, connect, tmp_path):
    """It is said how many came; those that came serve, and the others are waited for."""
    os.mkfifo(tmp_path / "gate")
    client = connect(serve(ONLY_ONE), min_workers=2)
    client.open()
    wait_until(lambda: client.stats().idle == 1, what="the first worker")
    with pytest.raises(gtask.AcquireTimeout, match=r"1 of min_workers=2 workers came.* 1 starting"):
        client.open(wait=True, timeout=0.2)
    with client.checkout() as worker:
        assert worker.pid() == worker.pid()
    (tmp_path / "gate").write_text("")
    client.open(wait=True)
    assert client.stats().idle == 2


def test_setup_takes_too_long(serve, connect, tmp_path):
    """It is said that a worker is starting, and not that the server cannot be reached."""
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "first").touch()
    client = connect(serve(ONLY_ONE), min_workers=1)
    client.open()
    wait_until(lambda: client.stats().connecting == 1, what="an attempt")
    # Until the server listens, attempts fail: the one that does not is in setup.
    wait_until(lambda: "since" not in str(refusal(client)), what="a worker that starts")
    assert "0 of min_workers=1 workers came" in str(refusal(client))
    assert "starting" in str(refusal(client))
    (tmp_path / "gate").write_text("")  # once the worker waits there: it may still be on its way
    client.open(wait=True)


def refusal(client):
    with pytest.raises(gtask.AcquireTimeout) as caught:
        client.open(wait=True, timeout=0.05)
    return caught.value


def test_it_is_closed_meanwhile(connect, tmp_path):
    """Who waits is told at once."""
    client = connect(f"unix:{tmp_path}/nobody.sock", min_workers=1)
    opening = gevent.spawn(client.open, wait=True, timeout=1000)
    turn_hub()
    client.close()
    with pytest.raises(gtask.ClientClosed):
        opening.get()


def test_it_is_made_smaller_meanwhile(serve, connect, tmp_path):
    """What is waited for is the minimum as it is by then, and it is there at once."""
    os.mkfifo(tmp_path / "gate")
    client = connect(serve(ONLY_ONE), min_workers=2)
    opening = gevent.spawn(client.open, wait=True, timeout=1000)
    wait_until(lambda: client.stats().idle == 1, what="the first worker")
    assert not opening.ready()
    client.resize(1, 20)
    opening.get()
    (tmp_path / "gate").write_text("")


def test_several_wait(shared, connect):
    """Each of them is told."""
    client = connect(shared(SOURCE), min_workers=2)
    gevent.joinall([gevent.spawn(client.open, wait=True) for _ in range(5)], raise_error=True)
    assert client.stats().idle == 2


def test_whoever_waits_can_be_interrupted(serve, connect, tmp_path):
    """By a gevent.Timeout of its own or by a kill; the client does not mind."""
    address = f"unix:{tmp_path}/later.sock"
    client = connect(address, min_workers=1)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        client.open(wait=True)
    opening = gevent.spawn(client.open, wait=True)
    turn_hub()
    opening.kill()
    serve(SOURCE, address=address)
    client.open(wait=True)


def test_without_wait_it_never_blocks(serve, connect, tmp_path):
    """Whether there is a server or not; the workers come afterwards."""
    nobody, server = connect(f"unix:{tmp_path}/nobody.sock", min_workers=2), serve(SOURCE)
    client = connect(server, min_workers=2)
    assert switches(nobody.open) == switches(client.open) == 0
    assert client.stats().connecting == 2
    wait_until(lambda: client.stats().idle == 2, what="the workers")


def test_a_client_is_lazy(serve, connect):
    """Made, entered and looked at, it has no worker; its first checkout brings min_workers, and does not block."""
    server = serve(SOURCE)
    connect(server).call("pid")  # the server is there
    with connect(server, min_workers=2) as client:
        turn_hub()
        stats = client.stats()
        assert (stats.idle, stats.connecting, stats.connects) == (0, 0, 0)
        assert "not yet open" in repr(client)
        assert len(workers_of(server)) == 1
        assert switches(client.checkout) == 0
        assert client.stats().connecting == 2
        client.open(wait=True)
        assert len(workers_of(server)) == 3
    wait_until(lambda: len(workers_of(server)) == 1, what="the end of the workers")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "soon"])
def test_bad_time_outs(connect, tmp_path, timeout):
    """The message says what is allowed."""
    client = connect(f"unix:{tmp_path}/nobody.sock", min_workers=1)
    with pytest.raises((ValueError, TypeError), match=r"timeout=.*: write a number of seconds over 0"):
        client.open(wait=True, timeout=timeout)


def test_there_may_be_no_limit(serve, connect, tmp_path):
    """timeout=None waits as long as it takes."""
    address = f"unix:{tmp_path}/later.sock"
    client = connect(address, min_workers=1)
    opening = gevent.spawn(client.open, wait=True, timeout=None)
    wait_until(lambda: client.stats().failed_connects > 1, what="attempts that fail")
    serve(SOURCE, address=address)
    opening.get()
    assert client.stats().idle == 1
