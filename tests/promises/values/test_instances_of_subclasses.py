"""The point of this test is to ensure that no value is changed in silence, whatever class it is of.

An instance of a subclass arrives as the value of its base that it equals, or it is refused before anything is sent: the
error names it, where it stands and its class. Where both sides have agreed upon pickles it arrives as it was.
"""

from __future__ import annotations

import collections
import contextvars
import datetime
import decimal
import enum
import http.client
import importlib
import sys
import types
import uuid
import zoneinfo

import pytest

import gtask
from tests.support.needs import fail_or_skip

SHARED = """
import collections, datetime, decimal, enum, uuid

class Level(enum.IntEnum):
    LOW = 1

class Colour(str, enum.Enum):
    RED = "red"

Point = collections.namedtuple("Point", "x y")

class Row(dict):
    pass

class Money(decimal.Decimal):
    '''Equals no number.'''

    __hash__ = decimal.Decimal.__hash__

    def __eq__(self, other):
        return isinstance(other, Money) and decimal.Decimal.__eq__(self, other)

class Folded(str):
    '''Equals texts of its own class alone.'''

    def __eq__(self, other):
        return isinstance(other, Folded) and self.lower() == other.lower()

    def __hash__(self):
        return hash(self.lower())

class First(dict):
    '''Of several values it shows the first.'''

    def items(self):
        return [(key, values[0]) for key, values in dict.items(self)]

class Getting(dict):
    def __getitem__(self, key):
        return dict.__getitem__(self, key).upper()

class Reversed(list):
    def __iter__(self):
        return iter(self[::-1])

class Never(datetime.date):
    def isoformat(self):
        return "never"

class Minutes(datetime.timedelta):
    def __eq__(self, other):
        return isinstance(other, Minutes)

    __hash__ = None

class Raises(int):
    def __eq__(self, other):
        raise ZeroDivisionError

    __hash__ = int.__hash__

EQUAL = {
    "an enum of ints": Level.LOW,
    "an enum of texts": Colour.RED,
    "a dict": Row(a=Level.LOW),
    "an ordered dict": collections.OrderedDict(b=1, a=2),
    "a default dict": collections.defaultdict(int, a=1),
    "a counter": collections.Counter("aab"),
    "keys": {Colour.RED: 1, Level.LOW: 2},
    "members": {Level.LOW, Colour.RED, frozenset({Level.LOW})},
    "in containers": [{"a": [Level.LOW]}],
}
CHANGED = {
    "a number": (Money("1.5"), "Money"),
    "a text": (Folded("A"), "Folded"),
    "a dict that shows the first": (First(a=[1, 2]), "First"),
    "a dict that gets otherwise": (Getting(a="x"), "Getting"),
    "a list": (Reversed([1, 2]), "Reversed"),
    "a date": (Never(2026, 1, 2), "Never"),
    "a timedelta": (Minutes(1), "Minutes"),
    "one that raises": (Raises(1), "Raises"),
    "a key": ({Folded("A"): 1}, "Folded"),
    "a member": ({Folded("A")}, "Folded"),
    "a key within": ({"x": [{Folded("A"): 1}]}, "Folded"),
}
"""

SOURCE = """
    import os
    import contextvars
    import shared_classes

    user = contextvars.ContextVar("user", default=None)

    def echo(*args, **kwargs):
        return [list(args), kwargs]

    def one(value):
        return value

    def name(value):
        return type(value).__name__

    def give(group, name):
        return getattr(shared_classes, group)[name]

    def give_changed(name):
        return shared_classes.CHANGED[name][0]

    def evaluate(source):
        import pandas, pendulum
        return eval(source, {"pandas": pandas, "pendulum": pendulum})

    def who():
        return user.get()

    def pid():
        return os.getpid()
"""


