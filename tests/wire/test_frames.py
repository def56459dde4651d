"""Values and messages as bytes: what goes in comes out, and what a hostile peer sends is a ProtocolError."""

from __future__ import annotations

import datetime
import enum
import itertools
import math
import struct
import sys
import tracemalloc
import uuid
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.limits import DEFAULTS, Limits
from gtask.wire.messages import (
    Done,
    Extend,
    Failure,
    Greeting,
    LastWords,
    LogRecords,
    Preamble,
    Request,
    RequestMeta,
    Retire,
    Skipped,
    Value,
)
from gtask.wire.reading import CHUNK, FrameReader
from gtask.wire.values import kinds as extensions
from gtask.wire.values.kinds import NESTED_EXT

MIB = 1024 * 1024

# --- what a value becomes on its way ---------------------------------------------------------------------


class Int(int):
    pass


class Float(float):
    pass


class Str(str):
    pass


class Bytes(bytes):
    pass


class List(list):
    pass


class Dict(dict):
    pass


class Set(set):
    pass


class FrozenSet(frozenset):
    pass


class Date(datetime.date):
    pass


class DateTime(datetime.datetime):
    pass


class Time(datetime.time):
    pass


class TimeDelta(datetime.timedelta):
    pass


class Number(Decimal):
    pass


class Identity(uuid.UUID):
    pass


class Complex(complex):
    pass


class Colour(enum.IntEnum):
    RED = 7


Pair = namedtuple("Pair", "left right")


class Summer(datetime.tzinfo):
    """A zone whose offset depends on the fold, as in the hour that a clock shows twice."""

    def utcoffset(self, when):
        return datetime.timedelta(hours=1 if when is not None and when.fold else 2)

    def dst(self, when):
        return None


class Nowhere(datetime.tzinfo):
    """A zone that knows no offset: what has it is naive."""

    def utcoffset(self, when):
        return None

    def dst(self, when):
        return None


