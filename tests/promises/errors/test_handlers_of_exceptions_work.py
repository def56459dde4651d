"""The point of this test is to ensure that a handler finds what a worker's exception has, or is told what did not come.

An attribute or argument that is an exception is rebuilt; where pickles are agreed upon, other attributes may travel so.
What has stayed in the worker is named by a note, and by the error that its use raises.
"""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import sqlite3
import sys
import traceback

import pytest

import gtask
from tests.support.needs import needed_package

ERRORS = """
class Response:
    def __init__(self, status):
        self.status_code = status

class Locked:
    def __init__(self):
        self.status_code = 423

    def __reduce__(self):
        raise TypeError("no pickle of this")

class ApiError(Exception):
    def __init__(self, message, response=None, **others):
        super().__init__(message)
        self.response = response
        vars(self).update(others)

class Speaking(ApiError):
    def __str__(self):
        return f"{self.args[0]}: {self.response.status_code}"

class Slotted(ValueError):
    __slots__ = ("cause", "response")

class Itself(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.error_list = [self]
        self.by_name = {"me": [self], "other": ValueError(message)}
"""

SOURCE = """
    import threading
    from handler_errors import *

    def wrapped():
        try:
            int("x")
        except ValueError as error:
            raise ApiError("no number", orig=error, first=KeyError("k")) from error

    def in_arguments():
        raise RuntimeError(ConnectionResetError(104, "reset"), "while reading", object())

    def itself():
        raise Itself("round")

    def deep():
        inner = ValueError("inner")
        raise ApiError("outer", errors=[inner, [KeyError("k"), threading.Lock()]], by={"a": inner})

    def with_response(kind="Response", status=404):
        raise ApiError("not found", globals()[kind](*([status] if kind == "Response" else [])), request=object())

    def speaking():
        raise Speaking("not found", Response(404))

    def slotted():
        error = Slotted("s")
        error.cause, error.response = KeyError("in a slot"), object()
        raise error

    def endless(count):
        error = ValueError("the first")
        for number in range(count):
            error = ApiError(str(number), orig=error)
        raise error

    def many():
        raise ApiError("many", **{f"attribute_{n}": object() for n in range(300)})

    def call(module, source):
        exec(f"import {module}\\n{source}", {})

    def integrity():
        import sqlalchemy
        with sqlalchemy.create_engine("sqlite://").connect() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE t (a UNIQUE)"))
            for _ in range(2):
                connection.execute(sqlalchemy.text("INSERT INTO t VALUES (:a)"), {"a": 1})

    def http_error(status):
        import requests
        response = requests.Response()
        response.status_code, response.url, response._content = status, "http://api/x", b"gone"
        response.raise_for_status()
"""