@pytest.fixture
def classes(tmp_path, monkeypatch):
    """The module that both sides have."""
    (tmp_path / "shared_classes.py").write_text(SHARED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shared_classes", raising=False)
    yield importlib.import_module("shared_classes")
    del sys.modules["shared_classes"]


@pytest.fixture
def client(classes, shared, connect):
    """A client without pickles."""
    return connect(shared(SOURCE))


@pytest.fixture
def trusting(classes, shared, connect):
    """A client that consents to pickles, and so does its server."""
    return connect(shared(SOURCE, "--pickle"), pickle=True)


def plain_types(value):
    """The types of a value, all the way down."""
    if type(value) is dict:
        return {*map(type, value), *(kind for item in value.values() for kind in plain_types(item))} | {dict}
    if type(value) in (list, set, frozenset):
        return {type(value), *(kind for item in value for kind in plain_types(item))}
    return {type(value)}


def test_what_equals_a_plain_value_arrives_as_that(client, classes):
    """In either direction, at any depth; what arrives are plain values, with their order."""
    with client.checkout() as worker:
        for name, value in classes.EQUAL.items():
            for arrived in (worker.one(value), worker.give("EQUAL", name), worker.echo(key=value)[1]["key"]):
                assert arrived == value, name
                assert plain_types(arrived) <= {int, str, dict, list, set, frozenset}, name
        assert list(worker.one(classes.EQUAL["an ordered dict"])) == ["b", "a"]
        moved = collections.OrderedDict(a=1, b=2)
        moved.move_to_end("a")
        assert list(worker.one(moved)) == ["b", "a"]
        assert worker.one(classes.Point(1, 2)) == [1, 2]
        assert worker.one({classes.Point(1, 2)}) == {(1, 2)}


def test_what_would_be_changed_is_refused(client, classes):
    """As an argument, by position or name, within others, submitted or not, and as a result; the worker goes on."""
    with client.checkout() as worker:
        pid = worker.pid()
        for name, (value, kind) in classes.CHANGED.items():
            told = rf"echo was not sent: cannot travel: argument 2\b.*{kind}"
            for call in (
                lambda value=value: worker.echo(0, value),
                lambda value=value: worker.echo(0, [{"a": value}]),
                lambda value=value: worker.echo.submit(0, value),
            ):
                with pytest.raises(gtask.EncodeError, match=told):
                    call()
            with pytest.raises(gtask.EncodeError, match=rf"argument key\b.*{kind}"):
                worker.echo(key=value)
            with pytest.raises(gtask.EncodeError, match=rf"the result\b.*{kind}") as caught:
                worker.give_changed(name)
            assert isinstance(caught.value, gtask.RemoteError)
        assert worker.pid() == pid


def test_the_place_is_told(client, classes):
    """Down to the part."""
    with pytest.raises(gtask.EncodeError) as caught:
        client.call("echo", [{"a": (0, classes.Money(1))}])
    assert "argument 1[0]['a'][1] is of type shared_classes.Money: as a plain Decimal it would arrive" in str(
        caught.value
    )


def test_pickles_carry_what_would_lose_something(trusting, classes):
    """The class, too: an instance of a subclass arrives as what it is, in either direction."""
    with trusting.checkout() as worker:
        for name, value in classes.EQUAL.items():
            for arrived in (worker.one(value), worker.give("EQUAL", name)):
                assert (arrived, type(arrived)) == (value, type(value)), name
        for name, (value, kind) in classes.CHANGED.items():
            if kind not in ("Minutes", "Raises", "Getting", "First", "Reversed"):
                assert worker.one(value) == value, name
            assert worker.name(value) == type(value).__name__
            assert type(worker.give_changed(name)) is type(value)
        assert worker.name(classes.Level.LOW) == "Level"
        assert worker.one([classes.Point(1, 2)])[0].y == 2
        assert type(worker.one([(1, 2)])[0]) is list


def test_a_class_that_cannot_be_pickled(trusting):
    """Travels as where there are no pickles."""

    class Local(dict):
        pass

    assert trusting.call("one", [Local(a=1)]) == [{"a": 1}]


def test_a_server_without_pickles_gets_the_plain_value(classes, shared, connect):
    """Though the client consents: what needs no pickle is sent without one, before and after a worker is known."""
    client = connect(shared(SOURCE), pickle=True)
    with client.checkout() as worker:
        early = [worker.one.submit(value) for value in (classes.Level.LOW, [classes.Row(a=1)], {classes.Colour.RED: 1})]
        assert [result.get() for result in early] == [1, [{"a": 1}], {"red": 1}]
        assert worker.name(classes.Level.LOW) == "int"
        with pytest.raises(gtask.EncodeError, match=r"Money.*the server does not: start gtask-server with --pickle"):
            worker.one(classes.Money(1))


def test_a_context_variable(client, classes, connect, shared, monkeypatch):
    """Its value is one, too."""
    module = types.ModuleType("tests_subclass_users")
    module.user = contextvars.ContextVar("user")
    monkeypatch.setitem(sys.modules, "tests_subclass_users", module)
    other = connect(client.address, context=[module.user])

    def calls():
        module.user.set(classes.Level.LOW)
        assert other.call("who") == 1
        module.user.set(classes.Folded("A"))
        with pytest.raises(gtask.EncodeError, match=r"the context variable tests_subclass_users:user is .*Folded"):
            other.call("who")

    contextvars.copy_context().run(calls)


def test_a_time_zone(trusting):
    """Of a zone only the offset travels, and with pickles the zone."""
    try:
        berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    except zoneinfo.ZoneInfoNotFoundError:
        fail_or_skip("zone database")
    value = datetime.datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=1)
    assert trusting.call("one", [value])[0].tzinfo is berlin


def test_proxies_and_mappings_of_other_kinds(client):
    """What only looks like a dict or a date is refused by its own name."""

    class Proxy:
        __class__ = property(lambda self: datetime.date)

    for value, name in (
        (Proxy(), "Proxy"),
        (collections.ChainMap({}), "ChainMap"),
        (collections.UserDict(a=1), "UserDict"),
        (types.MappingProxyType({}), "mappingproxy"),
        (http.client.HTTPMessage(), "HTTPMessage"),
    ):
        with pytest.raises(gtask.EncodeError, match=rf"argument 1 is of type .*{name}"):
            client.call("one", value)


# --- of packages -----------------------------------------------------------------------------------------


