"""The point of this test is to ensure that what cannot travel is refused on its own side and harms nobody.

An argument is refused before a byte of it is sent; a result becomes an EncodeError. The same worker then goes on.
"""

import os
import threading

import pytest

import gtask

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def note(*args, **kwargs):
        open(os.path.join(DIR, "ran"), "w").close()

    def give(what):
        return {
            "function": lambda: None,
            "object": object(),
            "tuple key": {(1, 2): 3},
            "class": int,
            "nested": [1, {"deep": [os.stat_result]}],
        }[what]

    def recursion():
        value = []
        value.append(value)
        return value

    def size(count):
        return b"x" * count

    def echo(data):
        return data

    def fail(count):
        raise LookupError("x" * count)
"""


def loop():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "argument",
    [lambda: None, object(), {(1, 2): 3}, int, threading.Lock(), [1, {"deep": [object()]}], loop()],
    ids=["function", "object", "tuple key", "class", "lock", "nested", "recursion"],
)
def test_an_argument_that_cannot_travel(shared, connect, tmp_path, argument):
    """By position or keyword, called or submitted: EncodeError at the caller, a TypeError too; nothing arrives."""
    with connect(shared(SOURCE), max_workers=1).checkout() as worker:
        pid = worker.pid()
        for attempt in (
            lambda: worker.note(argument),
            lambda: worker.note(key=argument),
            lambda: worker.note.submit(argument),
            lambda: worker(argument),
        ):
            with pytest.raises(gtask.EncodeError, match="cannot travel") as caught:
                attempt()
            assert isinstance(caught.value, TypeError)
            assert not isinstance(caught.value, gtask.RemoteError)
        assert worker.pid() == pid
    assert not (tmp_path / "ran").exists()


def test_an_argument_that_cannot_travel_does_not_disturb_calls_under_way(shared, connect):
    """Calls before and behind it run, in order."""
    with connect(shared(SOURCE)).checkout() as worker:
        before = [worker.echo.submit(number) for number in range(5)]
        with pytest.raises(gtask.EncodeError):
            worker.echo.submit(object())
        after = [worker.echo.submit(number) for number in range(5)]
        assert [result.get() for result in before + after] == [*range(5), *range(5)]


@pytest.mark.parametrize("what", ["function", "object", "tuple key", "class", "nested", "recursion"])
def test_a_result_that_cannot_travel(shared, connect, what):
    """EncodeError, as of the worker; the same worker answers the next call."""
    with connect(shared(SOURCE)).checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.EncodeError, match="cannot travel"):
            worker.recursion() if what == "recursion" else worker.give(what)
        assert worker.pid() == pid


def test_a_result_over_the_limit(shared, connect):
    """It says so; the largest that fits comes through before and after, on the same worker."""
    with connect(shared(SOURCE, "--limit-message", "10000")).checkout() as worker:
        pid = worker.pid()
        assert len(worker.size(9900)) == 9900
        with pytest.raises(gtask.EncodeError, match="too large"):
            worker.size(10_001)
        assert len(worker.size(9900)) == 9900
        assert worker.pid() == pid


def test_an_exception_over_the_limit(shared, connect):
    """A typed error arrives, however little room there is for its text."""
    with connect(shared(SOURCE, "--limit-message", "2000")).checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.RemoteError, match=r"LookupError|xxx"):
            worker.fail(50_000)
        assert worker.pid() == pid


def test_an_argument_over_the_limit(shared, connect, tmp_path):
    """It is refused before a byte of it is sent."""
    with connect(shared(SOURCE), limit_message=10_000).checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.EncodeError, match="too large"):
            worker.note(b"x" * 10_001)
        assert worker.pid() == pid
    assert not (tmp_path / "ran").exists()


def test_64_megabytes_both_ways(shared, connect):
    """What is just below the default limit goes there and back, and the worker is as usable as before."""
    data = os.urandom(64_000) * 1000
    with connect(shared(SOURCE), timeout=30).checkout() as worker:
        pid = worker.pid()
        assert worker.echo(data) == data
        assert worker.pid() == pid