def normalise(value, in_set=False):
    """What comes out where ``value`` went in."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return (tuple if in_set else list)(normalise(part, in_set) for part in value)
    if isinstance(value, dict):
        return {normalise(key): normalise(part) for key, part in value.items()}
    if isinstance(value, (set, frozenset)):
        return (set if isinstance(value, set) else frozenset)(normalise(part, True) for part in value)
    if isinstance(value, (datetime.datetime, datetime.time)):
        offset = value.utcoffset()
        return value.replace(tzinfo=None if offset is None else datetime.timezone(offset))
    return value


def shape(value):
    """The value spelled out, with its base types, so that == compares NaNs, signs of zeros, types and folds."""
    if isinstance(value, (list, tuple)):
        return (type(value), *map(shape, value))
    if isinstance(value, dict):
        return (dict, *((shape(key), shape(part)) for key, part in value.items()))
    if isinstance(value, (set, frozenset)):
        return (base(value), *sorted(map(repr, map(shape, value))))
    if isinstance(value, (datetime.datetime, datetime.time)):
        return (base(value), value.isoformat(), value.fold)
    if isinstance(value, datetime.date):
        return (datetime.date, value.isoformat())
    if isinstance(value, datetime.timedelta):
        return (datetime.timedelta, value.days, value.seconds, value.microseconds)
    if isinstance(value, complex):
        return (complex, repr(value.real), repr(value.imag))
    kind = base(value)
    if kind is int:
        return (int, hex(value))  # which has no limit of digits
    return (kind, str(value) if kind in (Decimal, uuid.UUID) else kind.__repr__(value))


BASES = (
    type(None), bool, int, float, str, bytes, set, frozenset, datetime.datetime, datetime.date, datetime.time,
    datetime.timedelta, Decimal, uuid.UUID, complex,
)  # fmt: skip


def base(value):
    return next(kind for kind in BASES if isinstance(value, kind))


# --- values that can travel ------------------------------------------------------------------------------


def named(strategy):
    """The same strategy with a short repr: hypothesis warns of those that are many pages long."""

    @st.composite
    def values(draw):
        return draw(strategy)

    return values()


SURROGATES = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=8)
INTS = st.one_of(
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.sampled_from([0, -(2**63), -(2**63) - 1, 2**63, 2**64 - 1, 2**64, 2**127, -(2**127), 255, -256]),
)
ZONES = st.one_of(
    st.none(),
    st.sampled_from([datetime.timezone.utc, Summer(), Nowhere()]),
    st.integers(-86_399, 86_399).map(lambda seconds: datetime.timezone(datetime.timedelta(seconds=seconds))),
)
FOLDS = st.sampled_from([0, 1])
DATETIMES = st.builds(
    lambda when, zone, fold: when.replace(tzinfo=zone, fold=fold),
    st.datetimes() | st.datetimes().map(lambda when: DateTime.combine(when, when.time())),
    ZONES,
    FOLDS,
)
TIMES = st.builds(
    lambda when, zone, fold: when.replace(tzinfo=zone, fold=fold),
    st.times() | st.times().map(lambda when: Time.fromisoformat(when.isoformat())),
    ZONES,
    FOLDS,
)
PLAIN_DECIMALS = st.decimals(allow_nan=False) | st.sampled_from(
    [Decimal("-0"), Decimal("0E+10"), Decimal("1.10"), Decimal("1E-999999"), Decimal("NaN"), Decimal("-NaN12")]
)
SIGNALLING = st.sampled_from([Decimal("sNaN"), Decimal("-sNaN7")])  # these cannot be hashed
COMPLEXES = st.builds(complex, st.floats(), st.floats())
ATOMS = named(
    st.one_of(
        st.none(),
        st.booleans(),
        INTS,
        st.floats(),
        SURROGATES,
        st.binary(max_size=40),
        DATETIMES,
        st.dates(),
        TIMES,
        st.timedeltas(),
        PLAIN_DECIMALS,
        st.uuids(),
        COMPLEXES,
        # subclasses
        INTS.map(Int),
        st.floats().map(Float),
        SURROGATES.map(Str),
        st.binary(max_size=8).map(Bytes),
        st.dates().map(lambda day: Date(day.year, day.month, day.day)),
        st.timedeltas().map(lambda span: TimeDelta(span.days, span.seconds, span.microseconds)),
        PLAIN_DECIMALS.map(Number),
        st.uuids().map(lambda some: Identity(int=some.int)),
        COMPLEXES.map(Complex),
        st.just(Colour.RED),
    )
)
HASHABLE = named(
    st.recursive(
        ATOMS,
        lambda inner: st.one_of(
            st.tuples(inner, inner),
            st.lists(inner, max_size=3).map(tuple),
            st.frozensets(inner, max_size=3),
            st.frozensets(inner, max_size=3).map(FrozenSet),
        ),
        max_leaves=6,
    )
)
KEYS = SURROGATES | INTS | st.binary(max_size=8) | SURROGATES.map(Str) | INTS.map(Int) | st.just(Colour.RED)


def containers(inner):
    """Values that hold others."""
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.lists(inner, max_size=4).map(List),
        st.builds(Pair, inner, inner),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4).map(Dict),
        st.dictionaries(KEYS, inner, max_size=4).map(OrderedDict),
        st.dictionaries(KEYS, inner, max_size=4).map(lambda some: defaultdict(list, some)),
    )


LEAVES = st.one_of(
    ATOMS,
    SIGNALLING,
    st.binary(max_size=8).map(bytearray),
    st.binary(max_size=8).map(memoryview),
    st.sets(HASHABLE, max_size=3),
    st.sets(HASHABLE, max_size=3).map(Set),
    st.frozensets(HASHABLE, max_size=3),
)
VALUES = st.recursive(LEAVES, containers, max_leaves=12)

# --- and some that cannot --------------------------------------------------------------------------------

RUBBISH = st.sampled_from([object(), len, int, ..., range(3), iter(()), (1).__add__, msgpack, NotImplemented])
BAD_KEYS = st.one_of(
    st.none(), st.floats(), st.tuples(INTS, INTS), st.frozensets(INTS, max_size=2), st.just(len), st.uuids()
)
ANYTHING = st.recursive(
    LEAVES | RUBBISH | st.sets(RUBBISH, max_size=2) | st.dictionaries(BAD_KEYS, INTS, max_size=2),
    containers,
    max_leaves=12,
)


def feed(decoder, data, cuts=()):
    """The messages that a decoder makes of ``data``, given to it in pieces that end at ``cuts``."""
    messages = []
    for start, stop in itertools.pairwise([0, *cuts, len(data)]):
        for first in range(start, stop, CHUNK):
            piece = data[first : min(stop, first + CHUNK)]
            decoder.space[: len(piece)] = piece
            messages += decoder.received(len(piece))
    return messages


def decode(data):
    """The only message in ``data``."""
    (message,) = feed(Decoder(), data)
    return message


def framed(body):
    """A frame around any bytes."""
    return struct.pack("!I", len(body)) + body


def travel(value):
    """Where a value gets to as a result."""
    return decode(Encoder().encode(Value(value))).value


# --- values ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(VALUES)
@example("\ud800")
@example({"\udfff": ["\ud83d\ude00", "\U0001f600"]})
@example({(b"x", 1, ("\udc80",)), frozenset({2**70, frozenset()})})
@example([-0.0, math.nan, math.inf, complex(math.nan, -0.0)])
@example(Decimal("sNaN123"))
@example({b"1": 1, "1": 2, 1: 3, 2**80: 4})
@example(datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-23, microseconds=-1))))
@example(datetime.datetime(2026, 10, 25, 2, 30, tzinfo=Summer(), fold=1))
@example(datetime.timedelta.min)
@example(10**6000)
def test_a_value_comes_out_as_its_normal_form(value):
    """Every value that can travel arrives, exact to the sign of a zero, the fold of a time and a lone surrogate."""
    assert shape(travel(value)) == shape(normalise(value))


@settings(deadline=None)
@given(st.lists(ANYTHING, max_size=3), st.dictionaries(SURROGATES, ANYTHING, max_size=2))
def test_anything_arrives_or_is_an_encode_error(args, kwargs):
    """Whatever the arguments are, they arrive in their normal form or nothing is sent; and then the encoder works."""
    encoder = Encoder()
    try:
        frame = encoder.encode(Request(args, kwargs, 3))
    except EncodeError:
        assert decode(encoder.encode(Value("after"))) == Value("after")
        return
    do = decode(frame)
    assert shape(do.args) == shape(normalise(args))
    assert shape(do.kwargs) == shape(normalise(kwargs))
    assert do.epoch == 3


@pytest.mark.parametrize("offset", [datetime.timedelta(microseconds=-1), datetime.timedelta(microseconds=1)], ids=str)
def test_an_offset_of_less_than_a_second(offset):
    """No such zone exists, but Python allows it (and cannot read it): it arrives or is refused, and is not lost."""
    value = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(offset))
    try:
        arrived = travel(value)
    except EncodeError:
        return
    assert shape(arrived) == shape(value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Int(3), int), (Int(2**70), int), (Colour.RED, int), (Float(0.5), float), (Str("a"), str),
        (Bytes(b"a"), bytes), (bytearray(b"a"), bytes), (List([1]), list), ((1, 2), list), (Pair(1, 2), list),
        (Dict(a=1), dict), (Counter("aab"), dict), (Set({1}), set), (FrozenSet({1}), frozenset),
        (Date(2026, 1, 2), datetime.date), (DateTime(2026, 1, 2), datetime.datetime), (Time(1), datetime.time),
        (TimeDelta(1), datetime.timedelta), (Number("1.10"), Decimal), (Identity(int=5), uuid.UUID),
        (Complex(1, 2), complex), (True, bool),
    ],
)  # fmt: skip
def test_a_subclass_arrives_as_its_base(value, kind):
    """Exactly the base's type comes out, so that no class of the peer's is needed to read it."""
    assert type(travel(value)) is kind


def test_what_lies_in_a_set_stays_hashable():
    """A tuple in a set is a tuple again, at every depth, while elsewhere tuples arrive as lists."""
    value = {((1, 2), frozenset({(3, (4,))}))}
    assert travel([value, (5, (6,))]) == [value, [5, [6]]]


def test_a_decoded_value_does_not_change_with_the_buffer():
    """Bytes that arrived are copies: the next read does not write over them."""
    decoder = Decoder()
    (first,) = feed(decoder, Encoder().encode(Value([b"a" * 100, {b"b" * 100}])))
    feed(decoder, Encoder().encode(Value(b"z" * 300)))
    assert first.value == [b"a" * 100, {b"b" * 100}]


# --- frames ----------------------------------------------------------------------------------------------

MESSAGES = [
    Greeting(name="wörker \ud800", pid=7, done=True),
    Request(["hash", "s3cret", [1, (2,)], {"k": b"v", 3: None}], {"kw": 2**70}, 5),
    Request([], {}, 0),
    Request([1], {}, 1, RequestMeta(0.5, True, True, {"traceparent": "00"}, {"app:who": {1}})),
    Preamble({"": 30}, 1.5),
    LogRecords([{"msg": "x"}], {"logs": []}, 1, 2),
    Extend(1.5),
    Value(None),
    Value({datetime.date(2026, 1, 2), Decimal("1.10"), (1, "\udc00")}),
    Failure("KeyError: 'x'", {"type": "KeyError", "args": ["x"]}),
    Skipped(),
    Done(),
    Retire("memory"),
    LastWords(pid=7, signal="SIGKILL", method="hash", elapsed=0.25, maxrss=1024),
]
FRAMES = [Encoder().encode(message) for message in MESSAGES]
RECEIVED = [decode(frame) for frame in FRAMES]


@pytest.mark.parametrize(
    ("frame", "message"),
    list(zip(FRAMES, RECEIVED, strict=True)),
    ids=[type(message).__name__.lower() + str(index) for index, message in enumerate(MESSAGES)],
)
def test_a_frame_may_be_cut_at_any_byte(frame, message):
    """In two pieces, cut anywhere, a frame is the same message, and only when its last byte has come."""
    for cut in range(1, len(frame)):
        decoder = Decoder()
        assert feed(decoder, frame[:cut]) == []
        assert decoder.midway
        assert feed(decoder, frame[cut:]) == [message]
        assert not decoder.midway


def test_frames_may_come_byte_by_byte():
    """All messages in a row, one byte at a time; each is there with its last byte."""
    decoder = Decoder()
    for frame, message in zip(FRAMES, RECEIVED, strict=True):
        for byte in frame[:-1]:
            assert feed(decoder, bytes([byte])) == []
        assert feed(decoder, frame[-1:]) == [message]


def test_many_frames_may_come_at_once_cut_at_any_byte():
    """All messages in one read, or in two that are cut anywhere, come out in order."""
    data = b"".join(FRAMES)
    assert feed(Decoder(), data) == RECEIVED
    for cut in range(1, len(data)):
        decoder = Decoder()
        assert feed(decoder, data, [cut]) == RECEIVED
        assert not decoder.midway


@settings(deadline=None)
@given(st.data(), st.lists(st.lists(VALUES, max_size=2), min_size=1, max_size=6))
def test_the_cuts_of_a_stream_do_not_matter(data, batch):
    """However a stream of calls is cut into reads, the same calls come out."""
    encoder = Encoder()
    stream = b"".join(encoder.encode(Request(args)) for args in batch)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=12)))
    messages = feed(Decoder(), stream, cuts)
    assert [shape(message.args) for message in messages] == [shape(normalise(args)) for args in batch]


USUAL = Request(["echo", 1.5], {}, 70_000)
NAMED = Request(["echo"], {"key": [1]}, 70_000)
TIMED = Request(["echo", "x"], {}, 70_000, RequestMeta(2.5, True))


@settings(deadline=None)
@example([USUAL, Done()], set())
@example([Done(), USUAL, Done()], set())
@example([Done(), NAMED, Done()], set())
@example([USUAL, Done(), USUAL], set())
@example([Done(), Done()], set())
@given(st.lists(st.sampled_from([USUAL, NAMED, TIMED, Done()]), min_size=1, max_size=5), st.sets(st.integers(1, 60)))
def test_the_short_way_reads_what_the_general_way_reads(batch, cuts):
    """Calls between ends of checkouts, however they come together, and however they are cut."""
    stream = b"".join(Encoder().encode(message) for message in batch)
    cuts = sorted(cut for cut in cuts if cut < len(stream))
    assert feed(Decoder(), stream, cuts) == feed(FrameReader(), stream, cuts) == batch


@pytest.mark.parametrize("size", [CHUNK - 20, CHUNK - 4, CHUNK, CHUNK + 1, 3 * CHUNK, 2 * MIB])
def test_a_frame_may_be_larger_than_a_read(size):
    """Around and beyond the size of one read, with other frames before and behind it."""
    frames = [Encoder().encode(Value(value)) for value in ("before", "x" * size, "behind")]
    messages = feed(Decoder(), b"".join(frames))
    assert [message.value for message in messages] == ["before", "x" * size, "behind"]


def test_the_frame_is_four_bytes_of_length_and_a_msgpack_array():
    """What a client in another language has to write."""
    assert Encoder().encode(Request(["add", 1, 2], {"c": 3}, 4)) == framed(
        msgpack.packb(["do", {"kw": {"c": 3}, "q": 4}, "add", 1, 2])
    )
    assert Encoder().encode(Done()) == b"\0\0\0\x05\x92\xa2dn\xc0"


# --- what cannot travel ----------------------------------------------------------------------------------


def refusal(*args, **kwargs):
    """The text of the EncodeError of a call, whose encoder then still works."""
    encoder = Encoder()
    frame = encoder.encode(Value([1, "two"]))
    with pytest.raises(EncodeError) as caught:
        encoder.encode(Request(["method", *args], kwargs))
    assert encoder.encode(Value([1, "two"])) == frame
    return str(caught.value)


def test_the_culprit_is_named():
    """Which argument it was, where in it, and of what type, for positional and keyword arguments and results."""
    assert "argument 1 is of type function" in refusal(lambda: 0)
    assert "argument 2[1]['deep'][0] is of type object." in refusal("fine", [1, {"deep": (object(),)}])
    assert "argument key is of type range" in refusal(1, key=range(3))
    assert "argument key['a'][2] is of type function" in refusal(1, key={"a": [1, 2, refusal]})
    assert f"argument 1 is of type {Thing.__module__}.Thing" in refusal(Thing())
    with pytest.raises(EncodeError, match=r"the result\[0\] is of type generator"):
        Encoder().encode(Value([(part for part in ())]))


class Thing:
    """Of no type that can travel."""


def test_what_can_travel_is_said():
    """The error lists what could have been sent."""
    assert "datetime" in refusal(Thing())


@pytest.mark.parametrize("key", [(1, 2), None, 1.5, frozenset({1}), Decimal(1), datetime.date(2026, 1, 2)], ids=repr)
def test_keys_that_cannot_travel(key):
    """The error shows the key, also one deep inside an argument or under a keyword."""
    for text in (refusal({key: 3}), refusal([1, {"a": ({key: 3},)}]), refusal(kw={"a": {key: 3}})):
        assert repr(key) in text
        assert "keys may be str, int or bytes" in text


def test_values_that_contain_themselves():
    """A list and a dict that contain themselves."""
    round_list, round_dict = [], {}
    round_list.append(round_list)
    round_dict["self"] = [round_dict]
    assert "contains itself" in refusal(round_list)
    assert "contains itself" in refusal(1, {"a": round_dict})


def test_values_that_are_nested_too_deeply():
    """Anything is either refused as too deep or arrives whole; very deep things are refused, moderate ones not."""
    for make in (lambda inner: [inner], lambda inner: (inner,), lambda inner: {"k": inner}):
        value = 1
        for _ in range(100):
            value = make(value)
        assert travel(value) == normalise(value)
        for _ in range(3000):
            value = make(value)
        assert "nested too deeply" in refusal(value)


@pytest.fixture(params=[1000, 20_000])
def limit_of_python(request):
    """An application may have raised it."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(request.param)
    yield request.param
    sys.setrecursionlimit(usual)


