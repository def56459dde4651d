"""The point of this test is to ensure that no descriptor of shared memory is ever left, and none is trusted.

Whatever befalls a call, both sides hold as many as before; a peer can send neither memory that it could still change or
cut, nor more of it than its frames name.
"""

import _socket
import array
import contextlib
import errno
import fcntl
import os
import socket
import struct

import gevent
import msgpack
import pytest

import gtask
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.messages import Greeting, Request, Value
from gtask.wire.shared import memory
from gtask.wire.shared.channel import Channel
from gtask.wire.values import offers
from gtask.wire.values.kinds import SHARED
from tests.support.waiting import PATIENCE, wait_until

MIB = 1 << 20
SOURCE = """
    import os
    import time

    PIECE = os.urandom(1 << 20)

    def size(value):
        return len(value)

    def echo(value):
        return value

    def pieces(count):
        return PIECE * count

    def slow(value, seconds=60):
        time.sleep(seconds)

    def die(value):
        os._exit(3)

    def fails(value):
        raise ValueError(len(value))

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    def full(value):
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return len(value)
"""


def numbers():
    """Those of the descriptors of this process."""
    return {number for number in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{number}")}


def mine():
    """How many descriptors this process has."""
    return len(numbers())


@contextlib.contextmanager
def closing_all():
    """At the end the descriptors are closed that were opened meanwhile."""
    before = numbers()
    try:
        yield
    finally:
        for number in numbers() - before:
            os.close(int(number))


@pytest.fixture
def client(serve, connect):
    """A client with one worker, from which large values go through shared memory."""
    return connect(serve(SOURCE), max_workers=1, max_queue=100_000)


def test_many_calls(client):
    """As arguments and as results, one by one and sent ahead."""
    value = bytes(MIB)
    with client.checkout() as worker:
        worker.echo(value)
        before, there = mine(), worker.descriptors()
        for _ in range(500):
            assert worker.size(value) == MIB
            assert len(worker.pieces(1)) == MIB
        for result in [worker.echo.submit(value) for _ in range(200)]:
            assert result.get() == value
        assert (mine(), worker.descriptors()) == (before, there)


def test_calls_that_end_badly(client):
    """Interrupted in their callers, beyond their time-outs, in workers that die, before any worker has them."""
    value = bytes(2 * MIB)
    with client.checkout() as worker:
        worker.echo(value)
    client.drain()
    wait_until(lambda: not client.stats().idle)
    before = mine()
    for number in range(5):
        with client.checkout() as worker, pytest.raises(gtask.RemoteError):
            worker.fails(value)
        with client.checkout() as worker, pytest.raises(gtask.WorkerDied):
            worker.die(value)
        with client.checkout(timeout=0.2) as worker, pytest.raises(gtask.CallTimeout):
            worker.slow(value)
        with (
            client.checkout() as worker,
            contextlib.suppress(gevent.Timeout, gtask.Error),
            gevent.Timeout(0.01 * number),
        ):
            worker.echo(value)
            worker.slow(value)
        with client.checkout() as worker:
            results = [worker.slow.submit(value) for _ in range(3)]
            worker.cancel()
            for result in results:
                with pytest.raises(gtask.Cancelled):
                    result.get()
    client.drain()
    wait_until(lambda: mine() == before, "as many descriptors as before")


def test_calls_that_wait_in_line(client):
    """Nothing is shared before there is a worker."""
    value = bytearray(MIB)
    with client.checkout() as first:
        first.echo(value)
        before = mine()
        with client.checkout() as second:
            results = [second.size.submit(value) for _ in range(50)]
            assert mine() == before
            first.release()
            assert [result.get() for result in results] == [MIB] * 50
    wait_until(lambda: mine() == before, "as many descriptors as before")


def test_a_worker_without_descriptors(client):
    """The connection ends, and says why; the next worker serves."""
    with client.checkout() as worker:
        assert worker.full(b"") == 0
        with pytest.raises(gtask.Error):
            worker.size(bytes(MIB))
    assert client.call("size", bytes(MIB)) == MIB


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EMFILE, errno.EPERM, errno.ENOMEM], ids=errno.errorcode.get)
def test_where_no_memory_can_be_shared(client, monkeypatch, number):
    """The value travels in its frame."""
    value = bytes(range(256)) * 8 * 1024

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with client.checkout() as worker:
        assert worker.echo(value) == value


def test_a_channel_that_is_full(client):
    """What does not fit there travels in its frame; all arrive in order."""
    values = [bytes([n % 256]) * MIB for n in range(400)]
    with client.checkout() as worker:
        worker.slow.submit(b"", 0.5)
        results = [worker.size.submit(value) for value in values]
        assert [result.get() for result in results] == [MIB] * 400


