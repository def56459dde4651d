"""The point of this test is to ensure that a worker is idle only while nothing has come: a message is seen on its way.

From its first byte on ``gtask status`` shows that the worker reads, and ``hung_worker_timeout`` bounds it.
"""

import json
import signal
import socket
import struct

import pytest

from gtask.wire.frames import Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.messages import Done, Greeting, LastWords, Request, Retire, Value
from tests.promises.server.test_tool_call import tool
from tests.support.daemon import daemon
from tests.support.waiting import PATIENCE, text_once_written, wait_until

SOURCE = """
    def echo(value):
        return value

    def teardown():
        with open("ended", "a") as file:
            file.write("teardown")
"""

encode = Encoder().encode
HI = encode(Greeting(name="half"))
BIG = encode(Request(["echo", "x" * 300_000]))
SLOW = encode(Request(["echo", [{n} for n in range(400_000)]]))
"""A message whose decoding takes long, without a place where Python looks for signals."""


class Peer:
    """A client that says what it is told to, in pieces."""

    def __init__(self, server):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(server.address.removeprefix("unix:"))
        self._reader, self._heard = ReplyDecoder(), []

    def says(self, data):
        self.socket.sendall(data)

    def hears(self):
        """The next message; after the end of the stream the last words, or None."""
        while not self._heard:
            count = self.socket.recv_into(self._reader.space)
            if not count:
                return self._reader.ended()
            self._heard = self._reader.received(count)
        return self._heard.pop(0)

    def __enter__(self):
        self.says(HI)
        assert isinstance(self.hears(), Greeting)
        return self

    def __exit__(self, *_):
        self.socket.close()


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


def state_of_worker(server):
    """The state of the only worker, as ``gtask status`` tells it."""
    status, out, _ = tool("status", server.address, "--json")
    assert status == 0
    ((worker),) = json.loads(out)["workers"]
    return worker["state"]


@pytest.mark.parametrize("sent", [1, 4, 100_000, len(BIG) - 1])
def test_part_of_a_request_is_seen(start, sent):
    """The worker is not idle until the rest has come and the call has ended."""
    server = start()
    with Peer(server) as peer:
        assert state_of_worker(server) == "idle"
        peer.says(BIG[:sent])
        wait_until(lambda: state_of_worker(server) == "decode", "the message is seen")
        peer.says(BIG[sent:])
        assert peer.hears() == Value("x" * 300_000)
        wait_until(lambda: state_of_worker(server) == "lent", "the end of the call is seen")


def test_part_of_the_next_request_is_seen(start):
    """Also when it has come with a whole one, which is answered at once."""
    server = start()
    with Peer(server) as peer:
        peer.says(encode(Request(["echo", 1])) + BIG[:10])
        assert peer.hears() == Value(1)
        wait_until(lambda: state_of_worker(server) == "decode", "the message is seen")
        peer.says(BIG[10:] + encode(Done()))
        assert peer.hears() == Value("x" * 300_000)
        wait_until(lambda: state_of_worker(server) == "idle", "the end of the checkout is seen")


def test_half_a_request_does_not_keep_a_worker(start):
    """It is interrupted, its hooks run, the log says why, and the peer is told as for a call."""
    server = start("--hung-worker-timeout", "0.5")
    with Peer(server) as peer:
        peer.says(BIG[:-1])
        words = peer.hears()
    assert isinstance(words, LastWords)
    assert "hung_worker_timeout" in words.why
    assert text_once_written(server.directory / "ended") == "teardown"
    server.wait_for("was interrupted reading a message, because it was hung for 0.5")


def test_decoding_does_not_keep_a_worker(start):
    """A message that has come whole and is decoded for too long ends the worker, in whatever way it can."""
    server = start("--hung-worker-timeout", "0.01")
    with Peer(server) as peer:
        peer.says(SLOW)
        said = peer.hears()
        assert isinstance(said, LastWords), said
        assert "hung_worker_timeout" in said.why
    server.wait_for("reading a message")


def test_whom_nobody_waits_for_reads_no_longer(start):
    """The client has hung up amid its request: the worker ends at once, and its hooks run."""
    server = start()
    with Peer(server) as peer:
        peer.says(BIG[:-1])
    wait_until(lambda: not server.workers, "the worker ends")
    assert text_once_written(server.directory / "ended") == "teardown"
    assert "was ended" not in server.log


def test_a_drain_waits_for_a_request_on_its_way(start):
    """The worker is not hung up on, as an idle one is: the rest of the request is served."""
    server = start()
    with Peer(server) as peer:
        peer.says(BIG[:-1])
        wait_until(lambda: state_of_worker(server) == "decode", "the message is seen")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("drain")
        peer.says(BIG[-1:])
        first, second = peer.hears(), peer.hears()  # the worker asks to be let go before the call or after it
        assert Value("x" * 300_000) in (first, second)
        assert Retire in (type(first), type(second))


def test_a_length_alone_is_a_part(start):
    """Four bytes, and no more."""
    server = start("--hung-worker-timeout", "0.3")
    with Peer(server) as peer:
        peer.says(struct.pack("!I", 1000))
        assert isinstance(peer.hears(), LastWords)