@pytest.mark.parametrize("key", [None, "k"], ids=["lists", "maps"])
@pytest.mark.parametrize("inmost", [1, Str("x")], ids=["plain", "an instance of a subclass"])
def test_every_depth_arrives_or_is_refused(limit_of_python, key, inmost):
    """There is no depth that is sent and then cannot be read, be it an argument, one by name, or a result."""
    value, deepest = inmost, 0
    for depth in range(1, 1200):
        value = [value] if key is None else {key: value}
        if 50 < depth < 300:
            continue
        messages = Value(value), Request(["f", value]), Request(["f"], {"x": value}, 1 << 20)
        try:
            frames = [Encoder().encode(message) for message in messages]
        except EncodeError:
            break
        for frame in frames:
            decode(frame)
        deepest = depth
    assert "nested too deeply" in refusal(value)
    assert 100 < deepest < 1100


def nested_sets(count):
    value = frozenset()
    for _ in range(count - 1):
        value = frozenset({value})
    return value


def test_sets_in_sets():
    """They nest up to the limit and arrive, beyond it they are refused by name, and by a reader, too."""
    value = nested_sets(NESTED_EXT)
    assert travel(value) == value
    text = refusal(nested_sets(NESTED_EXT + 1))
    assert f"argument 1 is of type frozenset: sets nested more than {NESTED_EXT} deep" in text
    assert "sets nested" in refusal(nested_sets(500))
    body = msgpack.packb([])
    for _ in range(200):
        body = msgpack.packb([msgpack.ExtType(extensions.SET, body)])
    with pytest.raises(ProtocolError, match="sets nested"):
        decode(framed(b"\x93\xa2ok\xc0" + body))


