"""The point of this test is to ensure that peers which say little cannot keep a server from those who call it.

A connection gets a worker when its first byte has come. Silent ones are few, those of one user can be bounded, idle
clients give their workers back, and who asks about the server is answered while all workers are taken.
"""

import contextlib
import json
import os
import select
import socket
from time import monotonic

import gevent
import pytest

import gtask
from gtask.wire.frames import Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.messages import Failure, Greeting, Request, Retire
from tests.promises.server.test_tool_call import tool
from tests.support.daemon import daemon
from tests.support.waiting import PATIENCE, SOON, wait_until

encode = Encoder().encode


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(*options)`` runs a daemon; gives it."""
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(daemon(tmp_path, *options))


@pytest.fixture
def knock():
    """``knock(server, count)`` connects so many peers that say nothing."""
    peers = []

    def connect(server, count=1):
        for _ in range(count):
            peers.append(socket.socket(socket.AF_UNIX))
            peers[-1].settimeout(PATIENCE)
            peers[-1].connect(server.address.removeprefix("unix:"))
        return peers[-count:]

    yield connect
    for peer in peers:
        peer.close()


def hears(peer):
    """All messages of the server, until it hangs up."""
    reader, found = ReplyDecoder(), []
    with contextlib.suppress(ConnectionResetError):
        while count := peer.recv_into(reader.space):
            found += reader.received(count)
    return found


def is_open(peer):
    """Whether the server has not hung up on a peer to which it has said nothing."""
    return not select.select([peer], (), (), 0)[0]


def status_of(server):
    status, out, err = tool("status", server.address, "--json")
    assert status == 0, err
    return json.loads(out)


def test_silent_peers(start, knock, connect):
    """They get no worker, and so they take none of others, whatever max_workers is."""
    server = start("--max-workers", "2")
    knock(server, 20)
    client = connect(server)
    with client.checkout() as one, client.checkout() as other:
        assert one.pid() != other.pid()
        assert len(server.workers) == 2


def test_silent_peers_go(start, knock):
    """After greeting_timeout; those that hang up before are forgotten at once."""
    server = start("--greeting-timeout", "0.3")
    held = len(os.listdir(f"/proc/{server.master}/fd"))
    for peer in knock(server, 5)[:2]:
        peer.close()
    wait_until(lambda: len(os.listdir(f"/proc/{server.master}/fd")) == held, "the master has closed them")
    assert status_of(server)["totals"]["forked"] == 0  # but for the one that tells it


def test_many_silent_peers(start, knock, connect):
    """The oldest makes room for the next, and the log says who it was and by which limit."""
    server = start("--limit-strangers", "3")
    peers = knock(server, 5)
    wait_until(lambda: not is_open(peers[0]) and not is_open(peers[1]), "the oldest are hung up on")
    assert all(map(is_open, peers[2:]))
    server.wait_for(f"process {os.getpid()} of user {os.getuid()} was hung up on", 2)
    assert "(limit_strangers)" in server.log
    peers[2].sendall(encode(Greeting()))  # who speaks is no stranger any more
    assert b"hi" in peers[2].recv(65536)
    assert connect(server).call("pid") > 0


def test_a_server_that_is_full_tells_about_itself(start, connect):
    """With all its workers taken: who has them. A caller that waits is served when there is room."""
    server = start("--max-workers", "1")
    client, other = connect(server, name="holder"), connect(server, name="waits")
    with client.checkout() as checkout:
        pid = checkout.pid()
        waiting = gevent.spawn(other.call, "pid")
        server.wait_for("there are 1 workers (max_workers)")
        (worker,) = status_of(server)["workers"]
        assert worker["pid"] == pid
        assert worker["client"] == {"name": "holder", "pid": os.getpid(), "uid": os.getuid()}
        for command in ("ping", "methods", "status"):
            status, _, err = tool(command, server.address)
            assert status == 0, err
        assert not waiting.ready()
    client.close()
    assert waiting.get(timeout=PATIENCE) > 0


def test_who_only_seems_to_ask(start, connect, knock):
    """Whatever looks as if it asked about a full server gets an answer about it, and no worker of the application."""
    server = start("--max-workers", "1")
    with connect(server).checkout() as checkout:
        checkout.pid()
        (peer,) = knock(server)
        peer.sendall(encode(Greeting(name="x\x05")) + encode(Request(["pid", b"\xa5about\xc3"])))
        peer.shutdown(socket.SHUT_WR)
        greeting, reply = hears(peer)
        assert isinstance(greeting, Greeting)
        assert isinstance(reply, Failure)


def test_many_connections_of_one_user(start, connect):
    """One more is refused, and its caller is told the limit and its option; when one has gone there is room."""
    server = start("--limit-per-uid", "2")
    client = connect(server, max_workers=2)
    with client.checkout() as one, client.checkout() as other:
        one.pid(), other.pid()
        with pytest.raises(
            gtask.Error, match=r"has 2 connections to .* already \(limit_per_uid\).*larger --limit-per-uid"
        ):
            connect(server, timeout=3).call("pid")
    client.close()
    wait_until(lambda: not server.workers, "the workers end")
    assert connect(server).call("pid") > 0
    assert "refused: process" in server.log


def test_an_idle_peer(start, knock):
    """It is asked to let go, and then hung up on; the log says why."""
    server = start("--idle-timeout", "0.3")
    (peer,) = knock(server)
    peer.sendall(encode(Greeting(name="idle")))
    greeting, asked, *_ = hears(peer)
    assert isinstance(greeting, Greeting)
    assert isinstance(asked, Retire)
    server.wait_for("was idle for")
    assert "(idle_timeout)" in server.log


def test_an_idle_client(start, connect):
    """A client of gtask gives its idle worker back, is served as before, and loses no checkout however long it is."""
    server = start("--idle-timeout", "0.3")
    client = connect(server)
    client.call("pid")
    wait_until(lambda: not server.workers, "the worker goes")
    with client.checkout() as checkout:
        pid = checkout.pid()
        gevent.sleep(1.5)  # the length of the idleness
        assert checkout.pid() == pid
    assert "was idle for" not in server.log


def test_a_server_with_silent_peers_ends_soon(start, knock):
    """SIGTERM does not wait for their first byte."""
    server = start()
    knock(server, 5)
    began = monotonic()
    assert server.end() == 0
    assert monotonic() - began < SOON


def test_the_default(start):
    """Without a number of workers the log says how many there may be, and why."""
    server = start()
    server.wait_for("workers (--max-workers), for the")
