"""What only a pickle can carry: at the smallest part that needs it, sealed when it comes, and never without consent."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import fractions
import pickle
import socket
import struct
import sys

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.bodies import decode_body
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.messages import Failure, Greeting, LogRecords, Request, RequestMeta, Value
from gtask.wire.values import kinds as extensions
from gtask.wire.values.agreement import PLAIN, ConditionalFrame
from gtask.wire.values.offers import NOTHING, agree, at_client, at_worker, hoped_for
from gtask.wire.values.pickles import Sealed, unseal
from gtask.wire.values.unpacking import Unpacking
from tests.support.needs import fail_or_skip

try:
    import numpy
except ImportError:
    numpy = None

BOTH = agree({"pickle", "numpy"})


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: object


class Colour(enum.Enum):
    RED = 1


class Failing:
    """What cannot be loaded."""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        return fail, (self.how,)


def fail(how):
    raise how


class Mischief(Exception):
    def __str__(self):
        raise ZeroDivisionError


class Spy:
    """Leaves a mark when it is loaded."""

    loaded = 0

    def __setstate__(self, state):
        type(self).loaded += 1

    def __getstate__(self):
        return {"some": "state"}


def sealed(message, agreement=BOTH):
    """The message as its receiver reads it."""
    frame = Encoder(agreement=agreement).encode(message)
    decoder = Decoder()
    decoder.agree(agreement)
    decoder.space[: len(frame)] = frame
    (read,) = decoder.received(len(frame))
    return read


def travel(value):
    """Where a value gets to as a result."""
    read = sealed(Value(value))
    if read.used:
        holder = [read.value]
        unseal(holder, lambda _: "the result")
        return holder[0]
    return read.value


def refusal(*args, agreement=BOTH, **kwargs):
    """The text of the EncodeError of a call, whose encoder then still works."""
    encoder = Encoder(agreement=agreement)
    with pytest.raises(EncodeError) as caught:
        encoder.encode(Request(["f", *args], kwargs))
    assert encoder.encode(Value([1, "two"])) == Encoder().encode(Value([1, "two"]))
    return str(caught.value)


# --- what is pickled, and what is not --------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        Point(1), Colour.RED, fractions.Fraction(1, 3), range(3), ..., Point, ValueError, {(1, 2): 3},
        {None: 1, "a": 2}, {1.5: [Point(1)]}, {Frozen(1)},
        frozenset({Frozen((1, 2))}), datetime.timezone.utc, slice(1, 2, 3),
    ],
    ids=repr,
)  # fmt: skip
def test_what_msgpack_cannot_carry_arrives(value):
    """By itself, and anywhere in lists, tuples and maps."""
    for wrapped in (value, [1, value], {"a": [value, (value,)]}, {"a": {2: {b"c": value}}}):
        expected = {"a": [value, [value]]} if wrapped == {"a": [value, (value,)]} else wrapped
        assert travel(wrapped) == expected
        assert type(travel([value])[0]) is type(value)


def test_what_msgpack_can_carry_is_not_pickled():
    """Beside what is pickled, tuples become lists, subclasses their base, and zones their offset, as ever."""
    value = [Point(1), (1, (2,)), {"a": (3,)}, {(4, 5)}, 2**70, "\ud800", bytearray(b"x"), memoryview(b"y"), True, None]
    assert travel(value) == [
        Point(1), [1, [2]], {"a": [3]}, {(4, 5)}, 2**70, "\ud800", b"x", b"y", True, None,
    ]  # fmt: skip
    for plain in (1, "a", [1, (2,)], {"a": {1, 2}}, datetime.date(2026, 1, 2)):
        assert Encoder(agreement=BOTH).encode(Value(plain)) == Encoder().encode(Value(plain))


def test_the_smallest_part_is_pickled():
    """A dict with other keys is pickled as that dict, an object in a list by itself; nothing around them."""
    read = sealed(Value([1, {"a": Point(2)}, {(1,): Point(3)}, {Frozen(1), 2}]))
    one, two, three, four = read.value
    assert (one, type(two), type(two["a"]), type(three), type(four)) == (1, dict, Sealed, Sealed, Sealed)
    assert pickle.loads(three.data) == {(1,): Point(3)}
    assert pickle.loads(four.data) == {Frozen(1), 2}
    assert two["a"].data == pickle.dumps(Point(2), 5)


def test_references_are_shared_within_one_part_only():
    """Two parts are two copies."""
    shared = Point(1)
    together, apart = travel([Point(shared, shared), shared])
    assert together.x is together.y
    assert apart is not together.x


def test_what_contains_itself_is_pickled():
    """The innermost list or dict that contains itself, and it does so where it arrives."""
    circle, knot = [1], {}
    circle.append({"again": circle})
    knot["self"] = [knot]
    value = travel([0, circle, knot, (5, 6)])
    assert value[1][1]["again"] is value[1]
    assert value[2]["self"][0] is value[2]
    assert value[3] == [5, 6]


def test_an_ext_type_of_msgpack_is_a_value_like_others():
    """What an application holds is not taken for the wire's own."""
    for code in (99, extensions.UUID, extensions.PICKLE):
        assert travel([msgpack.ExtType(code, b"?")]) == [msgpack.ExtType(code, b"?")]


