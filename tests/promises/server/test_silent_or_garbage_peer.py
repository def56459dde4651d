"""The point of this test is to ensure that a peer which does not speak the protocol is closed, and disturbs nobody.

At the server: garbage, an HTTP request, an impossible length, half a greeting, nothing at all. At the client: it says
clearly that what it found is no gtask server.
"""

import contextlib
import os
import struct
import subprocess
import sys
from time import monotonic

import gevent
import gevent.server
import gevent.socket
import pytest

import gtask
from gtask.wire.frames import Encoder
from gtask.wire.messages import Done, Greeting, Request, Value
from tests.support.waiting import PATIENCE, wait_until

SOURCE = """
import os, sys, gtask

def echo(value):
    return value

gtask.Server("unix:" + sys.argv[1], {"echo": echo}, greeting_timeout=float(sys.argv[2])).run()
"""

encode = Encoder().encode
HI = encode(Greeting())

WRONG_FROM_THE_START = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a length of 4 GB": b"\xff\xff\xff\xff",
    "one byte over the limit": struct.pack("!I", 64 * 1024 * 1024 + 1),
    "no msgpack": b"\x00\x00\x00\x05\xc1\xc1\xc1\xc1\xc1",
    "no array": b"\x00\x00\x00\x01\x01",
    "an empty frame": b"\x00\x00\x00\x00",
    "a call before the greeting": encode(Request(["echo", 1])),
    "a reply": encode(Value(1)),
    "another version": encode(Greeting(version=99)),
    "an unknown kind": b"\x00\x00\x00\x05\x92\xa2no\xc0",
    "a nesting bomb": struct.pack("!I", 2000) + b"\x91" * 2000,
    "arrays announced and not there": b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff",
}
WRONG_AFTER_THE_GREETING = {
    "garbage": b"\xde\xad\xbe\xef" * 100,
    "a second greeting": HI,
    "a reply": encode(Value(1)),
    "the end of a checkout, and a greeting": encode(Done()) + HI,
}


@pytest.fixture
def start(tmp_path):
    """``start(greeting_timeout)`` runs a server with this option; gives its address."""
    processes = []

    def run(greeting_timeout):
        path = f"{tmp_path}/server.sock"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        processes.append(subprocess.Popen([sys.executable, "-c", SOURCE, path, str(greeting_timeout)], env=environment))
        wait_until(lambda: os.path.exists(path), what="the server's socket")
        return f"unix:{path}"

    yield run
    for process in processes:
        process.terminate()
        assert process.wait(10) == 0


def peer(address):
    sock = gevent.socket.socket(gevent.socket.AF_UNIX)
    sock.settimeout(10)
    wait_until(lambda: sock.connect_ex(address.removeprefix("unix:")) == 0, what="a connection")
    return sock


def read_to_the_end(sock):
    """All that the server says before it closes; a close with unread bytes in its hands is a reset."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            said += data
    return said


def test_garbage_instead_of_a_greeting(start, connect):
    """It is closed without a word, long before it would be for its silence; a checkout beside it does not notice."""
    address = start(60)
    with connect(address).checkout() as worker:
        for what, garbage in WRONG_FROM_THE_START.items():
            with peer(address) as sock:
                sock.sendall(garbage)
                assert read_to_the_end(sock) == b"", what
            assert worker.echo(what) == what
            assert connect(address).call("echo", what) == what


def test_garbage_after_the_greeting(start, connect):
    """It got its greeting, and is closed."""
    address = start(60)
    with connect(address).checkout() as worker:
        for what, garbage in WRONG_AFTER_THE_GREETING.items():
            with peer(address) as sock:
                sock.sendall(HI)
                assert b"hi" in sock.recv(65536)
                sock.sendall(garbage)
                read_to_the_end(sock)
            assert worker.echo(what) == what


@pytest.mark.parametrize("first", [b"", b"\x00\x00", HI[:-1]], ids=["nothing", "half a length", "half a greeting"])
def test_silence(start, connect, first):
    """20 peers that do not say a whole greeting are closed after a while; meanwhile others are served."""
    address = start(0.5)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(peer(address)) for _ in range(20)]
        for sock in peers:
            sock.sendall(first)
        client = connect(address)
        assert client.call("echo", 1) == 1
        assert [read_to_the_end(sock) for sock in peers] == [b""] * 20
        assert client.call("echo", 2) == 2


def test_a_trickle_is_not_better_than_silence(start):
    """A peer that says a byte now and then has no longer to greet than one that says nothing."""
    with peer(start(0.5)) as sock:
        sock.sendall(struct.pack("!I", 1_000_000))
        deadline = monotonic() + PATIENCE
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012 - one more byte, until it is closed
            while monotonic() < deadline:
                sock.sendall(b"x")
                gevent.sleep(0.05)  # the trickle


def test_a_greeted_client_may_be_silent(start, connect):
    """The bound is for the greeting only: a pooled worker waits for its next call for as long as it takes."""
    address = start(0.3)
    client = connect(address)
    with client.checkout() as worker:
        assert worker.echo(1) == 1
        with peer(address) as sock:
            assert read_to_the_end(sock) == b""  # so that long, at least
        assert worker.echo(2) == 2


# --- a client that finds something else --------------------------------------------------------------------


def answer_http(sock, _):
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def answer_nothing(sock, _):
    pass


def answer_a_reply(sock, _):
    sock.recv(65536)
    sock.sendall(encode(Value(1)))


def answer_another_version(sock, _):
    sock.recv(65536)
    sock.sendall(encode(Greeting(version=99)))


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (answer_http, "is it a gtask peer"),
        (answer_nothing, "closed the connection|broke the connection"),
        (answer_a_reply, "said 'ok'"),
        (answer_another_version, "speaks version 99 of the protocol, this side version 1"),
    ],
)
def test_a_client_that_finds_no_gtask_server(connect, tmp_path, handle, reason):
    """The error names the address and says what it found there."""
    path = f"{tmp_path}/other.sock"
    with gevent.socket.socket(gevent.socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = gevent.server.StreamServer(listener, handle)
        server.start()
        try:
            client = connect(f"unix:{path}", timeout=0.3)
            with pytest.raises(gtask.AcquireTimeout, match=reason) as caught:
                client.call("echo", 1)
            assert path in str(caught.value)
        finally:
            client.close()
            server.stop()


def test_a_client_that_finds_nobody_who_greets(connect, tmp_path):
    """A listener that accepts nothing: setup_timeout bounds each attempt, and the error says it."""
    path = f"{tmp_path}/other.sock"
    with gevent.socket.socket(gevent.socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        client = connect(f"unix:{path}", timeout=1, setup_timeout=0.2)
        with pytest.raises(gtask.AcquireTimeout, match=r"nobody greeted.*is it a gtask server"):
            client.call("echo", 1)
        client.close()


def test_a_path_that_is_no_socket(connect, tmp_path):
    """A plain file: as unreachable as a server that is not there."""
    (tmp_path / "file").write_text("")
    with pytest.raises(gtask.AcquireTimeout, match="unreachable"):
        connect(f"unix:{tmp_path}/file", timeout=0.2).call("echo", 1)
