"""The point of this test is to ensure that every value that can travel arrives as it was, in both directions.

What does not stay as it was is said here, too: tuples arrive as lists, subclasses as what they derive from, time
zones as their offset. What cannot travel is refused before anything is sent.
"""

import datetime
import decimal
import math
import uuid
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gtask
from tests.support.examples import examples

SHARED = """\
import datetime, decimal, uuid

CEST = datetime.timezone(datetime.timedelta(hours=2), "CEST")
VALUES = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "small ints": [-1, 1, 127, 128, -128, -129, 2**31, -(2**31)],
    "ints at the edges of 64 bits": [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1],
    "an int of 1000 digits": 10**1000 + 7,
    "floats": [0.0, 1.5, -2.25e-300, 1.7976931348623157e308, float("inf"), float("-inf")],
    "an empty text": "",
    "text": "Größe \\u4f60\\u597d \\U0001f40d \\0 \\r\\n",
    "a lone surrogate": "caf\\udce9",
    "bytes": bytes(range(256)),
    "no bytes": b"",
    "a megabyte of text and of bytes": ["\\u00e4" * 500_000, b"\\xff" * 1_000_000],
    "an empty list": [],
    "nested lists": [1, [2, [3, [4, [None, [[]]]]]]],
    "an empty dict": {},
    "a dict with keys of all kinds": {"text": 1, 2: "int", b"bytes": 3, "": None, -5: [], 2**40: {}},
    "nested dicts": {"a": {"b": {1: {b"c": [{"d": {}}]}}}},
    "a datetime": datetime.datetime(2026, 2, 28, 23, 59, 59, 999999),
    "a datetime with an offset": datetime.datetime(2026, 7, 1, 12, 0, tzinfo=CEST),
    "a datetime in UTC": datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc),
    "the second of two same hours": datetime.datetime(2026, 10, 25, 2, 30, fold=1),
    "a date": datetime.date(9999, 12, 31),
    "a time": datetime.time(23, 59, 59, 1),
    "a time with an offset": datetime.time(6, 30, tzinfo=CEST),
    "a timedelta": datetime.timedelta(days=-3, seconds=5, microseconds=7),
    "decimals": [decimal.Decimal(text) for text in ("0.10", "-0", "1E+30", "Infinity", "123456789.987654321")],
    "a UUID": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "a set": {1, "two", b"three", (4, 5), None},
    "an empty set": set(),
    "a frozenset": frozenset({decimal.Decimal("1.5"), datetime.date(2026, 1, 1)}),
    "a set of frozensets": {frozenset({1}), frozenset({frozenset()})},
    "a complex number": complex(1.5, -0.0),
    "everything at once": [{"rows": [[1, "a", None, datetime.date(2026, 1, 2)], [decimal.Decimal("2.50"), {3}]]}],
}

def same(one, other):
    '''Equal, of equal types all the way down, and equal in what == does not look at: fold, -0.0, a Decimal's digits.'''
    if type(one) is not type(other) or one != other:
        return False
    if type(one) is dict:
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if type(one) is list:
        return all(map(same, one, other))
    if type(one) in (set, frozenset):
        return same(sorted(map(type, one), key=str), sorted(map(type, other), key=str))
    if type(one) is type:
        return one is other
    return str(one) == str(other) and getattr(one, "fold", 0) == getattr(other, "fold", 0)
"""

SOURCE = """
    import os
    from shared_values import VALUES, same

    def echo(value):
        return value

    def arrives(name, value, *, again):
        return same(value, VALUES[name]) and same(again, VALUES[name])

    def give(name):
        return VALUES[name]

    def keywords(**kwargs):
        return kwargs

    def pid():
        return os.getpid()
"""

shared = {}
exec(SHARED, shared)
VALUES, same = shared["VALUES"], shared["same"]


@pytest.fixture
def client(shared, connect, tmp_path):
    (tmp_path / "shared_values.py").write_text(SHARED)
    return connect(shared(SOURCE))


def test_to_the_worker(client):
    """Each value arrives in the worker equal and of the same type, as an argument and as a keyword argument."""
    with client.checkout() as worker:
        for name, value in VALUES.items():
            assert worker.arrives(name, value, again=value), name


def test_to_the_caller(client):
    """Each value that a worker makes arrives at the caller equal and of the same type."""
    with client.checkout() as worker:
        for name, value in VALUES.items():
            assert same(worker.give(name), value), name


def test_there_and_back(client):
    """Each value comes back from a worker as it was sent, also inside lists and dicts."""
    with client.checkout() as worker:
        for name, value in VALUES.items():
            assert same(worker.echo({"deep": [value, [value]]}), {"deep": [value, [value]]}), name


