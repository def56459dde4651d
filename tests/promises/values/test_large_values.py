"""The point of this test is to ensure that a large value arrives as it was, whichever way it takes.

Bytes, bytearrays, memoryviews and arrays; as arguments, by name, in lists and maps, as results; through shared memory,
over a unix socket without it, and over TCP.
"""

import gc
import mmap

import gevent
import numpy
import pytest

import gtask
from gtask.wire.mark import MARK

SOURCE = """
    import gc
    import os
    import numpy

    MIB = 1 << 20
    PIECE = os.urandom(MIB)

    def echo(value):
        return value

    def size(*values, **named):
        return sum(map(len, values + tuple(named.values())))

    def kind(value):
        flags = getattr(value, "flags", None)
        return [type(value).__name__, flags and [flags.writeable, flags.aligned]]

    def doubled(array):
        array += array
        return array

    def pieces(count):
        return PIECE * count

    def of_marks(count):
        return bytes([0xC1]) * count

    def resident():
        gc.collect()
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def grown(value):
        with open("/proc/self/status") as status:
            return int(status.read().split("VmHWM:")[1].split()[0]) * 1024
"""

MIB = 1 << 20
WAYS = {"shared memory": {}, "unix socket": {"limit_shared": 0}, "TCP": {}}


@pytest.fixture(params=WAYS)
def client(request, tmp_path, serve, connect):
    """A client for each way."""
    address = "tcp://127.0.0.1:0" if request.param == "TCP" else None
    if address:
        with gevent.socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{sock.getsockname()[1]}"
    server = serve(SOURCE, **({"address": address} if address else {}))
    return connect(server, max_workers=1, **WAYS[request.param])


def resident():
    """Bytes of memory that this process uses."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


def data(count=3 * MIB + 17):
    """Bytes in which no two places are alike."""
    return numpy.arange(count // 4 + 1, dtype="u4").tobytes()[:count]


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
def test_bytes_of_each_kind(client, make):
    """Both ways they are bytes, and the same."""
    value = make(data())
    with client.checkout() as worker:
        assert worker.echo(value) == data()
        assert worker.kind(value) == ["bytes", None]
        assert worker.size(value, x=value) == 2 * len(value)


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1])
def test_around_the_size_from_which_on_values_are_large(client, size):
    """Nobody sees a difference."""
    with client.checkout() as worker:
        assert worker.echo(data(size)) == data(size)
        assert worker.echo([data(size)] * 3) == [data(size)] * 3


def test_in_lists_and_maps(client):
    """Beside small values of each kind, and each more than once."""
    large = data()
    value = {
        "list": [large, 1, "text", {1, 2}, large, [large[1:]]],
        "map": {b"key": large, 5: None},
        "empty": [{}, [], b""],
        "array": numpy.arange(MIB, dtype="f8"),
        "small": numpy.arange(3),
    }
    with client.checkout() as worker:
        back = worker.echo(value)
        for name in ("array", "small"):
            assert (back.pop(name) == value.pop(name)).all()
        assert back == value
        named = worker.call("echo", value={"x": large})
        assert named == {"x": large}


ARRAYS = {
    "bytes": lambda: numpy.arange(2 * MIB, dtype="u1"),
    "rows": lambda: numpy.arange(MIB, dtype="i4").reshape(64, -1),
    "columns": lambda: numpy.asfortranarray(numpy.arange(MIB, dtype="f8").reshape(64, -1)),
    "steps": lambda: numpy.arange(4 * MIB, dtype="u1")[::2],
    "backwards": lambda: numpy.arange(MIB, dtype="f4")[::-1],
    "read-only": lambda: numpy.frombuffer(data(2 * MIB), "u2"),
    "dates": lambda: numpy.arange(MIB, dtype="m8[s]"),
    "structures": lambda: numpy.zeros(MIB, [("a", "i4"), ("b", "f8", (2,))]),
    "broadcast": lambda: numpy.broadcast_to(numpy.arange(MIB, dtype="i2"), (2, MIB)),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_arrays(client, make):
    """Whatever their items and their order in memory are, they arrive equal, aligned, and free to be changed."""
    array = make()
    with client.checkout() as worker:
        assert worker.kind(array) == ["ndarray", [True, True]]
        back = worker.echo(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert (back == array).all()
    assert back.flags.writeable
    assert back.flags.aligned
    back[0] = back[1]


def test_a_change_where_it_arrives_is_seen_nowhere_else(client):
    """The worker changes its own."""
    array = numpy.arange(MIB, dtype="i8")
    with client.checkout() as worker:
        assert (worker.doubled(array) == 2 * numpy.arange(MIB)).all()
    assert (array == numpy.arange(MIB)).all()


@pytest.mark.parametrize(
    "kind", [bytearray, lambda text: numpy.frombuffer(bytearray(text), "u1")], ids=["bytes", "array"]
)
def test_what_is_changed_behind_a_submit_travels_as_it_was(client, kind):
    """In line for a worker, behind others, and on its way."""
    value = kind(bytes(8 * MIB))
    with client.checkout() as worker:
        results = [worker.echo.submit(value)]
        value[0] = 1
        results.append(worker.echo.submit(value))
        value[-1] = 2
        firsts = [bytes(memoryview(result.get())) for result in results]
    assert [(text[0], text[-1]) for text in firsts] == [(0, 0), (1, 0)]


def test_a_bytearray_is_free_when_it_was_submitted(client):
    """Its owner may resize it, although the call has not ended."""
    with client.checkout() as worker:
        worker.size(b"")  # which connects
        for _ in range(2):
            value = bytearray(data())
            result = worker.echo.submit(value)
            value.clear()
            assert result.get() == data()


def test_a_result_that_looks_like_last_words(client):
    """Nothing but the bytes with which a dead worker's last words begin, and such bytes at each place that is cut."""
    with client.checkout() as worker:
        assert worker.of_marks(2 * MIB) == bytes([0xC1]) * 2 * MIB
        for place in (0, 5, MIB - 8, MIB, 2 * MIB - len(MARK)):
            value = bytearray(2 * MIB)
            value[place : place + len(MARK)] = MARK
            assert worker.echo(value) == value
            assert worker.echo([value, b"x", value]) == [value, b"x", value]
        assert worker.echo(bytes(MIB) + b"\xc1")[-1] == 0xC1


