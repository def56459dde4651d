"""The point of this test is to ensure that an array of ``gtask.shared.empty`` travels without a copy and cannot change.

It arrives read-only, and becomes so where it was made; what is written there all the same is seen by no peer.
"""

import contextlib
import os

import numpy
import pytest

import gtask
from gtask.wire.shared import memory

SOURCE = """
    import numpy
    import gtask.shared

    _kept = []
    MASTERS = gtask.shared.empty(1 << 20, "u1")

    def of_master(number):
        if number is not None:
            MASTERS[0] = number
        return MASTERS

    def kind(array):
        return [array.flags.writeable, str(array.dtype), list(array.shape), float(array.sum())]

    def change(array):
        array[...] = 1

    def keep(array):
        _kept.append(array)

    def kept():
        return [float(array.sum()) for array in _kept]

    def made(count):
        array = gtask.shared.empty(count, "u1")
        array[:] = 3
        return array

    def descriptors():
        import os
        return len(os.listdir("/proc/self/fd"))
"""

MIB = 1 << 20


@pytest.fixture
def worker(serve, connect):
    """The only worker of a client, at a unix socket."""
    with connect(serve(SOURCE), max_workers=1).checkout() as worker:
        yield worker


@pytest.fixture
def copies(monkeypatch):
    """The sizes of what was copied into shared memory."""
    made, make = [], memory.make

    def count(data):
        made.append(data.nbytes)
        return make(data)

    monkeypatch.setattr(memory, "make", count)
    return made


def test_as_an_argument(worker, copies):
    """Any number of times, to be read there as it was filled here."""
    array = gtask.shared.empty((4, MIB), "f4")
    assert not array.any()
    array[2] = 1.5
    for _ in range(3):
        assert worker.kind(array) == [False, "float32", [4, MIB], 1.5 * MIB]
    assert not copies
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_as_a_result(worker):
    """Read-only, too, and its memory goes with it."""
    worker.kept()  # which connects
    before = len(os.listdir("/proc/self/fd"))
    array = worker.made(3 * MIB)
    assert array.sum() == 9 * MIB
    assert not array.flags.writeable
    del array
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_there_can_change_it(worker):
    """The worker gets numpy's error."""
    array = gtask.shared.empty(MIB)
    with pytest.raises(ValueError, match="read-only"):
        worker.change(array)
    assert not array.any()


def test_parts_of_it(worker, copies):
    """Those that lie in one piece travel like it; others are copied, as any array is."""
    array = gtask.shared.empty((8, MIB), "u1")
    array[...] = numpy.arange(8)[:, None]
    assert worker.kind(array[3:5]) == [False, "uint8", [2, MIB], 7.0 * MIB]
    assert worker.kind(array[2].reshape(2, -1)) == [False, "uint8", [2, MIB // 2], 2.0 * MIB]
    assert not copies
    assert worker.kind(array[:, ::2]) == [True, "uint8", [8, MIB // 2], 14.0 * MIB]
    assert copies == [4 * MIB]


def test_what_a_view_writes_later(worker, copies):
    """Who has the array does not see it; the next call does, with a copy."""
    array = gtask.shared.empty(2 * MIB, "u1")
    view = array[10:]
    worker.keep(array)
    view[0] = 5
    assert array[10] == 5
    assert worker.kept() == [0.0]
    assert worker.kind(array) == [True, "uint8", [2 * MIB], 5.0]
    assert copies == [2 * MIB]


def test_what_is_written_while_a_call_waits_in_line(serve, connect):
    """The array is read-only from the call on."""
    client = connect(serve(SOURCE), max_workers=1)
    array = gtask.shared.empty(MIB, "u1")
    with client.checkout() as first, client.checkout() as second:
        first.kept()
        result = second.kind.submit(array)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        first.release()
        assert result.get() == [False, "uint8", [MIB], 0.0]


@contextlib.contextmanager
def forked():
    """A process that was forked here, and has all that is mapped."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(writer)
            os.read(reader, 1)
        finally:
            os._exit(0)
    os.close(reader)
    try:
        yield
    finally:
        os.close(writer)
        os.waitpid(pid, 0)


def test_memory_that_a_forked_process_could_change(worker, copies):
    """It is copied, and stays writable here, until that process has ended."""
    array = gtask.shared.empty(MIB, "u1")
    with forked():
        for number in (1, 2):
            array[0] = number
            assert worker.kind(array) == [True, "uint8", [MIB], float(number)]
    assert copies == [MIB] * 2
    array[0] = 3
    assert worker.kind(array) == [False, "uint8", [MIB], 3.0]
    assert copies == [MIB] * 2


def test_memory_that_a_forked_process_could_change_in_line(serve, connect):
    """The call is made all the same."""
    array = gtask.shared.empty(MIB, "u1")
    array[0] = 1
    with forked():
        assert connect(serve(SOURCE)).call("kind", array)[-1] == 1.0


def test_memory_that_a_worker_has_of_its_master(serve, connect):
    """It is sent as it is there, and goes on to be what its workers share."""
    client = connect(serve(SOURCE), max_workers=2)
    with client.checkout() as one, client.checkout() as two:
        assert one.of_master(7)[0] == 7
        assert two.of_master(None)[0] == 7
        assert one.of_master(8)[0] == 8
        assert two.of_master(None)[0] == 8


@pytest.mark.parametrize("options", [{"limit_shared": 0}, {}], ids=["without shared memory", "small"])
def test_where_it_is_an_array_like_any_other(serve, connect, options):
    """It arrives writable, and stays so here."""
    array = gtask.shared.empty(MIB if options else 1000, "u1")
    with connect(serve(SOURCE), **options).checkout() as worker:
        worker.kept()  # which connects
        assert worker.kind(array)[0] is True
        array[0] = 1
        assert worker.kind(array)[-1] == 1.0


def test_neither_side_keeps_descriptors(worker):
    """Those of arrays that are no more are closed."""
    there = worker.descriptors()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        worker.kind(gtask.shared.empty(MIB, "u1"))
        worker.made(MIB)
    assert worker.descriptors() == there
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("shape", [0, (), (0, 5), 7, (2, 3), numpy.int64(4)], ids=repr)
def test_shapes(shape):
    """As numpy's own, also of nothing."""
    array = gtask.shared.empty(shape, "i2")
    assert array.shape == numpy.empty(shape).shape
    assert array.dtype == "i2"
    array[...] = 3
    assert (array == 3).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [(-1, float, ValueError), (3, object, TypeError), ("x", float, TypeError), (2, "nothing", TypeError)],
)
def test_shapes_and_dtypes_that_make_no_sense(shape, dtype, error):
    """Nothing is made."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(error):
        gtask.shared.empty(shape, dtype)
    assert len(os.listdir("/proc/self/fd")) == before


def test_more_memory_than_there_is():
    """The system's error, and no descriptor is left."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((OSError, ValueError)):
        gtask.shared.empty(1 << 61, "u1")
    assert len(os.listdir("/proc/self/fd")) == before
