"""The point of this test is to ensure that a worker's exception can be shown, logged and handled like any other.

No constructor of its class has run. Whatever that class does then to attributes, notes, its text or its truth, nobody
meets it who prints a traceback, asks ``hasattr``, adds a note, or logs.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import subprocess
import sys
import traceback
import urllib.error

import pytest

import gtask

ERRORS = """
import urllib.error

class Asks(Exception):
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.__dict__["inner"], name)

class AsksForEver(ValueError):
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

class AnswersAll(LookupError):
    def __getattr__(self, name):
        return name

class AttributeOfAll(LookupError):
    def __getattribute__(self, name):
        raise ZeroDivisionError

class Frozen(OSError):
    def __setattr__(self, name, value):
        raise TypeError("frozen")

    __delattr__ = __setattr__

class Notes(ValueError):
    __notes__ = property(lambda self: 1 / 0)

class Hidden(ArithmeticError):
    args = __cause__ = __context__ = __traceback__ = __dict__ = property(lambda self: 1 / 0)

class NoText(KeyError):
    def __str__(self):
        return self.text

class NoRepr(IndexError):
    def __repr__(self):
        raise SystemExit

class Untrue(RuntimeError):
    def __bool__(self):
        raise ZeroDivisionError

class Empty(RuntimeError):
    def __len__(self):
        return 0

class Cleans(EOFError):
    def __init__(self):
        self.file = open("/dev/null")

    def __del__(self):
        self.file.close()

class MakesNew(NameError):
    def __new__(cls, *, key):
        return super().__new__(cls, key)

    def __init__(self, *, key):
        super().__init__(key)

class Registers(ValueError):
    def __init_subclass__(cls, *, code):
        cls.code = code

class Same(ValueError):
    def __eq__(self, other):
        raise ZeroDivisionError

    __hash__ = None
"""

MADE = {
    "Asks": "Asks([1])", "AsksForEver": "AsksForEver([1])", "AnswersAll": "AnswersAll('x')",
    "AttributeOfAll": "AttributeOfAll('x')", "Frozen": "Frozen(5, 'x')", "Notes": "Notes('x')",
    "Hidden": "Hidden('x')", "NoText": "NoText('x')", "NoRepr": "NoRepr('x')", "Untrue": "Untrue('x')",
    "Empty": "Empty('x')", "Cleans": "Cleans()", "MakesNew": "MakesNew(key='x')", "Registers": "Registers('x')",
    "Same": "Same('x')", "HTTPError": "urllib.error.HTTPError('http://x', 404, 'Not Found', {}, None)",
    "UnicodeDecodeError": "UnicodeDecodeError('utf-8', b'x', 0, 1, 'r')",
}  # fmt: skip

SOURCE = """
    import logging
    from shown_errors import *

    def fail(source):
        raise eval(source)

    def cause(source):
        raise RuntimeError("outer") from eval(source)

    def context(source):
        try:
            raise eval(source)
        finally:
            raise RuntimeError("outer")

    def group(source):
        raise ExceptionGroup("outer", [eval(source)])

    def attribute(source):
        error = RuntimeError("outer")
        error.inner = eval(source)
        raise error

    def log(source):
        try:
            raise eval(source)
        except Exception:
            logging.getLogger("shown").exception("it failed")