def test_tall_values_between_nested_sets():
    """Deep tuples in each of the nested sets do not overflow the C stack, on the way out or in."""
    value = frozenset()
    for _ in range(NESTED_EXT - 1):
        for _ in range(400):
            value = (value,)
        value = frozenset({value})
    frame = Encoder().encode(Value(value))
    assert Encoder().encode(decode(frame)) == frame


def test_a_message_over_the_limit_is_refused():
    """A frame of exactly the limit is sent; one byte more is not, and the error has both numbers."""
    room = 2048 - len(Encoder().encode(Value("x" * 1000))) + 4 + 1000
    encoder = Encoder(2048)
    assert decode(encoder.encode(Value("x" * room))).value == "x" * room
    with pytest.raises(EncodeError, match="2049 bytes and the limit is 2048"):
        encoder.encode(Value("x" * (room + 1)))
    with pytest.raises(EncodeError, match="too large"):
        encoder.encode(Request(["f", "\ud800" * 1000]))
    assert decode(encoder.encode(Value("small"))).value == "small"


def test_an_encoder_does_not_keep_the_memory_of_a_large_message():
    """After a message of 20 MiB, sent or refused, what the encoder holds is small again."""
    encoders = [Encoder(), Encoder(MIB)]
    value = "x" * (20 * MIB)
    tracemalloc.start()
    try:
        encoders[0].encode(Value(value))
        with pytest.raises(EncodeError):
            encoders[1].encode(Value(value))
        assert tracemalloc.get_traced_memory()[0] < 2 * MIB
    finally:
        tracemalloc.stop()