def test_every_part_of_a_call():
    """Arguments, keyword arguments and context variables; what the application gave is left as it was."""
    kwargs, context = {"k": Point(2), "l": [(Point(3),)]}, {"app:who": Point(4)}
    read = sealed(Request(["f", Point(1)], kwargs, 5, RequestMeta(context=context)))
    assert (kwargs, context) == ({"k": Point(2), "l": [(Point(3),)]}, {"app:who": Point(4)})
    assert read.used == {"pickle"}
    unseal(read.args, str)
    unseal(read.kwargs, str)
    unseal(read.meta.context, str)
    assert read == Request(
        ["f", Point(1)], {"k": Point(2), "l": [[Point(3)]]}, 5, RequestMeta(context=context), frozenset({"pickle"})
    )
    assert not sealed(Request(["f", 1], {"k": 2}, 5)).used
    assert not sealed(Value([1])).used


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.builds(Point, st.integers()) | st.just(Colour.RED),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2) | st.tuples(st.integers()) | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_any_mixture_arrives(one, other):
    """However what is pickled lies in what is not, and the other way round."""
    assert travel([one, {"a": other}]) == [one, {"a": other}]


# --- what cannot travel ----------------------------------------------------------------------------------


def test_what_cannot_be_pickled_either():
    """The error says where it is, what it is, and what pickle says of it."""
    text = refusal(1, [2, {"a": lambda: 0}])
    assert "argument 2[1]['a'] is of type function, which cannot be pickled either: " in text
    with socket.socket() as sock:
        assert "argument s is of type socket.socket, which cannot be pickled either: TypeError: " in refusal(s=sock)
    assert "argument 1 is of type dict, which cannot be pickled" in refusal({(1,): lambda: 0})
    assert "argument 1 is of type set, which cannot be pickled" in refusal(
        {len, test_any_mixture_arrives, refusal, fail, lambda: 0}
    )
    with pytest.raises(EncodeError, match=r"the result\[0\] is of type generator, which"):
        Encoder(agreement=BOTH).encode(Value([(part for part in ())]))


def test_methods_that_raise_while_it_is_pickled():
    """Whatever they raise, and however little it can be shown, the caller sees an EncodeError."""

    class Bad:
        def __reduce__(self):
            raise Mischief

    assert "cannot be pickled either: Mischief" in refusal(Bad())
    assert "argument 1[?]" in refusal({10**6000: Bad()})

    class Interrupting:
        def __reduce__(self):
            raise KeyboardInterrupt

    encoder = Encoder(agreement=BOTH)
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(Value(Interrupting()))
    assert encoder.encode(Value(1)) == Encoder().encode(Value(1))


def test_what_is_nested_too_deeply():
    """It is refused as ever, or arrives; whatever lies at its end."""
    for depth in (100, 3000, 100_000):
        value = Point(1)
        for _ in range(depth):
            value = [value]
        if depth == 100:
            assert travel(value) == value
        else:
            assert refusal(value)
        while type(value) is list:  # or its end would need the C stack
            (value,) = value


def test_a_pickle_counts_against_the_limit():
    """As all bytes do."""
    with pytest.raises(EncodeError, match="too large: the message has"):
        Encoder(1024, BOTH).encode(Value(Point("x" * 1024)))


def test_arrays_of_objects_are_refused_all_the_same():
    """Consent to pickles does not change that; within what is pickled they are that object's own affair."""
    if numpy is None:
        fail_or_skip("numpy: pip install numpy")
    text = refusal([Point(1), numpy.array([None])])
    assert "argument 1[1] is of type numpy.ndarray: its items are Python objects" in text
    assert travel(Point(numpy.array([None]))).x[0] is None
    masked = numpy.ma.masked_array([1, 2], [True, False])
    assert travel([masked])[0].mask.tolist() == [True, False]
    assert "its items are Python objects" in refusal(numpy.ma.masked_array([None]))
    text = refusal([Point(1), numpy.zeros(2)], agreement=agree({"pickle"}, {"numpy": "the client has no numpy"}))
    assert "argument 1[1] is of type numpy.ndarray: the client has no numpy" in text


