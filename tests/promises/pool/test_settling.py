"""The point of this test is to ensure that a released worker is lent again only when its checkout_done hook is done.

A worker without that hook can be lent at once, and hears of the end of the checkout with the next request. A worker
that asks to be retired is, and its reason is counted.
"""

import math
import os
import socket
import struct

import gevent
import msgpack
import pytest

import gtask
from gtask.client.pool import pool, workers
from tests.support.waiting import wait_until

PLAIN = """
    import os
    import sys

    def pid():
        return os.getpid()

    def echo(value):
        return value

    def leave():
        sys.exit(3)

    def fail():
        raise LookupError("on purpose")

    def memory():
        raise MemoryError
"""
QUICK = (
    PLAIN
    + """
    def checkout_done():
        with open(os.path.join(DIR, "done"), "a") as file:
            file.write("done\\n")
"""
)
GATED = (
    PLAIN
    + """
    def checkout_done():
        if os.path.exists(os.path.join(DIR, "gate")):
            open(os.path.join(DIR, "inside"), "w").close()
            with open(os.path.join(DIR, "gate")) as gate:
                gate.read()
"""
)
BROKEN = (
    PLAIN
    + """
    def checkout_done():
        if os.path.exists(os.path.join(DIR, "broken")):
            raise RuntimeError("the hook is broken")
"""
)


# --- when it is lent again ---------------------------------------------------------------------------------


def test_sequential_checkouts_with_a_quick_hook_use_one_worker(serve, connect, tmp_path):
    """The next checkout waits for the hook rather than for a new worker; the hook runs after each."""
    client = connect(serve(QUICK), max_workers=5)
    pids = {client.call("pid") for _ in range(100)}
    assert len(pids) <= 2  # a second one only if a busy machine took longer over a hook than a start takes
    wait_until(lambda: len((tmp_path / "done").read_text().split()) == 100)


def test_sequential_checkouts_without_a_hook_use_one_worker(shared, connect):
    """It is idle, not settling, in the very moment of its release."""
    client = connect(shared(PLAIN), max_workers=5)
    for _ in range(20):
        client.call("pid")
        assert (client.stats().idle, client.stats().settling) == (1, 0)
    assert client.stats().connects == 1


def test_a_worker_in_its_hook_is_settling(serve, connect, tmp_path):
    """It is not lent meanwhile, though somebody waits; and is, once the hook is done."""
    client = connect(serve(GATED), max_workers=1)
    pid = client.call("pid")
    wait_until(lambda: client.stats().idle == 1)
    os.mkfifo(tmp_path / "gate")
    assert client.call("pid") == pid
    assert (client.stats().settling, client.stats().busy) == (1, 0)
    wait_until((tmp_path / "inside").exists)
    following = gevent.spawn(client.call, "pid")
    wait_until(lambda: client.stats().waiting == 1)
    assert client.stats().settling == 1
    gate = open(tmp_path / "gate", "w")  # noqa: SIM115  # closed when the next hook need not wait any more
    (tmp_path / "gate").unlink()
    gate.close()
    assert following.get() == pid
    wait_until(lambda: client.stats().idle == 1)
    assert client.stats().connects == 1


def test_a_slow_hook_does_not_keep_others_waiting(serve, connect, tmp_path):
    """Where the pool can grow, the next checkout gets another worker while the hook still runs."""
    client = connect(serve(GATED), max_workers=2)
    os.mkfifo(tmp_path / "gate")
    pid = client.call("pid")
    wait_until((tmp_path / "inside").exists)
    with client.checkout() as worker:
        assert worker.pid() != pid
        assert client.stats().settling == 1
        (tmp_path / "gate").write_text("")
        wait_until(lambda: client.stats().idle == 1)
        (tmp_path / "gate").unlink()
    assert client.stats().connects == 2
    wait_until(lambda: client.stats().idle == 2)


def test_the_end_of_a_checkout_ends_the_wait_for_it(serve, connect, tmp_path):
    """``close(timeout)`` does not wait for hooks; they finish all the same, and then their workers end."""
    client = connect(serve(GATED), max_workers=1)
    os.mkfifo(tmp_path / "gate")
    pid = client.call("pid")
    wait_until((tmp_path / "inside").exists)
    client.close(timeout=60)
    (tmp_path / "gate").write_text("")
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the worker")


# --- what is on the wire -----------------------------------------------------------------------------------