# --- classes with a mind of their own --------------------------------------------------------------------


class Mischief(Exception):
    """An exception that cannot even be shown."""

    def __str__(self):
        raise ZeroDivisionError("in __str__")

    __repr__ = __str__


def misbehave(*args, **kwargs):
    raise Mischief


class LikeAnArray:
    """Like an array of numpy: comparisons and truth raise."""

    __eq__ = __bool__ = __len__ = __iter__ = __getitem__ = __repr__ = __str__ = __index__ = misbehave
    __hash__ = object.__hash__


class Proxy:
    """Like a proxy whose target is gone. While a test runs, that is: whoever looks at all objects meets it, too."""

    gone = False

    def __getattribute__(self, name):
        if Proxy.gone:
            raise Mischief
        return super().__getattribute__(name)


class UnprintableKey:
    __repr__ = misbehave


class BadDate(datetime.date):
    isoformat = misbehave


class BadSet(set):
    __iter__ = misbehave


class BadDict(dict):
    items = values = keys = __iter__ = misbehave


class BadZone(datetime.tzinfo):
    utcoffset = misbehave


class HashableDict(dict):
    __hash__ = object.__hash__


class HashableSet(set):
    __hash__ = object.__hash__


MISBEHAVING = {
    "array": LikeAnArray,
    "array in a list": lambda: [LikeAnArray()],
    "array in a set": lambda: {LikeAnArray()},
    "array as a key": lambda: {LikeAnArray(): 1},
    "proxy": Proxy,
    "proxy in a set": lambda: {Proxy()},
    "key": lambda: {UnprintableKey(): 1},
    "key above a culprit": lambda: {"a": {UnprintableKey(): len}},
    "huge number in a key": lambda: {(10**6000,): 1},
    "huge number as a key": lambda: {10**6000: len},
    "surrogate as a key": lambda: {"\ud800": len},
    "date": lambda: BadDate(2026, 1, 2),
    "set": lambda: BadSet({1}),
    "dict": lambda: BadDict({1.5: 2}),
    "zone of a datetime": lambda: datetime.datetime(2026, 1, 2, tzinfo=BadZone()),
    "zone of a time": lambda: datetime.time(1, tzinfo=BadZone()),
}