def outcome_of(call, value):
    """What a call returns, or the EncodeError that it raises."""
    try:
        return call(value)
    except gtask.EncodeError as error:
        return error


SOURCES = [
    "pandas.NaT", "pandas.NA", "[{'a': pandas.NaT}]", "{'a': [pandas.NaT]}", "{pandas.NaT}",
    "pandas.DataFrame({'t': [pandas.Timestamp(1), None]}).to_dict('records')",
    "pandas.Timestamp('2026-01-02 03:04:05.678901')", "pandas.Timestamp('2026-01-02', tz='UTC')",
    "pandas.Timestamp(1)", "pandas.Timestamp('2026-01-02').to_datetime64()", "pandas.Timedelta(5, 'us')",
    "pandas.Timedelta(5, 'ns')", "pandas.Timedelta('-5s')", "pandas.Period('2026-01')", "pandas.Interval(1, 2)",
    "pandas.Timestamp('2026-01-02').date()", "pandas.Series([1.5]).iloc[0]", "pandas.Series([1]).iloc[0]",
    "pandas.Series(['x']).iloc[0]", "pandas.Timestamp('2026-01-02').to_period('D')",
    "pendulum.duration(seconds=-5)", "pendulum.duration(days=-3, microseconds=7)", "pendulum.duration(months=1)",
    "pendulum.datetime(2026, 10, 25, 2, 30, tz='Europe/Berlin')", "pendulum.date(2026, 1, 2)", "pendulum.time(1, 2)",
    "pendulum.interval(pendulum.datetime(2026, 1, 1), pendulum.datetime(2026, 2, 3))",
    "pendulum.datetime(2026, 1, 1) - pendulum.datetime(2026, 2, 3)",
]  # fmt: skip


@pytest.fixture
def packages():
    """pandas and pendulum, by their names."""
    try:
        return {name: importlib.import_module(name) for name in ("numpy", "pandas", "pendulum")}
    except ImportError as error:
        fail_or_skip(f"{error.name}: pip install {error.name}")


LOADED = f"\n    import pandas, pendulum\n{SOURCE}"
"""With the packages from the beginning, for to import them takes each worker a second."""


@pytest.fixture
def equipped(packages, classes, shared, connect):
    """A client whose server has the packages, without pickles."""
    return connect(shared(LOADED))


@pytest.fixture
def equipped_trusting(packages, classes, shared, connect):
    """A client whose server has the packages; both consent to pickles."""
    return connect(shared(LOADED, "--pickle"), pickle=True)


@pytest.mark.parametrize("source", SOURCES)
def test_a_value_of_a_package_arrives_or_is_refused(packages, equipped, source):
    """pandas's and pendulum's, in either direction: what arrives equals what was sent."""
    value = eval(source, dict(packages))
    with equipped.checkout() as worker:
        pid = worker.pid()
        for outcome in (outcome_of(worker.one, value), outcome_of(worker.evaluate, source)):
            if isinstance(outcome, gtask.EncodeError):
                assert "of type" in str(outcome)
            elif isinstance(value, datetime.datetime) and value.tzinfo:
                assert outcome.astimezone(datetime.timezone.utc) == value.astimezone(datetime.timezone.utc)
            else:
                assert bool(outcome == value)
        assert worker.pid() == pid


def test_no_date_is_refused_by_its_name(packages, client):
    """As ``to_dict("records")`` gives it."""
    with pytest.raises(gtask.EncodeError, match=r"argument 1\[1\]\['t'\] is of type pandas.*NaTType"):
        client.call("one", [{}, {"t": packages["pandas"].NaT}])
    with pytest.raises(gtask.EncodeError, match=r"the result\['t'\] is of type pandas.*NaTType"):
        client.call("evaluate", "{'t': pandas.NaT}")


def test_a_negative_duration_stays_what_it_is(packages, client):
    """Its own methods tell the parts of its absolute value."""
    value = packages["pendulum"].duration(seconds=-5)
    assert client.call("one", value) == client.call("evaluate", "pendulum.duration(seconds=-5)") == value
    assert client.call("one", value) == datetime.timedelta(seconds=-5)


@pytest.mark.parametrize("source", SOURCES)
def test_with_pickles_each_arrives_as_what_it_is(packages, equipped_trusting, source):
    """Of its own class, but for numpy's scalars that derive from Python's types."""
    value = eval(source, dict(packages))
    for arrived in (equipped_trusting.call("one", value), equipped_trusting.call("evaluate", source)):
        if isinstance(value, packages["numpy"].floating):
            assert arrived == float(value)
        else:
            assert type(arrived) is type(value)
            assert arrived is value or repr(arrived) == repr(value) or bool(arrived == value)


def test_exact_values_are_as_ever(trusting):
    """Nothing is pickled of what is of the types themselves, nor changed."""
    for value in (decimal.Decimal("1.50"), uuid.UUID(int=7), [1, "a", {b"k": 2.5}], {1, (2, "x")}):
        arrived = trusting.call("one", value)
        assert (arrived, type(arrived)) == (value, type(value))
    assert trusting.call("one", enum.Enum) is enum.Enum