@pytest.fixture
def errors(tmp_path, monkeypatch):
    """The module that both sides have."""
    (tmp_path / "handler_errors.py").write_text(ERRORS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("handler_errors")
    sys.modules.pop("handler_errors", None)


@pytest.fixture
def client(errors, shared, connect):
    """A client without pickles."""
    return connect(shared(SOURCE))


@pytest.fixture
def trusting(errors, serve, connect):
    """A client that consents to pickles, and so does its server."""
    return connect(serve(SOURCE, "--pickle"), pickle=True)


def raised(client, method, *args):
    """What a call raises."""
    with pytest.raises(gtask.RemoteError) as caught:
        client.call(method, *args)
    return caught.value


def stays(message, ask, *args):
    """Asking raises the error with this message."""
    with pytest.raises(gtask.StayedInWorker, match=f"^{message} stayed in the worker"):
        ask(*args)


def test_an_attribute_that_is_an_exception(client):
    """It is made as a cause is, and is the cause itself where it was."""
    error = raised(client, "wrapped")
    assert error.orig is error.__cause__
    assert isinstance(error.orig, ValueError)
    assert error.orig.args == ("invalid literal for int() with base 10: 'x'",)
    assert traceback.extract_tb(error.orig.__traceback__)[-1].name == "wrapped"
    assert isinstance(error.first, KeyError)
    assert (error.first.args, error.first.remote_type) == (("k",), "KeyError")
    assert [note for note in error.__notes__ if "stayed" in note] == []


def test_an_argument_that_is_an_exception(client):
    """What lies beside it arrives, too; the text is the worker's."""
    error = raised(client, "in_arguments")
    assert isinstance(error.args[0], ConnectionResetError)
    assert (error.args[0].errno, error.args[1]) == (104, "while reading")
    assert str(error).startswith("(ConnectionResetError(104, 'reset'), 'while reading', <object object at")
    stays(r"args\[2\] \(object\)", lambda: error.args[2].anything)


def test_an_exception_that_has_itself(client):
    """As Django's ValidationError: in its attributes, in lists and dicts, it is the same."""
    error = raised(client, "itself")
    assert error.error_list == [error]
    assert error.by_name["me"][0] is error
    assert isinstance(error.by_name["other"], ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert again.error_list[0] is again


def test_exceptions_in_containers(client):
    """Beside what stays."""
    error = raised(client, "deep")
    inner, (key_error, lock) = error.errors
    assert isinstance(inner, ValueError)
    assert error.by["a"] is inner
    assert isinstance(key_error, KeyError)
    stays(r"errors\[1\]\[1\] \(_thread.lock\)", lambda: lock.acquire)


def test_what_stays_says_so(client):
    """Whatever it is asked for; its repr says so, too, and a note names it."""
    error = raised(client, "with_response")
    named = r"response \(handler_errors.Response\)"
    for ask in (
        lambda: error.response.status_code, lambda: error.response(), lambda: error.response["x"],
        lambda: bool(error.response), lambda: len(error.response), lambda: list(error.response),
        lambda: error.response == 404, lambda: error.response < 1, lambda: "x" in error.response,
        lambda: error.response + 1, lambda: int(error.response), lambda: {error.response},
        lambda: setattr(error.response, "x", 1), lambda: error.response.__enter__(), lambda: os.stat(error.response),
    ):  # fmt: skip
        stays(named, ask)
    assert repr(error.response) == str(error.response) == "<response (handler_errors.Response) stayed in the worker>"
    assert error.response is not None
    assert not hasattr(error.response, "status_code")
    assert "stayed in the worker: response (handler_errors.Response), request (object)" in error.__notes__
    assert issubclass(gtask.StayedInWorker, gtask.Error)
    assert issubclass(gtask.StayedInWorker, AttributeError)
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        stays(named, lambda again=again: again.response.status_code)


def test_a_class_that_speaks_of_it(client, errors):
    """Its text is the worker's, and it is still of its class."""
    error = raised(client, "speaking")
    assert isinstance(error, errors.Speaking)
    assert str(error) == "not found: 404"


def test_slots(client, errors):
    """What a class has slots for is an attribute as any other."""
    error = raised(client, "slotted")
    assert isinstance(error, errors.Slotted)
    assert isinstance(error.cause, KeyError)
    stays(r"response \(object\)", lambda: error.response.status)


def test_chains_of_attributes_are_bounded(client):
    """As those of causes are; what is beyond the bound stays."""
    error, depth = raised(client, "endless", 1000), 0
    while isinstance(error, Exception):
        error, depth = error.orig, depth + 1
    assert 5 < depth < 100
    stays(r"orig \(handler_errors.ApiError\)", lambda: error.orig)
    error = raised(client, "many")
    assert sum("stayed in the worker" in note for note in error.__notes__) == 2
    assert len("".join(error.__notes__)) < 1000


def test_without_the_class(client):
    """The same where the class is not known here, and a base is made."""
    del sys.modules["handler_errors"]
    error = raised(client, "slotted")
    assert isinstance(error, ValueError)
    assert isinstance(error.cause, KeyError)
    stays(r"response \(object\)", lambda: error.response.status)


# --- with pickles ----------------------------------------------------------------------------------------


def test_other_attributes_may_be_pickled(trusting, errors):
    """What can be is loaded when it is asked for; the rest stays."""
    error = raised(trusting, "with_response")
    assert "response" not in vars(error)
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error)), error):
        assert isinstance(again.response, errors.Response)
        assert again.response.status_code == 404
        assert again.response is again.response
    assert isinstance(error.request, object)
    error = raised(trusting, "with_response", "Locked")
    stays(r"response \(handler_errors.Locked\)", lambda: error.response.status_code)
    assert "stayed in the worker: response (handler_errors.Locked)" in error.__notes__
    error = raised(trusting, "wrapped")
    assert error.orig is error.__cause__


def test_a_pickle_that_cannot_be_loaded(trusting):
    """The attribute stays."""
    error = raised(trusting, "with_response")
    del sys.modules["handler_errors"].Response
    stays(r"response \(handler_errors.Response\)", lambda: error.response.status_code)


def test_nothing_is_loaded_without_consent(errors, serve, connect):
    """Whichever side has not consented."""
    for options, pickles in ((["--pickle"], False), ([], True)):
        error = raised(connect(serve(SOURCE, *options), pickle=pickles), "with_response")
        stays(r"response \(handler_errors.Response\)", lambda error=error: error.response.status_code)


# --- of packages -----------------------------------------------------------------------------------------


def test_sqlalchemy(client):
    """The driver's error, the statement and its parameters."""
    sqlalchemy = needed_package("sqlalchemy")
    error = raised(client, "integrity")
    assert isinstance(error, sqlalchemy.exc.IntegrityError)
    assert isinstance(error.orig, sqlite3.IntegrityError)
    assert error.orig.args == ("UNIQUE constraint failed: t.a",)
    assert (error.statement, error.params) == ("INSERT INTO t VALUES (?)", [1])
    assert "INSERT INTO t" in str(error)


def test_requests(client, trusting):
    """The response stays, and comes where pickles are agreed upon."""
    requests = needed_package("requests")
    error = raised(client, "http_error", 404)
    assert isinstance(error, requests.HTTPError)
    stays(r"response \(requests.models.Response\)", lambda: error.response.status_code)
    assert any("response (requests.models.Response)" in note for note in error.__notes__)
    assert raised(trusting, "http_error", 404).response.status_code == 404
    assert raised(trusting, "http_error", 500).response.content == b"gone"
    error = raised(client, "call", "requests", "requests.get('http://127.0.0.1:1/')")
    assert isinstance(error.args[0], Exception)
    assert "Connection refused" in str(error.args[0].reason)


def test_httpx(client):
    """Its own property asks for what has stayed."""
    httpx = needed_package("httpx")
    source = "httpx.Response(404, request=httpx.Request('GET', 'http://x')).raise_for_status()"
    error = raised(client, "call", "httpx", source)
    assert isinstance(error, httpx.HTTPStatusError)
    stays(r"response \(httpx.Response\)", lambda: error.response.status_code)
    stays(r"_request \(httpx.Request\)", lambda: error.request.url)


def test_urllib(client):
    """Its reason is an exception."""
    error = raised(client, "call", "urllib.error", "raise urllib.error.URLError(TimeoutError(110, 'late'))")
    assert isinstance(error.reason, TimeoutError)
    assert error.reason.errno == 110
