"""The point of this test is to ensure that numpy's arrays travel without pickle where both sides have numpy.

Both ways, through real servers; arrays of objects never do; what is no array is a broken connection and nothing worse.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys

import gevent
import gevent.server
import gevent.socket
import msgpack
import pytest

import gtask
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.messages import Failure, Greeting, Value
from gtask.wire.values import kinds as extensions
from gtask.wire.values.offers import agree
from tests.support.needs import fail_or_skip
from tests.support.waiting import wait_until

try:
    import numpy
except ImportError:
    numpy = None

SOURCE = """
    import os
    import numpy

    def echo(value):
        return value

    def double(array):
        array *= 2
        return array

    def kind(value):
        return [type(value).__name__, str(value.dtype), list(value.shape)]

    def named(**arrays):
        return {name: array.sum() for name, array in arrays.items()}

    def zeros(count):
        return numpy.zeros(count, "u1")

    def objects():
        return [numpy.array([None])]

    def imported():
        return True

    def pid():
        return os.getpid()
"""


@pytest.fixture(autouse=True)
def needs_numpy():
    if numpy is None:
        fail_or_skip("numpy: pip install numpy")


def test_there_and_back(shared, connect):
    """As arguments, keyword arguments and values, by call and submit, before there is a worker and after."""
    with connect(shared(SOURCE)).checkout() as worker:
        results = [worker.double.submit(numpy.full(3, number)) for number in range(20)]
        assert [result.get().tolist() for result in results] == [[2 * number] * 3 for number in range(20)]
        for array in (
            numpy.arange(6.0).reshape(2, 3),
            numpy.asfortranarray(numpy.arange(6).reshape(2, 3)),
            numpy.arange(10, dtype=">i2")[::-3],
            numpy.array(5j),
            numpy.empty((0, 3), "f4"),
            numpy.array(["2026-11-24", "NaT"], "M8[D]"),
            numpy.array([("ann", 1.5)], [("name", "U5"), ("size", "f2")]),
        ):
            arrived = worker.echo([array])[0]
            assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
            assert arrived.tobytes() == array.tobytes()
            assert arrived.flags.writeable
            assert arrived.flags.f_contiguous == (array.flags.f_contiguous or array.ndim < 2)
            assert worker.kind(array) == ["ndarray", str(array.dtype), list(array.shape)]
        assert worker.named(a=numpy.ones(3, "i8"), b=numpy.ones(2, "f4")) == {"a": 3, "b": 2.0}


def test_scalars(shared, connect):
    """They arrive as the same; those that are Python's numbers as well arrive as Python's."""
    with connect(shared(SOURCE)).checkout() as worker:
        for value in (numpy.int64(3), numpy.float32(0.1), numpy.bool_(True), numpy.datetime64("2026-11-24", "s")):
            arrived = worker.echo(value)
            assert (type(arrived), arrived) == (type(value), value)
            assert worker.kind(value) == [type(value).__name__, str(value.dtype), []]
        assert type(worker.echo(numpy.float64(0.1))) is float


def test_the_limit_counts_their_bytes(shared, connect):
    """An array that is too large is refused on either side before it is sent, and nobody is harmed."""
    limit = 1 << 20
    server = shared(SOURCE, "--limit-message", "1M", "--limit-shared", "0")
    client = connect(server, limit_message=limit, limit_shared=0)
    with client.checkout() as worker:
        pid = worker.pid()
        assert worker.echo(numpy.ones(limit - 100, "u1")).sum() == limit - 100
        with pytest.raises(gtask.EncodeError, match="echo was not sent: too large: the message has"):
            worker.echo(numpy.ones(limit + 1, "u1"))
        with pytest.raises(gtask.EncodeError, match="too large: the message has") as caught:
            worker.zeros(limit + 1)
        assert isinstance(caught.value, gtask.RemoteError)
        with pytest.raises(gtask.EncodeError, match="too large: the message has"):
            worker.zeros(limit)
        assert worker.pid() == pid


@pytest.mark.parametrize("consent", [False, True], ids=["without pickle", "with pickle"])
def test_arrays_of_objects_are_refused(serve, connect, consent):
    """Whatever was consented to; the error says which it was, and the worker is unharmed."""
    with connect(serve(SOURCE, *(["--pickle"] if consent else [])), pickle=consent).checkout() as worker:
        pid = worker.pid()
        for array in (numpy.array([None]), numpy.zeros(1, [("a", "i4"), ("b", "O")])):
            with pytest.raises(
                gtask.EncodeError, match=r"argument 1 is of type numpy.ndarray: its items are Python objects"
            ):
                worker.echo(array)
        with pytest.raises(gtask.EncodeError, match=r"the result\[0\] is of type numpy.ndarray: its items are Python"):
            worker.objects()
        assert worker.pid() == pid


# --- where one side has none -----------------------------------------------------------------------------

WITHOUT = """
    import sys
    sys.modules["numpy"] = None  # as if it were not installed

    def echo(value):
        return value

    def setup():
        pass
"""


def test_a_server_without_numpy(shared, connect):
    """The error says so; it does not matter whether there was a worker already. Calls queued behind are dropped."""
    with connect(shared(WITHOUT)).checkout() as worker:
        first, behind = worker.echo.submit(numpy.zeros(2)), worker.echo.submit(1)
        with pytest.raises(
            gtask.EncodeError, match=r"^echo was not sent: .*numpy\.ndarray\. The server has no numpy: install"
        ):
            first.get()
        with pytest.raises(gtask.CallDropped):
            behind.get()
        with pytest.raises(gtask.EncodeError, match=r"numpy.int64. The server has no numpy"):
            worker.echo({"a": [numpy.int64(1)]})
        assert worker.echo(1) == 1


PROGRAM = """
import sys
sys.modules["numpy"] = None
import gtask

