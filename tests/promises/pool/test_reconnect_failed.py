"""The point of this test is to ensure that on_reconnect_failed(client) is called once for each long outage.

It is called in a greenlet of its own when no worker could be had for reconnect_timeout. The attempts go on, whatever it
does. So a program can tell its operator, or end.
"""

import gc
import os
import signal
import weakref
from time import monotonic

import gevent
import gevent.event
import gevent.socket
import pytest

import gtask
from tests.support.waiting import PATIENCE, stays, wait_until

SOURCE = """
    import os

    def echo(value):
        return value
"""


def further_attempts(client, count=3):
    """Wait until so many more have failed."""
    before = client.stats().failed_connects
    wait_until(lambda: client.stats().failed_connects >= before + count, "more attempts")


def end(server, client):
    """The server dies; its workers, which would serve on, are retired."""
    os.kill(server.pid, signal.SIGKILL)
    wait_until(server.obituary, what="the end of the server")
    client.drain()


def test_it_is_called_once_per_outage(serve, connect, tmp_path):
    """With the client; not again while the outage lasts; but again in the next, after the server had been there."""
    address = f"unix:{tmp_path}/server.sock"
    called = []
    client = connect(address, min_workers=1, reconnect_timeout=0.1, on_reconnect_failed=called.append)
    client.open()
    for outage in (1, 2):
        wait_until(lambda outage=outage: len(called) == outage, f"call {outage}")
        further_attempts(client)
        assert called == [client] * outage
        server = serve(SOURCE, address=address)
        assert client.call("echo", outage) == outage
        assert called == [client] * outage
        end(server, client)


def test_it_is_not_called_for_a_short_outage(serve, connect, tmp_path):
    """The server is back before reconnect_timeout; the next outage's time starts anew."""
    address = f"unix:{tmp_path}/server.sock"
    called = []
    client = connect(address, min_workers=1, reconnect_timeout=30, on_reconnect_failed=called.append)
    client.open()
    for _ in range(2):
        further_attempts(client)
        server = serve(SOURCE, address=address)
        assert client.call("echo", 1) == 1
        end(server, client)
    assert called == []


def test_it_is_not_called_before_its_time(connect, tmp_path):
    """reconnect_timeout counts from the first attempt that failed."""
    called = []
    client = connect(
        f"unix:{tmp_path}/never.sock",
        min_workers=1,
        reconnect_timeout=0.4,
        on_reconnect_failed=lambda _: called.append(monotonic()),
    )
    began = monotonic()
    client.open()
    wait_until(lambda: called, what="the call")
    assert called[0] - began >= 0.4


def test_a_failing_setup_counts_as_well(serve, connect, tmp_path):
    """A server without one worker that is fit for use is as good as none, and no end of the outage."""
    called = []
    address = f"unix:{tmp_path}/server.sock"
    client = connect(address, min_workers=1, reconnect_timeout=0.2, on_reconnect_failed=called.append)
    client.open()
    further_attempts(client)
    serve("def setup(): 1 / 0\ndef echo(value): return value", address=address)
    wait_until(lambda: "setup has raised" in reason(client), "a setup")
    wait_until(lambda: called, "the call")
    before = monotonic()
    further_attempts(client)
    wait_until(lambda: monotonic() > before + 0.3)  # as long as the first took, and longer
    assert called == [client]


def reason(client):
    """Why there is no worker."""
    with pytest.raises(gtask.Error) as caught, client.checkout(timeout=0.05) as worker:
        worker.echo(1)
    return "setup has raised" if isinstance(caught.value, gtask.SetupError) else str(caught.value)


def test_a_server_that_comes_and_goes_without_a_worker_is_no_end_of_the_outage(connect, tmp_path):
    """As one whose program crashes again and again: it is reached now and then, and no worker ever comes."""
    called, path = [], f"{tmp_path}/server.sock"
    client = connect(f"unix:{path}", min_workers=1, reconnect_timeout=1.5, on_reconnect_failed=called.append)
    began = monotonic()
    client.open()
    while not called:
        assert monotonic() < began + PATIENCE
        further_attempts(client, 2)  # that of the last round, and one without any server
        with gevent.socket.socket(gevent.socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            listener.settimeout(10)
            listener.accept()[0].close()
        os.unlink(path)
    assert monotonic() - began >= 1.5
    assert called == [client]


def test_it_has_a_greenlet_of_its_own(serve, connect, tmp_path):
    """It may block: attempts go on, and callers are served meanwhile."""
    address = f"unix:{tmp_path}/server.sock"
    entered, leave = [], gevent.event.Event()

    def report(client):
        entered.append(gevent.getcurrent())
        leave.wait()

    client = connect(address, min_workers=1, reconnect_timeout=0.05, on_reconnect_failed=report)
    client.open()
    caller = gevent.spawn(client.call, "echo", "served")
    wait_until(lambda: entered, what="the call")
    further_attempts(client)
    serve(SOURCE, address=address)
    assert caller.get() == "served"
    (greenlet,) = entered
    assert isinstance(greenlet, gevent.Greenlet)
    assert greenlet not in (caller, gevent.getcurrent())
    assert not greenlet.dead
    leave.set()
    greenlet.join()


def test_an_exception_in_it_harms_nobody(serve, connect, tmp_path, capfd):
    """It is printed as that of any greenlet; attempts go on, callers are served, and the next outage is told, too."""
    address = f"unix:{tmp_path}/server.sock"
    called = []

    def report(client):
        called.append(client)
        raise LookupError("the pager is broken")

    client = connect(address, min_workers=1, reconnect_timeout=0.05, on_reconnect_failed=report)
    client.open()
    caller = gevent.spawn(client.call, "echo", "served")
    wait_until(lambda: called, what="the call")
    further_attempts(client)
    server = serve(SOURCE, address=address)
    assert caller.get() == "served"
    end(server, client)
    wait_until(lambda: len(called) == 2, what="the second call")
    wait_until(lambda: "the pager is broken" in capfd.readouterr().err, what="the traceback")


def test_it_may_close_the_client(connect, tmp_path):
    """The usual reaction of a program that cannot work without: its callers hear of it."""
    client = connect(
        f"unix:{tmp_path}/never.sock",
        timeout=None,
        reconnect_timeout=0.05,
        on_reconnect_failed=lambda client: client.close(),
    )
    caller = gevent.spawn(client.call, "echo", 1)
    with pytest.raises(gtask.ClientClosed):
        caller.get()


def test_it_does_not_keep_the_client_alive(tmp_path):
    """A client that is dropped amid an outage is gone, its attempts end, and nobody is called."""
    called = []
    client = gtask.Client(
        f"unix:{tmp_path}/never.sock", reconnect_timeout=0.2, on_reconnect_failed=lambda _: called.append("called")
    )
    client.open()
    further_attempts(client, 2)
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    stays(lambda: called == [], 0.3)  # past the time at which it would have been called


def test_nothing_is_called_after_close(connect, tmp_path):
    """A client that was closed has no outages."""
    called = []
    client = connect(
        f"unix:{tmp_path}/never.sock", min_workers=1, reconnect_timeout=0.1, on_reconnect_failed=called.append
    )
    client.open()
    wait_until(lambda: client.stats().failed_connects >= 1, what="an attempt")
    client.close()
    stays(lambda: called == [], 0.2)  # past the time at which it would have been called