def test_among_calls_that_are_sent_ahead(client):
    """Large and small ones come back in order."""
    with client.checkout() as worker:
        values = [data(MIB + n) if n % 3 == 0 else n for n in range(60)]
        results = [worker.echo.submit(value) for value in values]
        assert [result.get() for result in results] == values


def test_a_queue_in_which_one_has_raised(client):
    """What was sent behind it is skipped, and what comes later is not mixed up with it."""
    with client.checkout() as worker:
        failing = worker.nothing_of_this_name.submit(data())
        behind = worker.echo.submit(data(2 * MIB))
        with pytest.raises(gtask.RemoteError):
            failing.get()
        with pytest.raises(gtask.CallDropped):
            behind.get()
        assert worker.echo(data(MIB)) == data(MIB)


def test_more_than_a_message_may_have(serve, connect):
    """Its caller is told the size and the limits; nothing is sent, and the worker goes on."""
    client = connect(serve(SOURCE), limit_message=2 * MIB, limit_shared=4 * MIB)
    with client.checkout() as worker:
        assert worker.size(bytes(4 * MIB)) == 4 * MIB
        with pytest.raises(
            gtask.EncodeError, match=r"the limit is 2097152, or 4194304 through shared memory \(limit_sh"
        ):
            worker.size(bytes(4 * MIB + 1))
        with pytest.raises(gtask.EncodeError, match="limit_shared"):
            worker.size(bytes(3 * MIB), bytes(3 * MIB))
        assert worker.size(bytes(MIB)) == MIB


def test_a_result_beyond_the_limit_of_the_server(serve, connect):
    """The caller is told; the worker goes on."""
    client = connect(serve(SOURCE, "--limit-shared=4M", "--limit-message=2M"))
    with client.checkout() as worker:
        assert len(worker.pieces(4)) == 4 * MIB
        with pytest.raises(gtask.RemoteError, match="too large"):
            worker.pieces(5)
        assert len(worker.pieces(1)) == MIB


def test_a_result_beyond_the_limit_of_the_client(serve, connect):
    """What a server sends all the same ends the connection, with the limit in the error."""
    client = connect(serve(SOURCE), limit_shared=2 * MIB)
    with client.checkout() as worker, pytest.raises(gtask.ProtocolError, match="limit_shared"):
        worker.pieces(3)
    assert len(client.call("pieces", 2)) == 2 * MIB


def test_neither_side_keeps_memory_of_a_call(client):
    """After it both have what they had before."""
    large = bytes(60 * MIB)
    with client.checkout() as worker:
        worker.echo(large[: 2 * MIB])
        before, mine = worker.resident(), resident()
        for _ in range(2):
            assert worker.size(large) == len(large)
            assert len(worker.pieces(60)) == 60 * MIB
        assert worker.resident() < before + 8 * MIB
        assert resident() < mine + 8 * MIB


@pytest.mark.parametrize("way", ["shared memory", "unix socket"])
def test_what_a_call_takes_at_its_peak(serve, connect, way):
    """A worker has the value once, or beside what has come of it: never a third time."""
    client = connect(serve(SOURCE), max_workers=1, **WAYS[way])
    for value in (bytes(60 * MIB), numpy.zeros(60 * MIB, "u1")):
        with client.checkout() as worker:
            before = worker.grown(None)
            peak = worker.grown(value) - before
        assert peak < (1.2 if way == "shared memory" else 2.2) * 60 * MIB
        client.drain()
