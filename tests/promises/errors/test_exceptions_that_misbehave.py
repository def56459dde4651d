"""The point of this test is to ensure that no exception and no result, however ill-behaved, harms client or worker.

Each gives the caller a typed error, and the same worker serves the next call of the checkout.
"""

import importlib
import sys

import pytest

import gtask

ERRORS = """
class FussyError(Exception):
    def __init__(self, code, *, detail):
        super().__init__(code)
        self.detail = detail

class WatchedError(Exception):
    made = []

    def __new__(cls, *args):
        cls.made.append("__new__")
        return super().__new__(cls, *args)

    def __init__(self, *args):
        self.made.append("__init__")

class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")

class ExitingError(Exception):
    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__

class LyingError(Exception):
    __dict__ = property(lambda self: 1 / 0)
    __traceback__ = property(lambda self: 1 / 0)
    args = property(lambda self: 1 / 0)

    def __getattribute__(self, name):
        raise KeyboardInterrupt

class Meta(type):
    def __getattribute__(cls, name):
        if name in ("__name__", "__qualname__", "__module__", "__mro__", "__bases__"):
            raise SystemExit
        return super().__getattribute__(name)

class MetaError(Exception, metaclass=Meta):
    pass
"""

SOURCE = """
    import os
    import sys
    from misbehaving import *

    def pid():
        return os.getpid()

    def fussy():
        raise FussyError(7, detail="on purpose")

    def watched():
        raise WatchedError("on purpose")

    def mute():
        raise MuteError("on purpose")

    def exiting_text():
        raise ExitingError("on purpose")

    def lying():
        raise LyingError("on purpose")

    def with_metaclass():
        raise MetaError("on purpose")

    def unplain_arguments():
        raise ValueError(object(), lambda: 0, sys.stderr)

    def unplain_attributes():
        error = ValueError("on purpose")
        error.handle, error.itself = sys.stderr, error
        raise error

    def circular_causes():
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    def lone_surrogate():
        raise ValueError("\\udc80 on purpose")

    def endless_recursion():
        return endless_recursion()

    def deep(frames):
        sys.setrecursionlimit(10_000)
        if frames == 1:
            raise KeyError("at the bottom")
        deep(frames - 1)

    def exit_process():
        sys.exit(3)

    def interrupt():
        raise KeyboardInterrupt

    def greenlet_exit():
        import greenlet
        raise greenlet.GreenletExit

    def gevent_timeout():
        import gevent
        raise gevent.Timeout(1)

    def unknown_exit():
        raise type("Unknown", (BaseException,), {})("on purpose")

    def long_text(characters):
        raise ValueError("x" * characters)

    def long_argument(characters):
        raise KeyError({"key": ["x" * characters] * 3})

    def an_object():
        return object()

    def a_tuple_as_key():
        return [{"deep": {(1, 2): 3}}]

    def a_circle():
        circle = []
        circle.append(circle)
        return circle

    def a_generator():
        return (n for n in range(3))

    def a_long_result(size):
        return b"x" * size
"""


@pytest.fixture
def worker(shared, connect, tmp_path):
    """A checkout, the worker of which must be the same at the end."""
    (tmp_path / "misbehaving.py").write_text(ERRORS)
    with connect(shared(SOURCE)).checkout() as worker:
        pid = worker.pid()
        yield worker
        assert worker.pid() == pid


@pytest.fixture(params=["its class is known here", "its class is unknown here"])
def known(request, worker):
    """Whether this process has imported the classes of ERRORS."""
    if request.param == "its class is known here":
        importlib.import_module("misbehaving")
    yield "misbehaving" in sys.modules
    sys.modules.pop("misbehaving", None)


def raised(worker, method, *args):
    """What a call raises, with proof that the worker's next reply is that of the next call."""
    with pytest.raises(gtask.Error) as caught:
        worker.call(method, *args)
    assert isinstance(caught.value, Exception)
    return caught.value


@pytest.mark.parametrize(
    ("method", "type_name", "text"),
    [
        ("fussy", "FussyError", "7"),
        ("watched", "WatchedError", "on purpose"),
        ("mute", "MuteError", "<exception str() failed>"),
        ("exiting_text", "ExitingError", "<exception str() failed>"),
        ("with_metaclass", "MetaError", "on purpose"),
    ],
)
def test_classes_that_misbehave(worker, known, method, type_name, text):
    """Constructors, ``__str__``, attributes and metaclasses that raise or exit: a RemoteError with name and text.

    Where the class is known here and can be made without running its code, the error is also of that class.
    """
    error = raised(worker, method)
    assert isinstance(error, gtask.RemoteError)
    assert error.remote_type == f"misbehaving.{type_name}"
    assert text in str(error)
    if known and method in ("fussy", "watched"):
        assert isinstance(error, getattr(sys.modules["misbehaving"], type_name))
    else:
        assert type(error) is gtask.RemoteError


def test_an_exception_without_usable_attributes(worker):
    """An exception of which each attribute raises KeyboardInterrupt in the worker still arrives, by name and text."""
    error = raised(worker, "lying")
    assert type(error) is gtask.RemoteError
    assert str(error) == "misbehaving.LyingError: on purpose"