# --- hostile peers ---------------------------------------------------------------------------------------


def connected(server):
    """A socket at a server, as soon as it listens."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    wait_until(lambda: not sock.connect_ex(str(server.address).removeprefix("unix:")), "a server that listens")
    return sock


class Peer:
    """A client of its own making, that has greeted."""

    def __init__(self, server):
        self.sock = connected(server)
        self.channel, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        hello = Encoder().encode(Greeting(offers=frozenset({"shared", "numpy"})))
        socket.send_fds(self.sock, [hello], [other.fileno()])
        other.close()
        self.decoder = ReplyDecoder()
        (self.greeting,) = self.receive()
        assert "shared" in self.greeting.offers

    def receive(self):
        """The next messages; [] at the end of the stream."""
        while True:
            count = self.sock.recv_into(self.decoder.space)
            if not count:
                return []
            messages = list(self.decoder.received(count))
            if messages:
                return messages

    def send(self, number, *descriptors):
        """Descriptors by the channel, under this number."""
        rights = array.array("i", descriptors)
        self.channel.sendmsg([struct.pack("!Q", number)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def call(self, *words):
        """Call ``size`` with a value in shared memory, of which these are the words."""
        packed = [msgpack.ExtType(SHARED, msgpack.packb(list(word))) for word in words]
        body = msgpack.packb(["do", {"q": 1 << 20}, "size", *packed])
        self.sock.sendall(struct.pack("!I", len(body)) + body)

    def close(self):
        self.sock.close()
        self.channel.close()


@pytest.fixture
def peer(serve):
    """A peer at a server."""
    with contextlib.closing(Peer(serve(SOURCE))) as peer:
        yield peer


def sealed(data=b"x" * MIB):
    """A file as honest peers send it."""
    with memory.make(memoryview(data)) as file:
        return os.dup(file.fileno())


def unsealed(seals):
    """A file with some of the seals."""
    descriptor = os.memfd_create("gtask", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"x" * MIB)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * MIB)
    return os.open(path, os.O_RDWR)


def test_an_honest_peer(peer):
    """So that the others fail for what is wrong with them."""
    for number in (1, 2, 5):
        descriptor = sealed()
        peer.send(number, descriptor)
        os.close(descriptor)
        peer.call((number, MIB, 0, b"", 0, False))
        (reply,) = peer.receive()
        assert isinstance(reply, Value), reply
        assert reply.value == MIB


NOT_SHARED = {
    "can be truncated": lambda tmp_path: unsealed(fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW),
    "can grow": lambda tmp_path: unsealed(fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK),
    "can be written": lambda tmp_path: unsealed(fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK),
    "can be written by whoever has it mapped": lambda tmp_path: unsealed(
        fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | 0x10
    ),
    "a file": a_file,
    "a pipe": lambda tmp_path: os.dup(os.pipe()[0]),
    "too short": lambda tmp_path: sealed(b"x" * (MIB - 1)),
    "empty": lambda tmp_path: sealed(b""),
}


@pytest.mark.parametrize("make", NOT_SHARED.values(), ids=NOT_SHARED)
@pytest.mark.parametrize("code", [0, 12], ids=["bytes", "array"])
def test_memory_that_is_none(peer, tmp_path, make, code):
    """Who sends it is closed; the worker does not read it."""
    with closing_all():
        peer.send(1, make(tmp_path))
        head = msgpack.packb(["|u1", [MIB], "C"]) if code else b""
        peer.call((1, MIB, code, head, 0, False))
        assert not [reply for reply in peer.receive() if isinstance(reply, Value)]


WORDS = {
    "nothing has come": (1, MIB, 0, b"", 0, False),
    "no size": (1, 0, 0, b"", 0, False),
    "a size below 0": (1, -MIB, 0, b"", 0, False),
    "a place below 0": (1, MIB, 0, b"", -1, False),
    "more than is there": (1, MIB, 0, b"", 1, False),
    "more than anything": (1, 1 << 62, 0, b"", 0, False),
    "beyond numbers": (1, (1 << 64) - 1, 0, b"", (1 << 64) - 1, False),
    "another type": ("1", MIB, 0, b"", 0, False),
    "an unknown kind": (1, MIB, 99, b"", 0, False),
    "a kind that is never shared": (1, MIB, 1, b"", 0, False),
    "itself": (1, MIB, SHARED, b"", 0, False),
    "an array of nothing": (1, MIB, 12, b"", 0, False),
    "too few": (1, MIB),
    "too many": (1, MIB, 0, b"", 0, False, 1),
}


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_words_that_are_none(peer, word):
    """Who sends one gets an error, or is closed, and no value."""
    if word is not WORDS["nothing has come"]:
        descriptor = sealed()
        peer.send(1, descriptor)
        os.close(descriptor)
    peer.call(word)
    assert not [reply for reply in peer.receive() if isinstance(reply, Value)]


def test_more_descriptors_than_are_named(peer):
    """The worker takes none but those that a frame names, and leaves no others open."""
    descriptor = sealed()
    with contextlib.suppress(BlockingIOError):
        peer.channel.setblocking(False)
        for number in range(1, 1000):
            peer.send(number, descriptor)
    body = msgpack.packb(["do", {"q": 1 << 21}, "descriptors"])
    frame = struct.pack("!I", len(body)) + body
    peer.sock.sendall(frame)
    (first,) = peer.receive()
    peer.call((20, MIB, 0, b"", 0, False))
    (reply,) = peer.receive()
    assert reply.value == MIB
    peer.sock.sendall(frame)
    (second,) = peer.receive()
    assert second.value == first.value
    os.close(descriptor)


def test_several_descriptors_in_one_message(peer):
    """They are closed, and the peer with them."""
    descriptor = sealed()
    peer.send(1, descriptor, descriptor, descriptor)
    os.close(descriptor)
    peer.call((1, MIB, 0, b"", 0, False))
    assert not [reply for reply in peer.receive() if isinstance(reply, Value)]


def test_the_same_memory_twice(peer):
    """What was taken is gone."""
    descriptor = sealed()
    peer.send(1, descriptor)
    os.close(descriptor)
    peer.call((1, MIB, 0, b"", 0, False), (1, MIB, 0, b"", 0, False))
    assert not [reply for reply in peer.receive() if isinstance(reply, Value)]


@pytest.mark.parametrize(
    "make", [lambda: os.open("/dev/zero", os.O_RDONLY), lambda: os.pipe()[1]], ids=["zero", "pipe"]
)
def test_a_channel_that_is_none(serve, make):
    """Anything may come with a greeting; a frame that names shared memory then ends the connection."""
    server = serve(SOURCE)
    with closing_all(), contextlib.closing(Peer.__new__(Peer)) as peer:
        peer.sock = connected(server)
        peer.channel, peer.decoder = socket.socket(socket.AF_UNIX), ReplyDecoder()
        socket.send_fds(peer.sock, [Encoder().encode(Greeting(offers=frozenset({"shared"})))], [make()])
        peer.receive()
        peer.call((1, MIB, 0, b"", 0, False))
        assert not [reply for reply in peer.receive() if isinstance(reply, Value)]


def test_a_greeting_with_a_descriptor_and_no_offer(serve):
    """Nothing comes of either: both belong together."""
    server = serve(SOURCE)
    for wanted, sent in ((set(), True), ({"shared"}, False)):
        with connected(server) as sock:
            hello = Encoder().encode(Greeting(offers=frozenset(wanted)))
            socket.send_fds(sock, [hello], [sock.fileno()] if sent else [])
            decoder = ReplyDecoder()
            (greeting,) = decoder.received(sock.recv_into(decoder.space))
            assert sent or "shared" not in greeting.offers


def test_a_server_that_was_told_so_shares_nothing(serve, connect):
    """With ``--limit-shared 0`` large values travel in their frames."""
    client = connect(serve(SOURCE, "--limit-shared=0"), max_workers=1)
    before = mine()
    with client.checkout() as worker:
        assert worker.echo(bytes(MIB)) == bytes(MIB)
        assert mine() == before + 1


def test_what_has_come_stays_as_it_came(peer):
    """Its sender can neither write to it, nor cut it, once it is sealed."""
    descriptor = sealed()
    for change in (
        lambda: os.pwrite(descriptor, b"y", 0),
        lambda: os.ftruncate(descriptor, 0),
        lambda: os.ftruncate(descriptor, 2 * MIB),
        lambda: memory.map_at(None, descriptor, MIB, 1),
        lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0),
    ):
        with pytest.raises(OSError, match="not permitted"):
            change()
    os.close(descriptor)


def test_a_number_whose_frame_was_never_sent():
    """The next frame that names one passes over it, and closes it."""
    mine_end, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    sender, receiver = Channel(mine_end, 10 * MIB), Channel(other, 10 * MIB)
    encoder, decoder = Encoder(agreement=offers.agree({"shared"}, None, sender)), Decoder()
    decoder.agree(offers.agree({"shared"}, None, receiver))
    before = mine()
    for number in range(10):
        frame = encoder.encode(Request(["x", bytes([number]) * MIB], epoch=1 << 20))
        if number % 3 == 2:
            decoder.space[: len(frame)] = frame
            (request,) = decoder.received(len(frame))
            assert request.args[1] == bytes([number]) * MIB
    assert mine() == before
    sender.close()
    receiver.close()
