"""The point of this test is to ensure that ``except ValueError`` catches a worker's subclass of ValueError.

The classes from which an exception's class derives travel with it. The nearest that the caller's process knows, and can
make, is made, whether the class itself is unknown here, needs its constructor, or cannot be derived from.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import pickle
import re
import sys
import traceback

import pytest

import gtask
from tests.support.needs import needed_package

ERRORS = """
class ShopError(Exception):
    pass

class PaymentError(ShopError, ValueError):
    def __init__(self, code, *, reason):
        super().__init__(code)
        self.reason = reason

    def __str__(self):
        return f"payment {self.args[0]} failed: {self.reason}"

class Closed(ConnectionResetError):
    pass

class Missing(KeyError, AttributeError):
    pass

class Undecodable(UnicodeDecodeError):
    def __init__(self, path):
        super().__init__("utf-8", b"\\xff", 0, 1, "bad byte")
        self.path = path

class Odd(OSError):
    def __init__(self, *args, port):
        super().__init__(*args)
        self.port = port

class Silent(LookupError):
    def __str__(self):
        return self.never_set

class Meta(type):
    pass

class WithMeta(ArithmeticError, metaclass=Meta):
    pass

class OnlyException(Exception):
    pass

class Exits(SystemExit):
    pass
"""

SOURCE = """
    import contextlib
    import errors_there
    from errors_there import *

    def fail(name, *args, **kwargs):
        raise getattr(errors_there, name)(*args, **kwargs)

    def chained():
        try:
            fail("PaymentError", 7, reason="expired")
        except ShopError as error:
            raise RuntimeError("the order") from error

    def grouped():
        raise ExceptionGroup("orders", [PaymentError(1, reason="a"), Missing("b")])

    def call(source, package):
        import importlib, socket, urllib.error
        exec(source, {**locals(), package: importlib.import_module(package)})
"""


@pytest.fixture
def client(serve, connect, tmp_path, monkeypatch):
    """A client whose process could import the module, and has not."""
    (tmp_path / "errors_there.py").write_text(ERRORS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield connect(serve(SOURCE))
    sys.modules.pop("errors_there", None)


def raised(client, method, *args, **kwargs):
    """What a call raises."""
    with pytest.raises(gtask.RemoteError) as caught:
        client.call(method, *args, **kwargs)
    return caught.value


UNKNOWN = {
    ("PaymentError", 7): (ValueError, "payment 7 failed: expired"),
    ("Closed", 104, "reset by peer"): (ConnectionResetError, "[Errno 104] reset by peer"),
    ("Missing", "x"): (KeyError, "'x'"),
    ("Undecodable", "/x"): (UnicodeDecodeError, "'utf-8' codec can't decode byte 0xff in position 0: bad byte"),
    ("Odd",): (OSError, ""),
    ("Odd", 1): (OSError, "1"),
    ("Odd", 1, "two", "three", None, "five"): (OSError, "[Errno 1] two: 'three' -> 'five'"),
    ("Odd", 1, 2, 3, 4, 5, 6, 7): (OSError, "(1, 2, 3, 4, 5, 6, 7)"),
    ("WithMeta", "m"): (ArithmeticError, "m"),
}


@pytest.mark.parametrize(("how", "expected"), UNKNOWN.items(), ids=lambda value: str(value[0]))
def test_a_class_that_is_not_imported(client, how, expected):
    """The base has the original's name, text, arguments and attributes; the class is not imported for it."""
    name, *args = how
    kwargs = {"PaymentError": {"reason": "expired"}, "Odd": {"port": 80}}.get(name, {})
    base, text = expected
    error = raised(client, "fail", name, *args, **kwargs)
    assert "errors_there" not in sys.modules
    assert isinstance(error, base)
    assert isinstance(error, gtask.RemoteError)
    assert (str(error), error.remote_type, type(error).__name__) == (text, f"errors_there.{name}", name)
    if name in ("PaymentError", "Odd"):
        assert vars(error).items() >= kwargs.items()
    shown = traceback.format_exception_only(type(error), error)
    assert shown[0].startswith(f"errors_there.{name}")
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(again, base)
        assert (str(again), again.args, again.remote_type) == (text, error.args, error.remote_type)


def test_all_bases_are_caught(client):
    """Of several builtin ones, which no other derives from."""
    error = raised(client, "fail", "Missing", "x")
    assert isinstance(error, KeyError)
    assert isinstance(error, AttributeError)
    assert isinstance(error, LookupError)


def test_a_base_of_the_application(client, monkeypatch):
    """The nearest one is made that is known here, beside the builtin ones; its module need not have the class."""
    module = importlib.import_module("errors_there")
    monkeypatch.delattr(module, "PaymentError")
    error = raised(client, "fail", "PaymentError", 7, reason="expired")
    assert isinstance(error, module.ShopError)
    assert isinstance(error, ValueError)
    assert (str(error), error.reason) == ("payment 7 failed: expired", "expired")