@pytest.mark.parametrize("name", MISBEHAVING)
def test_classes_whose_methods_raise(name, monkeypatch):
    """Whatever their methods raise, and however little it can be shown, the caller sees an EncodeError."""
    value = MISBEHAVING[name]()
    monkeypatch.setattr(Proxy, "gone", True)
    assert refusal(value)
    assert refusal("other", key=value)


@pytest.mark.parametrize("value", [HashableDict(a=1), HashableSet({1})], ids=["dict", "set"])
def test_hashable_containers_in_a_set(value):
    """A set may hold a dict or set of a class that is hashable; its reader could not hash it, so it is not sent."""
    assert refusal({value})
    assert refusal([frozenset({(1, value)})])


@pytest.mark.parametrize("code", [99, extensions.UUID], ids=["unknown", "broken"])
def test_extensions_of_msgpack_are_no_values(code):
    """An ExtType that the application happens to hold would break the connection at its reader, so it is not sent."""
    value = msgpack.ExtType(code, b"?")
    for argument in (value, [value], {"a": value}, {value}, {(value,)}):
        assert refusal(argument)


def test_an_interruption_passes_through_the_encoder():
    """A KeyboardInterrupt in a value's method is not an EncodeError, and the encoder works afterwards."""

    class Interrupting(datetime.date):
        def isoformat(self):
            raise KeyboardInterrupt

    encoder = Encoder()
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(Request(["f", [1, 2, 3], Interrupting(2026, 1, 2)]))
    assert decode(encoder.encode(Value(1))) == Value(1)