"""

BASES = {
    "Asks": Exception, "AsksForEver": ValueError, "AnswersAll": LookupError, "AttributeOfAll": LookupError,
    "Frozen": OSError, "Notes": ValueError, "Hidden": ArithmeticError, "NoText": KeyError, "NoRepr": IndexError,
    "Untrue": RuntimeError, "Empty": RuntimeError, "Cleans": EOFError, "MakesNew": NameError, "Registers": ValueError,
    "Same": ValueError, "HTTPError": urllib.error.URLError, "UnicodeDecodeError": UnicodeDecodeError,
}  # fmt: skip


@pytest.fixture
def client(shared, connect, tmp_path, monkeypatch):
    """A client whose process knows all the classes."""
    (tmp_path / "shown_errors.py").write_text(ERRORS)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("shown_errors")
    yield connect(shared(SOURCE))
    del sys.modules["shown_errors"]


def raised(client, method, source):
    """What a call raises."""
    with pytest.raises(gtask.RemoteError) as caught:
        client.call(method, source)
    return caught.value


def check(error, name):
    """All that anybody does with exceptions."""
    assert isinstance(error, BASES[name])
    assert not hasattr(error, "a_made_up_name")
    assert getattr(error, "no_such_field", "default") == "default"
    assert type(getattr(error, "__notes__", [])) is list
    with pytest.raises(AttributeError):
        error.another_made_up_name.deeper()
    assert bool(error)
    assert traceback.format_exception(type(error), error, error.__traceback__)
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logger = logging.Logger("of this test")
    logger.addHandler(handler)
    logger.error("it failed", exc_info=error)
    assert name in shown.getvalue()
    if sys.version_info >= (3, 11):
        error.add_note("a note")
        assert error.__notes__[-1] == "a note"
    error.mark = 1
    assert (error.mark, vars(error)["mark"]) == (1, 1)
    del error.mark
    with contextlib.suppress(BASES[name]), contextlib.ExitStack() as stack:
        stack.push(lambda *exc_info: False)
        raise error.with_traceback(None) from ValueError("a cause")
    assert isinstance(error.__cause__, ValueError)
    assert str(error) == str(error)
    assert repr(error)


@pytest.mark.parametrize("name", MADE)
def test_it_can_be_shown(client, name):
    """As the error of a call."""
    check(raised(client, "fail", MADE[name]), name)


@pytest.mark.parametrize("name", MADE)
def test_with_what_it_comes(client, name):
    """As a cause, a context, an attribute, a member of a group."""
    for method in ("cause", "context", "attribute", *(["group"] if sys.version_info >= (3, 11) else [])):
        outer = raised(client, method, MADE[name])
        shown = "".join(traceback.format_exception(type(outer), outer, outer.__traceback__))
        inner = {
            "cause": lambda outer: outer.__cause__,
            "context": lambda outer: outer.__context__,
            "attribute": lambda outer: outer.inner,
            "group": lambda outer: outer.exceptions[0],
        }[method](outer)
        assert method == "attribute" or name in shown
        check(inner, name)


@pytest.mark.parametrize("name", MADE)
def test_in_a_record(client, name, caplog):
    """As the exception of a log record."""
    client.call("log", MADE[name])
    (record,) = [record for record in caplog.records if record.name == "shown"]
    check(record.exc_info[1], name)


def test_an_http_error_is_one(client):
    """With its code; what it reads from has stayed, and says so."""
    error = raised(client, "fail", "urllib.error.HTTPError('http://x', 404, 'Not Found', {}, None)")
    assert isinstance(error, urllib.error.HTTPError)
    assert (error.code, error.reason, str(error)) == (404, "Not Found", "HTTP Error 404: Not Found")
    with pytest.raises(gtask.StayedInWorker, match=r"has no attribute 'read', and .* stayed in the worker"):
        error.read()


def test_a_program_that_dies_of_it_prints_it(client, tmp_path):
    """The interpreter's own handler asks each exception for its notes, from Python 3.11 on."""
    program = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import gtask, shown_errors
        gtask.Client({client.address!r}).call("cause", "urllib.error.HTTPError('http://x', 404, 'Gone', {{}}, None)")
    """
    lines = "\n".join(line.strip() for line in program.splitlines())
    ended = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "urllib.error.HTTPError: HTTP Error 404: Gone" in ended.stderr
    has_notes = sys.version_info >= (3, 11)
    assert ended.stderr.strip().splitlines()[-2 if has_notes else -1].startswith("RuntimeError: outer")