def test_arrays_travel_beside_pickles():
    """Each in its own way."""
    if numpy is None:
        fail_or_skip("numpy: pip install numpy")
    point, array = travel([Point(1), numpy.arange(3)])
    assert (point, array.tolist()) == (Point(1), [0, 1, 2])


# --- consent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mine", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_it_takes_both(mine, theirs):
    """Each side comes to the same agreement; where there is none the text says who has not consented."""
    here, there = ({"numpy", "pickle"} if wants else {"numpy"} for wants in (mine, theirs))
    at_one = at_client(here, Greeting(offers=frozenset(there)))
    at_other = at_worker(there, Greeting(offers=frozenset(here)))
    assert at_one.agreed == at_other.agreed == here & there
    if mine and not theirs:
        assert "the server does not: start gtask-server with --pickle" in at_one.reasons["pickle"]
        assert "this server does not: start gtask-server with --pickle" in refusal(Point(1), agreement=at_other)
    if theirs and not mine:
        assert "the client does not: write Client(..., pickle=True)" in refusal(Point(1), agreement=at_other)
    if not mine:
        assert "this client does not: write Client(..., pickle=True)" in refusal(
            Point(1), agreement=hoped_for(here & {"pickle"})
        )
        assert "this client does not" in refusal({(1,): 2}, agreement=hoped_for(here & {"pickle"}))
    if not mine and not theirs:
        assert "may be pickled" not in refusal(Point(1), agreement=at_other)