def test_no_constructor_is_run_here(worker, known):
    """An exception of a class that is known here is made without its ``__new__`` and ``__init__``."""
    error = raised(worker, "watched")
    if known:
        assert type(error).made == []


@pytest.mark.parametrize("method", ["unplain_arguments", "unplain_attributes", "circular_causes", "lone_surrogate"])
def test_contents_that_cannot_travel(worker, method):
    """Arguments and attributes that are no plain data, circles and broken text are left out; the class stays."""
    error = raised(worker, method)
    assert isinstance(error, ValueError)
    assert isinstance(error, gtask.RemoteError)
    assert str(error)


def test_the_text_stays_where_the_arguments_cannot_travel(worker):
    """An exception with unplain arguments says at the caller what it said in the worker."""
    assert "<object object at 0x" in str(raised(worker, "unplain_arguments"))


def test_endless_recursion(worker):
    """A RecursionError arrives as one, its frames cut in the middle."""
    error = raised(worker, "endless_recursion")
    assert isinstance(error, RecursionError)
    assert 2 < count_frames(error) < 250


def test_a_thousand_frames(worker):
    """Of a traceback of 1000 frames both ends arrive, and one frame says how many are missing."""
    error = raised(worker, "deep", 1000)
    assert isinstance(error, KeyError)
    functions = [frame.f_code.co_name for frame in frames(error)]
    assert functions[-1] == "deep"
    (gap,) = [frame.f_code.co_filename for frame in frames(error) if "left out" in frame.f_code.co_filename]
    missing = int(gap.strip("<>").split()[0])
    assert functions.count("deep") + missing == 1000


@pytest.mark.parametrize(
    ("method", "remote_type"),
    [
        ("exit_process", "SystemExit"),
        ("interrupt", "KeyboardInterrupt"),
        ("greenlet_exit", "greenlet.GreenletExit"),
        ("gevent_timeout", "gevent.timeout.Timeout"),
        ("unknown_exit", "served_"),
    ],
)
def test_what_would_end_a_program_does_not(worker, method, remote_type):
    """SystemExit, KeyboardInterrupt, GreenletExit and their like reach the caller as plain RemoteErrors."""
    error = raised(worker, method)
    assert type(error) is gtask.RemoteError
    assert error.remote_type.startswith(remote_type)


def test_its_worker_is_replaced_after_the_checkout(shared, connect, tmp_path):
    """A worker in which SystemExit was raised is in an unknown state: it is not lent again, whatever was asked."""
    (tmp_path / "misbehaving.py").write_text(ERRORS)
    client = connect(shared(SOURCE), max_workers=1, refork_after_error=False)
    with client.checkout() as worker:
        pid = worker.pid()
        raised(worker, "mute")
    with client.checkout() as worker:
        assert worker.pid() == pid
        raised(worker, "exit_process")
    assert client.call("pid") != pid


def test_a_text_of_50_mb(worker):
    """A text of 50 MB is cut, and says how much is missing."""
    error = raised(worker, "long_text", 50_000_000)
    assert isinstance(error, ValueError)
    assert len(str(error)) < 100_000
    assert str(error).endswith("more characters)")


def test_arguments_of_50_mb(worker):
    """So are long texts within the arguments."""
    error = raised(worker, "long_argument", 20_000_000)
    assert isinstance(error, KeyError)
    assert len(str(error)) < 500_000


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("an_object", "the result is of type object"),
        ("a_tuple_as_key", r"\(1, 2\)"),
        ("a_circle", "contains itself"),
        ("a_generator", "the result is of type generator"),
    ],
)
def test_a_result_that_cannot_travel(worker, method, why):
    """A result that cannot be encoded is an EncodeError, and a RemoteError, that says what is wrong."""
    with pytest.raises(gtask.EncodeError, match=why) as caught:
        worker.call(method)
    assert isinstance(caught.value, gtask.RemoteError)


def test_a_result_over_the_limit(shared, connect, tmp_path):
    """A result that is larger than a message may be is an EncodeError with both sizes; the worker is kept."""
    (tmp_path / "misbehaving.py").write_text(ERRORS)
    with connect(shared(SOURCE, "--limit-message", "20000")).checkout() as worker:
        pid = worker.pid()
        assert worker.a_long_result(19_000) == b"x" * 19_000
        with pytest.raises(gtask.EncodeError, match=r"too large.*20000"):
            worker.a_long_result(20_000)
        assert worker.pid() == pid


def test_an_exception_over_the_limit(shared, connect, tmp_path):
    """An exception whose description is larger than a message may be still arrives, with less of it."""
    (tmp_path / "misbehaving.py").write_text(ERRORS)
    with connect(shared(SOURCE, "--limit-message", "20000")).checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.RemoteError, match="ValueError: xxx"):
            worker.long_text(30_000)
        assert worker.pid() == pid


def frames(error):
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def count_frames(error):
    return sum(1 for _ in frames(error))
