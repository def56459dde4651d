"""The point of this test is to ensure that each limit of a server strikes at the one who goes beyond it, and says so.

The caller gets an error that names the limit and its option, the log has the same, and others do not notice.
"""

import socket
import struct
import threading

import pytest

import gtask
from gtask.wire.frames import Encoder
from gtask.wire.messages import Extend, Greeting
from tests.support.daemon import daemon
from tests.support.waiting import PATIENCE

SOURCE = """
    _kept = []

    def echo(value):
        return value

    def lists(count):
        return [[] for _ in range(count)]

    def fill(size):
        return len(bytearray(size))

    def hoard(size):
        while True:
            _kept.append(bytes(size))
"""


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(*options)`` runs a daemon; gives it."""
    servers = []

    def run(*options):
        servers.append(daemon(tmp_path, *options, source=SOURCE))
        return servers[-1].__enter__()

    yield run
    for server in servers:
        server.__exit__(None, None, None)


def test_a_long_greeting(start):
    """Its length is enough: the peer is closed, and the log says why."""
    server = start()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(server.address.removeprefix("unix:"))
        peer.sendall(struct.pack("!I", 16 * 1024 + 1))
        assert peer.recv(1) == b""
    server.wait_for("the limit is 16384 (first_message)")


def test_a_client_with_a_long_name_is_refused_where_it_is_made():
    """So that no greeting of gtask's own is too long."""
    with pytest.raises(ValueError, match="it has 1001 characters, write 1000 at most"):
        gtask.Client("unix:/nowhere", name="x" * 1001)


def test_an_argument_with_many_items(start, connect):
    """Its caller is told the limit and its option, and the next call is served."""
    server = start("--limit-items", "10000")
    client = connect(server)
    assert client.call("echo", [[]] * 9000) == [[]] * 9000
    with pytest.raises(gtask.RemoteError, match=r"more than 10,000 lists.*limit_items"):
        client.call("echo", [[]] * 11_000)
    assert client.call("echo", 1) == 1
    server.wait_for("limit_items")


def test_a_value_with_many_items(start, connect):
    """The client refuses what is more than its own limit."""
    client = connect(start(), limit_items=10_000)
    assert client.call("lists", 9000) == [[]] * 9000
    with pytest.raises(gtask.ProtocolError, match=r"more than 10,000 lists.*limit_items"):
        client.call("lists", 11_000)
    assert client.call("echo", 1) == 1


def test_memory(start, connect):
    """A call that needs more than the limit raises MemoryError at its caller; one within it is served."""
    client = connect(start("--limit-memory", "200M"), max_workers=1)
    assert client.call("fill", 50 << 20) == 50 << 20
    with pytest.raises(MemoryError):
        client.call("fill", 300 << 20)
    assert client.call("echo", 1) == 1


def test_memory_that_is_kept(start, connect):
    """The caller hears of it, and the next gets a new worker."""
    client = connect(start("--limit-memory", "200M"), max_workers=1)
    with pytest.raises((MemoryError, gtask.WorkerDied)):
        client.call("hoard", 1 << 20)
    assert client.call("fill", 100 << 20) == 100 << 20


def test_memory_for_an_argument(start, connect):
    """Also what the worker has no memory to read is told."""
    client = connect(start("--limit-memory", "40M", "--limit-message", "100M"), limit_message=100 << 20)
    with pytest.raises((gtask.RemoteError, gtask.WorkerDied)):
        client.call("echo", b"x" * (50 << 20))
    assert client.call("echo", 1) == 1


def test_an_extension(connect, tmp_path):
    """A server cannot lengthen a call for ever, however often it asks for a little more."""
    path = str(tmp_path / "peer")
    encode = Encoder().encode_reply
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def peer():
            with listener.accept()[0] as sock:
                sock.recv(1000)
                sock.sendall(encode(Greeting(pid=7)))
                sock.recv(1000)
                sock.sendall(encode(Extend(1e9)) * 3)
                while sock.recv(1000):
                    pass

        thread = threading.Thread(target=peer)
        thread.start()
        client = connect(f"unix:{path}", timeout=0.1, max_extension=0.2)
        try:
            with pytest.raises(gtask.CallTimeout):
                client.call("f")
        finally:
            client.close()
            thread.join()