# --- hostile peers ---------------------------------------------------------------------------------------


def memory_of(data, limit=DEFAULTS.message):
    """How much memory a decoder takes at most for ``data``, which is refused or incomplete."""
    decoder = Decoder(Limits(message=limit))
    tracemalloc.start()
    try:
        try:
            assert feed(decoder, data) == []
        except ProtocolError:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [1025, 2000, CHUNK, 2**31, 2**32 - 1])
def test_a_length_over_the_limit_is_refused_at_once(length):
    """The four bytes are enough, alone, byte by byte, behind a good frame and with all the bytes that they announce."""
    head = struct.pack("!I", length)
    good = Encoder().encode(Value(1))
    rest = b"\x93\xa2ok\xc0\xda" + struct.pack("!H", min(length, 60_000) - 8) + b"x" * (min(length, 60_000) - 8)
    ways = ((head, ()), (head, (1, 2, 3)), (good + head, ()), (good + head, (len(good) + 2,)), (head + rest, ()))
    for data, cuts in ways:
        with pytest.raises(ProtocolError, match=f"{length} bytes and the limit is 1024"):
            feed(Decoder(Limits(message=1024)), data, cuts)


def test_the_first_byte_of_json_or_http_is_an_impossible_length():
    """Peers of another protocol are refused by their first four bytes."""
    for greeting in (b'["do", {}]', b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"):
        with pytest.raises(ProtocolError, match="is it a gtask peer"):
            feed(Decoder(), greeting)


def test_memory_grows_only_as_bytes_arrive():
    """Neither a refused length nor one within the limit, whose bytes never come, allocates anything."""
    assert memory_of(struct.pack("!I", 2**32 - 1)) < MIB
    assert memory_of(struct.pack("!I", 60 * MIB) + b"\x93") < MIB


NESTED = b"\xdd\xff\xff\xff\xff"  # an array32 that claims 4 G items


@pytest.mark.parametrize(
    "body",
    [
        NESTED * 100,
        b"\x93\xa2ok\xc0" + NESTED * 100,
        b"\x93\xa2ok\xc0" + b"\xdf\xff\xff\xff\xff" * 100,
        b"\x93\xa2ok\xc0" + b"\xdc\x01\xf4" * 100 + b"\xc0" * 600,
        b"\x93\xa2ok\xc0" + b"\x91" * 100_000,
        b"\x93\xa2ok\xc0" + b"\x81\xc0" * 100_000,
        b"\x93\xa2ok\xc0\xdb\xff\xff\xff\xff",
        b"\x93\xa2ok\xc0\xc6\xff\xff\xff\xff",
        b"\x93\xa2ok\xc0\xc9\xff\xff\xff\xff\x01",
    ],
    ids=["arrays", "arrays inside", "maps", "arrays of 500", "deep", "deep maps", "str", "bin", "ext"],
)
def test_a_nesting_bomb_is_refused(body):
    """What claims to be huge or is nested beyond all measure is a ProtocolError and takes little memory."""
    with pytest.raises(ProtocolError):
        decode(framed(body))
    assert memory_of(framed(body)) < 16 * MIB


@pytest.mark.parametrize("item", [b"\x90", b"\x80", b"\xdd\0\0\0\0", b"\xc7\0\x08", b"\xc7\1\x08\x90"], ids=bytes.hex)
def test_a_megabyte_of_empty_containers(item):
    """It costs at most 100 times its size: read, or refused."""
    count = MIB // len(item)
    body = b"\x93\xa2ok\xc0\xdd" + struct.pack("!I", count) + item * count
    tracemalloc.start()
    try:
        try:
            assert len(decode(framed(body)).value) == count
        except ProtocolError:
            pass
        assert tracemalloc.get_traced_memory()[1] < 100 * MIB + 2 * len(body)
    finally:
        tracemalloc.stop()


def test_arrays_nested_in_nested_sets_are_bounded():
    """Arrays that claim many items, nested in sets that are nested in such arrays, cannot take a gigabyte."""
    arrays = (b"\xdd" + struct.pack("!I", 10_000)) * 900
    inner = arrays + b"\xc0" * 10_000
    for _ in range(NESTED_EXT - 1):
        inner = b"\x92" + arrays + msgpack.packb(msgpack.ExtType(extensions.SET, inner))
    assert memory_of(framed(b"\x93\xa2ok\xc0" + inner)) < 200 * MIB


def test_bad_text_in_nested_sets_is_decoded_a_bounded_number_of_times(monkeypatch):
    """A frame of a hundred bytes cannot keep a process busy: each set in it is read twice at most."""
    calls = 0
    real = msgpack.unpackb

    def counting(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls > 1000:
            raise GeneratorExit  # which the decoder does not catch: it would go on for minutes
        return real(*args, **kwargs)

    monkeypatch.setattr(msgpack, "unpackb", counting)
    body = b"\x91\xa1\xff"
    for _ in range(NESTED_EXT):
        body = b"\x91" + msgpack.packb(msgpack.ExtType(extensions.SET, body))
    with pytest.raises(ProtocolError):
        decode(framed(b"\x93\xa2ok\xc0" + body[1:]))
    assert calls <= 2 * (NESTED_EXT + 1)


HUGE = msgpack.packb(msgpack.ExtType(extensions.BIGINT, b"\x7f" * 3000))
DEEP = b"\x91" * 1000 + b"\xc0"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\xc0",
        b"\xa2ok",
        b"\x80",
        b"\x90",
        b"\x91\xa2ok",
        b"\x92\xa2ok\xc0",
        b"\x93\xa2ok\xc0\xc0\xc0",  # one object too many, behind the array
        b"\x92\xc4\x02ok\xc0",
        b"\x92" + HUGE + b"\xc0",
        b"\x92" + DEEP + b"\xc0",
        b"\x92\xa2hi\x81\xa1v" + HUGE,
        b"\x92\xa2hi\x81\xa1v" + DEEP,
        b"\x92\xa2hi\x82\xa1v\x01\xa4name" + HUGE,
        b"\x92\xa2hi\x82\xa1v\x01\xa4name" + DEEP,
        b"\x92\xa2by\x81\xa3why" + HUGE,
        b"\x92\xa2do\x81\xa1q" + DEEP,
        b"\x93\xa2ok\xc0\x81" + DEEP + b"\xc0",  # an unhashable key
    ],
    ids=lambda body: body[:12].hex() or "nothing",
)
def test_a_frame_that_is_no_message_is_a_protocol_error(body):
    """Also where it cannot be shown: ints with too many digits for str(), lists too deep for repr()."""
    with pytest.raises(ProtocolError):
        decode(framed(body))