def test_a_class_that_cannot_be_made(client):
    """It is known here and needs its constructor, or has a metaclass: its base is made."""
    module = importlib.import_module("errors_there")
    error = raised(client, "fail", "Silent", "x")
    assert isinstance(error, LookupError)
    assert not isinstance(error, module.Silent)
    assert isinstance(raised(client, "fail", "WithMeta", "x"), ArithmeticError)
    assert isinstance(raised(client, "fail", "PaymentError", 7, reason="r"), module.PaymentError)


def test_what_has_no_base(client):
    """But Exception itself, or none of Exception's, is a plain RemoteError with the name in its text."""
    assert type(raised(client, "fail", "OnlyException", "x")) is gtask.RemoteError
    assert str(raised(client, "fail", "OnlyException", "x")) == "errors_there.OnlyException: x"
    assert type(raised(client, "fail", "Exits", 3)) is gtask.RemoteError


def test_causes_and_members(client):
    """It is so for them, too."""
    cause = raised(client, "chained").__cause__
    assert isinstance(cause, ValueError)
    assert (str(cause), cause.reason) == ("payment 7 failed: expired", "expired")
    if sys.version_info >= (3, 11):
        one, other = raised(client, "grouped").exceptions
        assert isinstance(one, ValueError)
        assert isinstance(other, KeyError)


def test_raises_narrows_bases(client, connect, monkeypatch):
    """A class that is not listed is not made, though it is a base; builtin ones always are."""
    module = importlib.import_module("errors_there")
    error = raised(connect(client.address, raises=[]), "fail", "PaymentError", 7, reason="expired")
    assert not isinstance(error, module.ShopError)
    assert isinstance(error, ValueError)


def test_the_notes_are_the_same_for_all_workers(client, connect, tmp_path):
    """Trackers group errors by them: the process id and a private server's path are attributes."""
    notes = set()
    for _ in range(3):
        with client.checkout() as worker:
            error = raised(worker, "fail", "Missing", "x")
            assert error.worker_address == client.address
            assert isinstance(error.worker_pid, int)
            notes.add(tuple(error.__notes__))
            assert str(error.worker_pid) not in "".join(error.__notes__).replace(str(tmp_path), "")
    assert len(notes) == 1
    for _ in range(2):
        with connect("spawn:errors_served") as private:
            (tmp_path / "errors_served.py").write_text("def fail():\n    raise LookupError('x')\n")
            error = raised(private, "fail")
            assert error.worker_address.startswith("unix:")
            assert error.worker_address.removeprefix("unix:") not in "".join(error.__notes__)
            notes.add(tuple(error.__notes__))
    assert len(notes) == 2


# --- of packages -----------------------------------------------------------------------------------------

PACKAGES = [
    ("pydantic.TypeAdapter(int).validate_python('x')", "pydantic pydantic_core", ValueError, "1 validation error"),
    ("requests.get('http://127.0.0.1:1/')", "requests urllib3", OSError, "Max retries exceeded"),
    ("requests.get('nothing')", "requests", ValueError, "Invalid URL"),
    ("raise requests.Timeout('late')", "requests", OSError, "late"),
    ("raise urllib.error.URLError(socket.gaierror(-2, 'no such host'))", "urllib", OSError, "no such host"),
    ("raise urllib.error.HTTPError('http://x', 404, 'Gone', {}, None)", "urllib", OSError, "HTTP Error 404: Gone"),
    ("json.loads('{')", "json", ValueError, "Expecting property name"),
    ("httpx.URL(7)", "httpx", TypeError, "Invalid type for url"),
    ("raise sqlalchemy.exc.NoSuchColumnError('x')", "sqlalchemy", KeyError, "x"),
]


@contextlib.contextmanager
def forgotten(names):
    """Without these packages, as if they had never been imported here."""
    gone = {}
    for module in list(sys.modules):
        if module.partition(".")[0] in names.split():
            gone[module] = sys.modules.pop(module)
    try:
        yield
    finally:
        sys.modules.update(gone)


@pytest.mark.parametrize(("source", "names", "base", "text"), PACKAGES, ids=[case[0] for case in PACKAGES])
@pytest.mark.parametrize("is_known", [False, True], ids=["unknown here", "known here"])
def test_errors_of_packages(client, source, names, base, text, is_known):
    """Of pydantic, requests, urllib, json, httpx and SQLAlchemy."""
    package = names.split()[0]
    needed_package(package)
    with contextlib.nullcontext() if is_known else forgotten(names):
        error = raised(client, "call", source, package)
    assert isinstance(error, base)
    assert re.search(re.escape(text), str(error))
    assert error.remote_type.partition(".")[0] in (*names.split(), "TypeError")
    assert not hasattr(error, "a_made_up_name")
    assert "a worker" not in error.remote_type
    traceback.format_exception(type(error), error, error.__traceback__)