def test_not_a_number(client):
    """NaN stays NaN, as a float, in a Decimal and in a complex number."""
    values = client.call("echo", [math.nan, decimal.Decimal("NaN"), complex(math.nan, 1)])
    assert [str(value) for value in values] == ["nan", "NaN", "(nan+1j)"]


def test_a_tuple_arrives_as_a_list(client):
    """A tuple arrives as a list in either direction, but for a tuple in a set, which stays hashable."""
    assert client.call("echo", (1, (2, {"a": (3,)}))) == [1, [2, {"a": [3]}]]
    assert client.call("echo", {(1, (2,))}) == {(1, (2,))}


def test_a_subclass_arrives_as_what_it_derives_from(client):
    """Subclasses of what can travel arrive as their base; nothing of their own is told."""

    class Name(str):
        pass

    class Count(int):
        pass

    class Row(dict):
        pass

    value = client.call("echo", [Name("ada"), Count(3), Row(a=Count(4))])
    assert same(value, ["ada", 3, {"a": 4}])


def test_a_zone_arrives_as_its_offset(client):
    """A datetime in a named zone is the same instant at the other side, with that zone's offset of that day."""
    summer = datetime.datetime(2026, 7, 1, 12, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "CEST"))
    value = client.call("echo", summer)
    assert value == summer
    assert value.utcoffset() == datetime.timedelta(hours=2)
    assert type(value.tzinfo) is datetime.timezone


def test_a_zone_of_the_zone_database_arrives_as_its_offset(client):
    """The same for a zone of zoneinfo, in both of the hours that a change of clocks makes equal."""
    try:
        berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("this machine has no zone database")
    for fold, hours in ((0, 2), (1, 1)):
        value = client.call("echo", datetime.datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold))
        assert (value.hour, value.utcoffset()) == (2, datetime.timedelta(hours=hours))


def test_keyword_arguments(client):
    """Names of keyword arguments may be anything that Python allows, also names that gtask uses itself."""
    given_ = {"größe": 1, "self": 2, "name": 3, "method": 4, "timeout": 5, "args": [6], "kw": {"q": 7}}
    with client.checkout() as worker:
        assert worker.keywords(**given_) == given_
        assert worker.call("keywords", **given_) == given_
        assert worker.keywords.submit(**given_).get() == given_
    assert client.remote.keywords(**given_) == given_


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "argument 1 is of type object"),
        ([1, {"deep": [len]}], r"argument 1\[1\]\['deep'\]\[0\] is of type builtin_function_or_method"),
        ({(1, 2): 3}, r"key \(1, 2\)"),
        ({1.5: 3}, "key 1.5"),
        ({None: 3}, "key None"),
        (range(3), "range"),
        (iter([]), "list_iterator"),
        (ValueError("x"), "ValueError"),
        (pytest, "module"),
    ],
    ids=repr,
)
def test_what_cannot_travel_is_refused(client, value, why):
    """Anything else is an EncodeError that says which argument, nothing is sent, and the worker is unharmed."""
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.EncodeError, match=why) as caught:
            worker.echo(value)
        assert not isinstance(caught.value, gtask.RemoteError)
        assert isinstance(caught.value, TypeError)
        with pytest.raises(gtask.EncodeError, match="argument again"):
            worker.arrives("none", None, again=[object()])
        assert worker.pid() == pid


def test_what_contains_itself_is_refused(client):
    """A list or dict that contains itself is an EncodeError, too."""
    circle = []
    circle.append({"circle": circle})
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.EncodeError, match="contains itself"):
            worker.echo(circle)
        assert worker.pid() == pid


offsets = st.integers(-1439, 1439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
hashables = st.one_of(
    st.none(),
    st.integers(),
    st.text(st.characters(codec=None)),
    st.binary(),
    st.dates(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.timedeltas(min_value=datetime.timedelta(-(10**6)), max_value=datetime.timedelta(10**6)),
)
leaves = st.one_of(
    hashables,
    st.booleans(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.datetimes(timezones=st.none() | offsets),
    st.times(timezones=st.none() | offsets),
    st.sets(hashables, max_size=5),
    st.frozensets(hashables, max_size=5),
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.integers() | st.binary(), inner, max_size=5)
    ),
    max_leaves=20,
)


def test_any_value_there_and_back(client):
    """Whatever hypothesis makes of the types that can travel comes back as it was."""
    with client.checkout() as worker:

        @settings(deadline=None, max_examples=examples(1), database=None)
        @given(values)
        def comes_back(value):
            assert same(worker.echo(value), value)

        comes_back()


def test_types_are_those_of_the_standard_library(client):
    """What arrives are plain objects of the standard library's classes, and nothing of gtask's."""
    value = client.call("give", "everything at once")
    assert type(value[0]["rows"][0][3]) is datetime.date
    assert type(value[0]["rows"][1][0]) is decimal.Decimal
    assert type(client.call("give", "a UUID")) is uuid.UUID