class Peer:
    """A worker by hand, for one connection: it is driven by the test and records what the client says."""

    def __init__(self, path, done=None):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.listener.setblocking(False)
        self.done = done
        self.socket = None
        self.heard = []
        self._buffer = b""

    def accept(self):
        def greeted():
            if self.socket is None:
                try:
                    self.socket = self.listener.accept()[0]
                except BlockingIOError:
                    return False
                self.socket.setblocking(False)
            return self.hear() and self.heard[0][0] == "hi"

        wait_until(greeted)
        self.heard.pop(0)
        self.say("hi", {"v": 1, "pid": os.getpid(), "name": "by hand", **({"done": True} if self.done else {})})

    def hear(self):
        try:
            self._buffer += self.socket.recv(65536)
        except BlockingIOError:
            pass
        while len(self._buffer) >= 4:
            end = 4 + struct.unpack(">I", self._buffer[:4])[0]
            if len(self._buffer) < end:
                break
            message = msgpack.unpackb(self._buffer[4:end])
            if message[0] != "be":  # what it must know before a call is not what this is about
                self.heard.append(message)
            self._buffer = self._buffer[end:]
        return self.heard

    def kinds(self):
        return [message[0] for message in self.hear()]

    def expect(self, *kinds):
        wait_until(lambda: self.kinds() == list(kinds), what=f"{kinds}, where there is {self.kinds()},")
        self.heard.clear()

    def say(self, *message):
        frame = msgpack.packb(list(message))
        self.socket.send(struct.pack(">I", len(frame)) + frame)

    def close(self):
        for sock in (self.socket, self.listener):
            if sock is not None:
                sock.close()


@pytest.fixture
def peer(tmp_path):
    """``peer(done)`` listens at ``peer.path``; it speaks when the test says so."""
    peers = []

    def make(done):
        peers.append(Peer(f"{tmp_path}/peer.sock", done))
        return peers[0], f"unix:{tmp_path}/peer.sock"

    yield make
    for each in peers:
        each.close()


def in_checkout(client):
    """One call in a checkout of its own."""
    with client.checkout() as checkout:
        return checkout.echo(1)


def first_call(client, peer):
    """The first such call, for which the peer is connected."""
    calling = gevent.spawn(in_checkout, client)
    peer.accept()
    peer.expect("do")
    peer.say("ok", None, 1)
    assert calling.get() == 1


def call(client, peer):
    """A call in a checkout, answered by the peer; returns what the peer heard for it."""
    calling = gevent.spawn(in_checkout, client)
    wait_until(lambda: "do" in peer.kinds())
    heard = peer.kinds()
    peer.heard.clear()
    peer.say("ok", None, 1)
    assert calling.get() == 1
    return heard


def test_where_nothing_was_announced_the_end_rides_with_the_next_request(connect, peer, monkeypatch):
    """The first end is sent at once. Where many have been, nothing is sent at release; the next request brings both."""
    monkeypatch.setattr(pool, "LONG", math.inf)
    monkeypatch.setattr(workers, "TELLS", 0)
    monkeypatch.setattr(workers, "TELL_EVERY", 1e9)
    worker, address = peer(done=False)
    client = connect(address, max_workers=1)
    opening = gevent.spawn(client.open)
    opening.get()
    first_call(client, worker)
    assert client.stats().idle == 1
    worker.expect("dn")
    assert worker.kinds() == []
    assert call(client, worker) == ["do"]
    assert worker.kinds() == []
    assert call(client, worker) == ["dn", "do"]
    assert worker.kinds() == []


def test_ends_that_are_told_beyond_the_budget_leave_no_debt(connect, peer):
    """Those of long checkouts and of the main greenlet: after any number of them others are told again at once."""
    worker, address = peer(done=False)
    client = connect(address, max_workers=1)
    first_call(client, worker)
    worker.expect("dn")
    pool = client._pool._workers
    now = pool.loop.clock()
    for _ in range(10 * workers.TELLS):
        pool.told(now)
    assert now < pool.tell_from <= now + workers.TELL_EVERY


def test_a_call_without_a_checkout_announces_its_end(connect, peer):
    """It comes right behind the request, for the next call, too; of a checkout that has lasted it comes behind none."""
    worker, address = peer(done=False)
    client = connect(address, max_workers=1)
    calling = gevent.spawn(client.call, "echo", 1)
    worker.accept()
    worker.expect("do", "dn")
    worker.say("ok", None, 1)
    assert calling.get() == 1
    assert call(client, worker) == ["do"]
    worker.expect("dn")
    future = client.executor().submit("app:echo", 2)
    worker.expect("do", "dn")
    worker.say("ok", None, 2)
    assert future.result() == 2
    assert worker.kinds() == []