with gtask.Client(sys.argv[1], min_workers=0) as client, client.checkout() as worker:
    try:
        worker.zeros(3)
    except gtask.EncodeError as error:
        assert "the result is of type numpy.ndarray: the client has no numpy: install it there" in str(error), error
    else:
        raise AssertionError
    assert worker.imported()
print("all is well")
"""


def test_a_client_without_numpy(shared):
    """The worker says so, in the error of that call."""
    server = shared(SOURCE)
    wait_until(lambda: os.path.exists(server.address.path), "the server")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(server.address)], capture_output=True, text=True, timeout=50,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("all is well\n", 0), done.stderr


NOT_USED = """
    import sys

    def has_numpy():
        return "numpy" in sys.modules

    def total(array):
        return int(array.sum())
"""


def test_it_is_imported_when_the_first_array_comes(shared, connect):
    """A server whose application does not use numpy does not load it, but has it if it is installed."""
    with connect(shared(NOT_USED)).checkout() as worker:
        assert worker.has_numpy() is False
        assert worker.total(numpy.arange(4)) == 6
        assert worker.has_numpy() is True


COMMAND = "import sys; from gtask.tool.cli import main; sys.exit(main())"


def test_the_command_shows_arrays(shared):
    """``gtask call`` prints them as lists."""
    server = shared(SOURCE)
    wait_until(lambda: os.path.exists(server.address.path), "the server")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "call", str(server.address), "zeros", "3"],
        capture_output=True, text=True, timeout=50,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("[0, 0, 0]\n", 0), done.stderr


# --- hostile peers ---------------------------------------------------------------------------------------


def frame(*items):
    body = msgpack.packb(items)
    return struct.pack("!I", len(body)) + body


def array(head, data=b""):
    return msgpack.ExtType(extensions.ARRAY, msgpack.packb(head) + data)


def conversation(server, hi, *frames):
    """What a worker answers to these frames, each sent when the one before is answered."""
    decoder, answers = Decoder(), []
    decoder.agree(agree({"numpy"}))
    with contextlib.closing(gevent.socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(20)
        wait_until(lambda: sock.connect_ex(server.address.path) == 0, "a connection")
        for data in (Encoder().encode(hi), *frames):
            sock.sendall(data)
            count = sock.recv_into(decoder.space)
            if not count:
                break
            answers += decoder.received(count)
    return answers


BAD = {
    "objects": array(["|O", [1], "C"], b"12345678"),
    "a field of objects": array([[["a", "|O8"]], [1], "C"], b"12345678"),
    "too few bytes": array(["<i4", [3], "C"], b"12345678"),
    "too many bytes": array(["<i4", [1], "C"], b"12345678"),
    "bytes for 4 GB": array(["<i4", [2**30], "C"], b"12345678"),
    "negative": array(["<i4", [-2], "C"], b"12345678"),
    "beyond all numbers": array(["<i4", [2**63, 2**63], "C"], b"12345678"),
    "no items": array(["|V0", [2**62], "C"]),
    "code": array(["__import__('os').abort()", [1], "C"], b"12345678"),
    "no head": msgpack.ExtType(extensions.ARRAY, b""),
    "a scalar of objects": msgpack.ExtType(extensions.SCALAR, msgpack.packb("|O8") + b"12345678"),
}


def test_what_is_no_array_closes_the_connection(serve):
    """Each of them, and no other connection; a good one between them is read."""
    server = serve(SOURCE)
    good = frame("do", None, "echo", array(["<i4", [2], "C"], b"12345678"))
    for name, value in BAD.items():
        answers = conversation(
            server, Greeting(offers=frozenset({"numpy"})), good, frame("do", None, "echo", [value]), good
        )
        assert [type(answer) for answer in answers] == [Greeting, Value], name
        assert "numpy" in answers[0].offers
        assert answers[1].value.tolist() == [0x34333231, 0x38373635]


def test_an_array_from_a_peer_without_numpy_closes_the_connection(serve):
    """Who has not said that it has numpy sends no array, and is sent none."""
    server = serve(SOURCE)
    answers = conversation(server, Greeting(), frame("do", None, "zeros", 3))
    assert [type(answer) for answer in answers] == [Greeting, Failure]
    assert "the client has no numpy" in answers[1].text
    answers = conversation(server, Greeting(), frame("do", None, "echo", array(["<i4", [2], "C"], b"12345678")))
    assert [type(answer) for answer in answers] == [Greeting]


def test_a_server_that_sends_what_is_no_array(connect, tmp_path):
    """Its client gives the connection up with a ProtocolError."""

    def serve_badly(sock, address):
        sock.recv(65536)
        sock.sendall(Encoder().encode(Greeting(pid=1, name="bad", offers=frozenset({"numpy"}))))
        if sock.recv(65536):
            sock.sendall(frame("ok", None, BAD["objects"]))
            sock.recv(65536)

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(gevent.socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "bad.sock"))
        listener.listen()
        bad = gevent.server.StreamServer(listener, serve_badly)
        bad.start()
        stack.callback(bad.stop)
        client = connect(f"unix:{tmp_path}/bad.sock")
        with pytest.raises(gtask.ProtocolError, match="no dtype of an array that can travel"):
            client.call("echo", 1)
        client.close()