@pytest.mark.parametrize("code", range(13))
def test_broken_extensions_are_protocol_errors(code):
    """Every extension type with data that is not its own is refused, or read as a value of a type that can travel."""
    for data in (b"", b"\0", b"\xff" * 7, b"\x022026-01-02T00:00:00", b"\x80", b"\xc1", b"1E+" + b"9" * 40):
        try:
            value = decode(framed(msgpack.packb(["ok", None, msgpack.ExtType(code, data)]))).value
        except ProtocolError:
            continue
        assert base(value)


@pytest.mark.parametrize("seconds", [5, -5, 2**40, 2**62, -(2**62)])
def test_a_timestamp_of_msgpack_is_refused_or_a_datetime(seconds):
    """The one extension that msgpack reads by itself must not put a class of msgpack's into the application's hands."""
    frame = framed(msgpack.packb(["ok", None, [msgpack.Timestamp(seconds, 6000)]]))
    try:
        (value,) = decode(frame).value
    except ProtocolError:
        return
    assert type(value) is datetime.datetime


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_garbage_is_a_protocol_error(pieces, in_frames):
    """Random bytes, framed or not, are messages or a ProtocolError."""
    data = b"".join(map(framed, pieces)) if in_frames else b"".join(pieces)
    try:
        feed(Decoder(Limits(message=4096)), data)
    except ProtocolError:
        pass


@settings(deadline=None)
@given(st.data(), st.sampled_from(FRAMES), VALUES)
def test_damaged_frames_are_protocol_errors(data, frame, value):
    """Frames in which some bytes were changed are messages or a ProtocolError."""
    damaged = bytearray(data.draw(st.sampled_from([frame, Encoder().encode(Value(value))])))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        feed(Decoder(), bytes(damaged))
    except ProtocolError:
        pass