def test_a_release_with_calls_under_way_is_told_behind_them(connect, peer):
    """At once, though the hub does not turn: the worker may be free long before its replies are read."""
    worker, address = peer(done=False)
    client = connect(address, max_workers=1)
    first_call(client, worker)
    worker.expect("dn")
    with client.checkout() as checkout:
        results = [checkout.echo.submit(number) for number in range(20)]
    assert worker.kinds() == ["do"] * 20 + ["dn"]
    for number in range(20):
        worker.say("ok", None, number)
    assert [result.get() for result in results] == list(range(20))
    assert client.stats().idle == 1
    assert worker.kinds() == ["do"] * 20 + ["dn"]


def test_where_a_hook_was_announced_the_end_is_sent_at_once(connect, peer):
    """The worker is settling until it has answered; the next request goes out only then."""
    worker, address = peer(done=True)
    client = connect(address, max_workers=1)
    first_call(client, worker)
    worker.expect("dn")
    following = gevent.spawn(client.call, "echo", 2)
    wait_until(lambda: client.stats().waiting == 1)
    assert worker.kinds() == []
    assert client.stats().settling == 1
    worker.say("dn", None)
    worker.expect("do")
    worker.say("ok", None, 2)
    assert following.get() == 2
    worker.expect("dn")


def test_an_idle_worker_that_says_by_is_closed_at_once(connect, peer):
    """Not when it would be lent next; its reason is counted."""
    worker, address = peer(done=False)
    client = connect(address, max_workers=1)
    first_call(client, worker)
    worker.say("by", {"why": "draining"})
    wait_until(lambda: client.stats().retirements == {"draining": 1})
    assert client.stats().idle == 0
    wait_until(lambda: is_closed(worker), what="the end of the connection")


def test_a_lent_worker_that_says_by_serves_to_the_end_of_its_checkout(connect, peer):
    """Its calls go on; after the release it is closed, and its reason counted, once."""
    worker, address = peer(done=False)
    client = connect(address, max_workers=1)
    checkout = client.checkout()
    first = checkout.echo.submit(1)
    worker.accept()
    worker.expect("do")
    worker.say("by", {"why": "over its memory limit"})
    worker.say("ok", None, 1)
    assert first.get() == 1
    assert client.stats().busy == 1
    second = checkout.echo.submit(2)
    worker.expect("do")
    worker.say("ok", None, 2)
    assert second.get() == 2
    assert client.stats().retirements == {}
    checkout.release()
    assert client.stats().retirements == {"over its memory limit": 1}
    wait_until(lambda: is_closed(worker), what="the end of the connection")


def test_a_settling_worker_that_says_by_is_not_lent_again(connect, peer):
    """It is closed when its hook is done."""
    worker, address = peer(done=True)
    client = connect(address, max_workers=1)
    first_call(client, worker)
    worker.expect("dn")
    worker.say("by", {})
    worker.say("dn", None)
    wait_until(lambda: client.stats().retirements == {"asked to be retired": 1})
    wait_until(lambda: is_closed(worker), what="the end of the connection")


def is_closed(peer):
    try:
        return peer.socket.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


# --- why workers of gtask-server ask to be retired ---------------------------------------------------------


def test_a_hook_that_raises(serve, connect, tmp_path):
    """The worker is retired as soon as it has said so, and the reason is counted."""
    client = connect(serve(BROKEN), max_workers=1)
    (tmp_path / "broken").touch()
    pid = client.call("pid")
    wait_until(lambda: client.stats().retirements == {"checkout_done raised RuntimeError": 1})
    assert client.stats().idle == client.stats().settling == 0
    (tmp_path / "broken").unlink()
    assert client.call("pid") != pid


@pytest.mark.parametrize("refork_after_error", [True, False])
@pytest.mark.parametrize(("method", "error"), [("leave", "SystemExit"), ("memory", "MemoryError")])
def test_a_call_that_should_have_ended_the_process(shared, connect, method, error, refork_after_error):
    """The caller gets the error, the checkout goes on, and then the worker is retired for that very reason, also
    where workers that raised are kept."""
    client = connect(shared(PLAIN), max_workers=1, refork_after_error=refork_after_error)
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.RemoteError):
            worker.call(method)
        assert worker.pid() == pid
        assert client.stats().retirements == {}
    assert client.stats().retirements == {f"a call raised {error}": 1}
    assert client.call("pid") != pid


def test_a_call_that_raised(shared, connect):
    """The client's own reason is counted where the worker has given none, and only where workers are not kept."""
    server = shared(PLAIN)
    for refork_after_error, expected in ((True, {"a call raised": 1}), (False, {})):
        client = connect(server, max_workers=1, refork_after_error=refork_after_error)
        with client.checkout() as worker, pytest.raises(LookupError):
            worker.fail()
        assert client.stats().retirements == expected