@pytest.mark.parametrize("mine", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_numpy_takes_both(mine, theirs):
    """It must be there on both sides."""
    here, there = (frozenset({"numpy"} if has else ()) for has in (mine, theirs))
    at_one = at_client(here, Greeting(offers=there))
    at_other = at_worker(there, Greeting(offers=here))
    assert at_one.agreed == at_other.agreed == here & there
    assert (at_one.reasons["numpy"], at_worker({"numpy"}, Greeting()).reasons["numpy"]) == (
        "the server has no numpy: install it there",
        "the client has no numpy: install it there",
    )


def test_a_call_says_that_it_needs_consent():
    """A client writes calls before it knows who reads them. Others do not say so, not even the next one."""
    encoder = Encoder(agreement=hoped_for({"pickle"}))
    frame = encoder.encode_request(["f", 1, [Point(1)]], {}, 0)
    assert isinstance(frame, ConditionalFrame)
    assert frame.refusal(BOTH) == ""
    assert frame.refusal(at_client({"pickle", "numpy"}, Greeting())).startswith(
        f"cannot travel: argument 2[0] is of type {__name__}.Point. It may be pickled if both sides consent"
    )
    assert type(encoder.encode_request(["f", 1], {}, 0)) is bytes
    with pytest.raises(EncodeError):
        encoder.encode_request(["f", Point(1), lambda: 0], {}, 0)
    assert type(encoder.encode_request(["f", 1], {}, 0)) is bytes


def test_another_message_may_be_written_while_one_is_pickled():
    """What is pickled runs code of the application, and that may call: each frame says what it needs itself."""
    encoder = Encoder(agreement=hoped_for({"pickle"}))
    frames = []

    class Calls:
        def __reduce__(self):
            frames.append(encoder.encode_request(["f", 1], {}, 0))
            frames.append(encoder.encode_request(["f", Point(2)], {}, 0))
            return Point, (1,)

    frames.append(encoder.encode_request(["f", Point(3), Calls()], {}, 0))
    plain, inner, outer = frames
    assert type(plain) is bytes
    assert "argument 1 is of type" in inner.used["pickle"]
    assert "argument 1 is of type" in outer.used["pickle"]
    assert type(encoder.encode_request(["f", 1], {}, 0)) is bytes


def framed(plain):
    body = msgpack.packb(plain)
    return struct.pack("!I", len(body)) + body


def read(frame, agreement):
    decoder = Decoder()
    decoder.agree(agreement)
    decoder.space[: len(frame)] = frame
    return decoder.received(len(frame))


@pytest.mark.parametrize(
    "agreement",
    [NOTHING, at_client({"pickle", "numpy"}, Greeting()), at_worker({"numpy"}, Greeting(offers=frozenset({"pickle"})))],
    ids=["none", "one", "other"],
)
def test_without_consent_it_is_a_protocol_error(agreement):
    """Before anything is unpickled, wherever it stands, also in a decoder that was told nothing."""
    bomb = msgpack.ExtType(extensions.PICKLE, pickle.dumps(Spy()))
    for plain in (["ok", None, bomb], ["do", None, "f", [bomb]], ["do", {"kw": {"a": bomb}}, "f"], ["hi", {"v": bomb}]):
        with pytest.raises(ProtocolError, match="upon which both sides have not agreed"):
            read(framed(plain), agreement)
    with pytest.raises(ProtocolError):
        decode_body(memoryview(framed(["ok", None, bomb]))[4:], Unpacking(PLAIN))
    assert Spy.loaded == 0


def test_nothing_is_loaded_before_it_is_asked_for():
    """Reading a frame with consent runs nothing either."""
    (message,) = read(framed(["ok", None, [msgpack.ExtType(extensions.PICKLE, pickle.dumps(Spy()))]]), BOTH)
    assert (message.used, Spy.loaded) == ({"pickle"}, 0)
    unseal(message.value, str)
    assert Spy.loaded == 1
    Spy.loaded = 0


def test_a_pickle_where_none_may_be():
    """In a record, an exception, a greeting, as a key or in a set: a ProtocolError, and nothing is loaded."""
    bomb = msgpack.ExtType(extensions.PICKLE, pickle.dumps(Spy()))
    members = msgpack.ExtType(extensions.SET, msgpack.packb([bomb]))
    for plain in (
        ["lg", None, {"extra": bomb}], ["er", {"exc": {"args": [bomb]}}, "x"], ["hi", {"v": 1, "name": bomb}],
        ["be", {"left": bomb}], ["ok", None, members], ["do", {"q": bomb}, "f"], ["do", {"headers": {"a": bomb}}, "f"],
        [bomb, None, 1], ["ok", bomb, 1], bomb,
    ):  # fmt: skip
        with pytest.raises(ProtocolError):
            read(framed(plain), BOTH)
    body = b"\x93\xa2ok\xc0\x81" + msgpack.packb(bomb) + b"\xc0"
    with pytest.raises(ProtocolError):
        read(struct.pack("!I", len(body)) + body, BOTH)
    assert Spy.loaded == 0


@pytest.mark.parametrize(
    "message", [LogRecords([{"extra": {"a": Point(1)}}]), Failure("x", {"args": [Point(1)]})], ids=["lg", "er"]
)
def test_what_is_told_beside_values_is_not_pickled(message):
    """It is plain data by the time it gets here."""
    with pytest.raises(EncodeError):
        Encoder(agreement=BOTH).encode(message)


# --- loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (ValueError("on purpose"), "ValueError: on purpose"),
        (ModuleNotFoundError("No module named 'gone'"), "ModuleNotFoundError: No module named 'gone'"),
        (Mischief(), "Mischief"),
        (RecursionError("deep"), "RecursionError: deep"),
    ],
    ids=repr,
)
def test_what_cannot_be_loaded(how, text):
    """The error says which part it was and why, and has the cause; what was loaded before stays."""
    read = sealed(Request(["f", Point(1), [{"a": Failing(how)}]]))
    with pytest.raises(EncodeError) as caught:
        unseal(read.args, lambda index: f"argument {index}")
    assert str(caught.value) == (
        f"argument 2 could not be unpickled: {text}; what it is made of must be importable on both sides"
    )
    assert type(caught.value.__cause__) is type(how)
    assert read.args[1] == Point(1)


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"garbage", b"\x80\x05K\x01", b"\x80\xff.", b"cgone\ngone\n."], ids=repr
)
def test_garbage_instead_of_a_pickle(data):
    """It is an error of that part alone."""
    (message,) = read(framed(["ok", None, msgpack.ExtType(extensions.PICKLE, data)]), BOTH)
    with pytest.raises(EncodeError, match="the result could not be unpickled"):
        unseal([message.value], lambda _: "the result")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_passes(kind):
    """What is no Exception is not made into one."""
    read = sealed(Value(Failing(kind())))
    with pytest.raises(kind):
        unseal([read.value], str)


def test_deep_messages_are_searched_without_recursion():
    """As deep as a frame may nest."""
    value = msgpack.ExtType(extensions.PICKLE, pickle.dumps(Point(1)))
    body = b"\x93\xa2ok\xc0" + b"\x91" * 1000 + msgpack.packb(value)
    (message,) = read(struct.pack("!I", len(body)) + body, BOTH)
    limit = sys.getrecursionlimit()
    unseal(message.value, str)
    inner = message.value
    while type(inner) is list:
        (inner,) = inner
    assert (inner, sys.getrecursionlimit()) == (Point(1), limit)
