"""The point of this test is to ensure that the usual mistakes of a newcomer are answered by what to do instead.

A call that never began costs nothing: its worker is kept.
"""

from __future__ import annotations

import functools
import os
import pathlib

import pytest

import gtask

SOURCE = """
import os

def add(first, second=0):
    return first + second

def pid():
    return os.getpid()

def items():
    yield 1

async def later():
    return 1

def handle():
    return open(os.devnull)

def keys():
    return {}.keys()

def mapped():
    return map(str, [1])

def broken():
    return [1] + "x"

def calls_wrongly():
    return add()

def with_options(**options):
    return options

class Jobs:
    def add(self, first, second=0):
        return first + second

    def pid(self):
        return os.getpid()
"""

FORMS = "unix:/path/to/the.sock or tcp://host:port"


@pytest.mark.parametrize(
    ("address", "kind", "says"),
    [
        (None, TypeError, "None is what a variable of the environment gives that is not set"),
        (["unix:a", "unix:b"], TypeError, "a client has one server, so make a client for each"),
        (("unix:a",), TypeError, "write one address"),
        ({"unix:a": 1}, TypeError, "write one address"),
        (b"unix:/a", TypeError, "write a str"),
        (pathlib.Path("/run/a.sock"), TypeError, "write unix:/run/a.sock"),
        (7000, TypeError, f"write {FORMS}"),
        ("", ValueError, "it is empty, as a variable of the environment may be"),
        ("/run/a.sock", ValueError, f"write {FORMS}; perhaps unix:/run/a.sock"),
        ("a.sock", ValueError, "perhaps unix:a.sock"),
        ("localhost:7000", ValueError, "perhaps tcp://localhost:7000"),
        ("http://localhost:7000", ValueError, f"write {FORMS}"),
    ],
    ids=repr,
)
def test_what_is_no_address(address, kind, says):
    """A client says so when it is made, with the value."""
    with pytest.raises(kind) as caught:
        gtask.Client(address)
    assert says in str(caught.value)
    assert repr(address) in str(caught.value)


def test_a_method_as_an_attribute_of_the_client(shared, connect):
    """The error says how it is called; and so it works."""
    client = connect(shared(SOURCE))
    with pytest.raises(AttributeError, match=r"client\.remote\.add\(\.\.\.\)"):
        client.add(1)
    assert client.remote.add(1, 2) == 3
    with pytest.raises(AttributeError, match=r"with client\.checkout\(\) as worker: worker\.add\.submit"):
        client.remote.add.submit(1)
    assert not hasattr(client, "_add")
    assert not hasattr(client, "__add__")


def without_a_method(client):
    """Call the worker, and not a method of it."""
    with client.checkout() as worker:
        worker(1)


@pytest.mark.parametrize("attribute", ["", "Jobs"])
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.call("add", 1, timeout=3),
        lambda client: client.remote.add(1, timeout=3),
        lambda client: client.checkout().add.submit(1, timeout=3).get(),
        lambda client: client.call("add"),
        lambda client: client.call("add", 1, 2, 3),
        lambda client: client.call("add", 1, first=2),
        lambda client: client.call("nothing", 1),
        lambda client: client.call("nowhere:add", 1),
        lambda client: without_a_method(client),
    ],
)
def test_a_call_that_never_began_costs_nothing(serve, connect, attribute, call):
    """Its worker goes on, and the error says that it was not executed."""
    client = connect(serve(SOURCE, attribute=attribute), max_workers=1)
    pid = client.call("pid")
    with pytest.raises((TypeError, AttributeError)) as caught:
        call(client)
    assert caught.value.executed is False
    assert client.call("pid") == pid
    assert client.stats().retirements == {}


@pytest.mark.parametrize("method", ["broken", "calls_wrongly"])
def test_a_call_that_began_counts(shared, connect, method):
    """Though it raised the same class."""
    client = connect(shared(SOURCE), max_workers=1)
    pid = client.call("pid")
    with pytest.raises(TypeError) as caught:
        client.call(method)
    assert not hasattr(caught.value, "executed")
    assert client.call("pid") != pid


def test_a_time_out_for_the_function(shared, connect):
    """The advice is a note; a function that takes the argument gets it."""
    client = connect(shared(SOURCE))
    with pytest.raises(TypeError) as caught:
        client.call("add", 1, timeout=3)
    assert any("client.checkout(timeout=...)" in note for note in caught.value.__notes__)
    with pytest.raises(TypeError) as caught:
        client.call("add", 1, sceond=3)
    assert not any("client.checkout" in note for note in caught.value.__notes__)
    assert client.call("with_options", timeout=3) == {"timeout": 3}


def add(first, second=0):
    """Has the name of a method."""
    return first + second


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.call(add, 1),
        lambda client: client.checkout().call(add, 1),
        lambda client: client.call(functools.lru_cache(add).__wrapped__, 1),
    ],
)
def test_a_function_for_the_name_of_a_method(shared, connect, call):
    """The advice is its name, or an executor, and no pickle."""
    with pytest.raises(gtask.EncodeError) as caught:
        call(connect(shared(SOURCE)))
    assert "client.call('add', ...)" in str(caught.value)
    assert "client.executor().submit(add, ...)" in str(caught.value)
    assert "pickle" not in str(caught.value)


def test_a_function_for_the_name_of_a_method_where_pickles_travel(serve, connect):
    """The worker says so."""
    client = connect(serve(SOURCE, "--pickle"), pickle=True)
    with pytest.raises(AttributeError, match="a method is called by its name, a str"):
        client.call(os.getpid)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("items", r"return list\(\.\.\.\) of it, or make each of them a call"),
        ("mapped", r"return list\(\.\.\.\) of it"),
        ("keys", r"return list\(\.\.\.\) of it"),
        ("later", "write def in place of async def"),
        ("handle", "return its contents, or the path"),
    ],
)
def test_what_cannot_be_returned(shared, connect, method, says):
    """The error says what to return instead, and does not advise a pickle, which could not help."""
    with pytest.raises(gtask.EncodeError, match=says) as caught:
        connect(shared(SOURCE)).call(method)
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ((number for number in range(3)), r"pass list\(\.\.\.\) of it, or call client\.map_unordered"),
        ([iter([1])], r"pass list\(\.\.\.\) of it"),
        ({"a": {}.items()}, r"pass list\(\.\.\.\) of it"),
        (lambda: 1, "define it in the module that is served"),
        (pathlib.Path(os.devnull).open(), "pass the path, and open it in the worker"),  # noqa: SIM115
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_passed(shared, connect, value, says):
    """The same for arguments."""
    with pytest.raises(gtask.EncodeError, match=says) as caught:
        connect(shared(SOURCE)).call("add", value)
    assert "pickle" not in str(caught.value)
    if hasattr(value, "close"):
        value.close()


def test_what_a_pickle_could_carry(shared, connect):
    """There the advice is the pickle, as before."""
    with pytest.raises(gtask.EncodeError, match="It may be pickled if both sides consent"):
        connect(shared(SOURCE)).call("add", object())
