"""Messages as JSON texts: a stream of them is read in any pieces, and what is no such stream is a ProtocolError."""

from __future__ import annotations

import datetime
import enum
import json
import math
import tracemalloc
import uuid
from collections import OrderedDict, namedtuple
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.json import text as json_text
from gtask.wire.json.text import CHUNK, DEPTH, DIGITS, Decoder, Encoder, ReplyDecoder
from gtask.wire.limits import Limits
from gtask.wire.messages import Done, Failure, Request, RequestMeta, Value

encode = Encoder().encode


def feed(decoder, *pieces):
    """What a decoder makes of these pieces, one after the other."""
    messages = []
    for piece in pieces:
        for start in range(0, len(piece), CHUNK):
            part = piece[start : start + CHUNK]
            decoder.space[: len(part)] = part
            messages += decoder.received(len(part))
    return messages


def cut(data, places):
    """The data in pieces, cut at these places."""
    stops = sorted({place % (len(data) + 1) for place in places})
    return [data[start:stop] for start, stop in zip([0, *stops], [*stops, len(data)], strict=True)]


def plain_values(text):
    whole = st.integers(-(10**40), 10**40)
    atoms = st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | text
    return st.recursive(
        atoms, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5), max_leaves=20
    )


VALUES = plain_values(st.text())
LONE = plain_values(st.text(st.characters(exclude_categories=())))
MESSAGES = (
    st.builds(Request, st.lists(VALUES, max_size=3), st.dictionaries(st.text(), VALUES, max_size=2))
    | st.builds(Value, VALUES, st.none() | st.dictionaries(st.text(), VALUES, max_size=2))
    | st.builds(Failure, st.text())
    | st.just(Done())
)
BLANK = st.text(" \t\r\n", max_size=3).map(str.encode)
PLACES = st.lists(st.integers(0, 1000), max_size=8)


# --- what goes in comes out ------------------------------------------------------------------------------


@given(st.lists(st.tuples(BLANK, MESSAGES), max_size=5), PLACES)
def test_any_pieces_of_a_stream_give_the_same_messages(stream, places):
    """Wherever it is cut, in a string, a number, an escape or a character of several bytes."""
    data = b"".join(blank + encode(message) for blank, message in stream) + b"\n"
    messages = [message for _, message in stream]
    decoder = Decoder()
    assert feed(decoder, *cut(data, places)) == messages
    assert not decoder.midway
    assert feed(Decoder(), *[bytes([byte]) for byte in data]) == messages


@given(st.lists(MESSAGES, max_size=5), PLACES)
def test_what_another_encoder_writes(messages, places):
    """All escaped, with blanks between the tokens, keys of meta that are not known, and items behind the last."""
    texts = [[*json.loads(encode(message)), *([] if type(message) is Request else ["more"])] for message in messages]
    for text in texts:
        text[1] = {**text[1], "x-unknown": [1, {"]": "["}]}
    data = "".join(json.dumps(text, indent=1) for text in texts).encode("ascii")
    read = feed(Decoder(), *cut(data, places))
    for message in read:
        if type(message) is Request:  # keeps them for aspects
            assert message.meta.others == {"x-unknown": [1, {"]": "["}]}
            message.meta = None
    assert read == messages


@given(LONE)
def test_lone_surrogates(value):
    """They travel as escapes; two that make a pair together arrive as the character that they make."""
    data = encode(Value(value))
    data.decode("utf-8")
    assert feed(Decoder(), data) == [Value(json.loads(json.dumps(value)))]


def test_a_surrogate_in_the_stream_is_seven_bit():
    """To the byte."""
    assert encode(Value("ä\ud800")) == b'["ok",{},"\xc3\xa4\\ud800"]'
    assert feed(Decoder(), b'["ok",{},"\xed\xa0\x80"]') == [Value("\ud800")]  # as Perl writes it


def test_bytes_of_messages():
    """Meta is always an object, epochs stay at home, an exception is its text alone."""
    assert encode(Done()) == b'["dn",{}]'
    assert encode(Request(["hash", "s3cret"], epoch=7)) == b'["do",{},"hash","s3cret"]'
    assert encode(Request(("hash",), {"rounds": 12})) == b'["do",{"kw":{"rounds":12}},"hash"]'
    assert encode(Failure("KeyError: 'x'", {"type": "KeyError"})) == b'["er",{},"KeyError: \'x\'"]'
    assert encode(Failure("no", None, {"start": 1.5})) == b'["er",{"ld":{"start":1.5}},"no"]'
    assert encode(Value(None, {"start": 1})) == b'["ok",{"ld":{"start":1}},null]'


Point = namedtuple("Point", "x y")


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    pass


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (Level.LOW, 1),
        (Text("x"), "x"),
        (OrderedDict(a=1), {"a": 1}),
        (10 ** (DIGITS - 1), 10 ** (DIGITS - 1)),
        (1e308, 1e308),
        ('\0\x7f\u2028/\\"', '\0\x7f\u2028/\\"'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_arrives(value, arrives):
    """Tuples become arrays, subclasses their base."""
    (message,) = feed(Decoder(), encode(Value(value)))
    assert message == Value(arrives)
    assert type(message.value) is type(arrives)


# --- what cannot travel ----------------------------------------------------------------------------------

ITSELF: list = []
ITSELF.append([ITSELF, ITSELF])


class Hostile(dict):
    def items(self):
        raise LookupError("no")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (
            b"x",
            "the result is of type bytes. What can: None, bool, int, float, str, list, tuple, and dict with str keys",
        ),
        ({"a": [1, {2}]}, r"the result\['a'\]\[1\] is of type set"),
        ([datetime.date(2026, 1, 1)], r"the result\[0\] is of type datetime.date"),
        (Decimal(1), "of type decimal.Decimal"),
        (uuid.uuid4(), "of type uuid.UUID"),
        (1j, "of type complex"),
        ({1: 2}, "the result has the key 1. What can"),
        ({"x": {None: 1}}, r"the result\['x'\] has the key None"),
        (math.nan, "the result is nan, for which JSON has no number"),
        ([-math.inf], r"the result\[0\] is -inf"),
        (10**5000, "an int of more than 4300 digits"),
        (ITSELF, "nested too deeply"),
        (Hostile(a=1), "cannot be looked at: LookupError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_travel_is_named(value, reason):
    """The error says which part it is, and what can; and the encoder goes on."""
    encoder = Encoder()
    with pytest.raises(EncodeError, match=reason):
        encoder.encode(Value(value))
    with pytest.raises(EncodeError, match=reason.replace("the result", "argument 1")):
        encoder.encode_request(("put", value), {}, 1)
    with pytest.raises(EncodeError, match=reason.replace("the result", "argument key")):
        encoder.encode(Request(["put"], {"key": value}))
    with pytest.raises(EncodeError, match=reason.replace("the result", "the context variable a:b")):
        encoder.encode(Request(["put"], {}, 0, RequestMeta(context={"a:b": value})))
    with pytest.raises(EncodeError, match=reason.replace("the result", "the deferred log")):
        encoder.encode(Failure("no", None, {"data": value} if reason.startswith("nested") else value))
    assert encoder.encode(Value(1)) == b'["ok",{},1]'


def test_the_limit_of_the_encoder():
    """A text may have as many bytes as the limit, and not one more."""
    text = encode(Value("x" * 100))
    assert Encoder(len(text)).encode(Value("x" * 100)) == text
    with pytest.raises(EncodeError, match=rf"too large: the message has {len(text)} bytes and the limit is"):
        Encoder(len(text) - 1).encode(Value("x" * 100))


def test_depth_is_what_the_other_side_reads():
    """What is written is never nested deeper than is read, by this decoder or by JSON::XS."""
    value: list = []
    for _ in range(DEPTH - 4):
        value = [value]
    assert feed(Decoder(), encode(Request(["x", value]))) == [Request(["x", value])]
    assert feed(Decoder(), encode(Request(["x"], {"kw": value}))) == [Request(["x"], {"kw": value})]
    with pytest.raises(EncodeError, match="nested too deeply"):
        encode(Request(["x"], {"kw": [value]}))


# --- hostile input ---------------------------------------------------------------------------------------


def refuses(data, reason=""):
    """It is a ProtocolError, at once and byte by byte."""
    with pytest.raises(ProtocolError, match=reason):
        feed(Decoder(), data)
    with pytest.raises(ProtocolError, match=reason):
        feed(Decoder(), *[data[at : at + 1] for at in range(len(data))])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "no array: it begins with b'G"),
        (b'{"do":1}', "no array"),
        (b"]", "no array"),
        (b",[]", "no array"),
        (b"\xef\xbb\xbf[]", "no array"),
        (b"[]", "array of a kind"),
        (b'["do"]', "array of a kind"),
        (b'["no",{}]', "unknown kind"),
        (b'["do",[]]', "a map or nil"),
        (b'["do",{}}', "no JSON array"),
        (b'["do",{},]', "no JSON array"),
        (b"['do',{}]", "no JSON array"),
        (b'["do",{},"\x01"]', "no JSON array"),
        (b'["do",{},"\\x"]', "no JSON array"),
        (b'["do",{},"\xff"]', "UnicodeDecodeError"),
        (b'["do",{},NaN]', "NaN is no JSON"),
        (b'["do",{},-Infinity]', "-Infinity is no JSON"),
        (b'["do",{},1e999]', "beyond those that a float can have"),
        (b'["do",{},' + b"1" * (DIGITS + 1) + b"]", "a number of more than 4300 digits"),
        (b'["do",{},-' + b"1" * (DIGITS + 1) + b"]", "a number of more than 4300 digits"),
        (b"[" * (DEPTH + 1), f"nested more than {DEPTH} deep"),
        (b'["do",{},' + b'{"a":' * DEPTH, f"nested more than {DEPTH} deep"),
        (b'["do",{"kw":[1]}]', "'kw'"),
    ],
)
def test_what_is_no_message_is_refused(data, reason):
    """With a reason, whether it comes at once or byte by byte."""
    refuses(data, reason)


def test_the_largest_number():
    """As many digits as the bound, and a sign."""
    assert feed(Decoder(), b'["ok",{},-' + b"9" * DIGITS + b"]") == [Value(1 - 10**DIGITS)]


@given(
    st.lists(st.binary(max_size=20) | st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b'["do",{},', b"1,"])),
    PLACES,
)
@example([b'["do",{},"\\'], [])
def test_garbage_is_nothing_but_a_protocol_error(parts, places):
    """Whatever comes: messages, a ProtocolError, or more is waited for; the same at once and byte by byte."""
    data = b"[" + b"".join(parts)

    def outcome(pieces):
        found, decoder = [], Decoder()
        try:
            for piece in pieces:
                found += feed(decoder, piece)
        except ProtocolError:
            return None
        return found, decoder.midway

    assert outcome([bytes([byte]) for byte in data]) == outcome([data]) == outcome(cut(data, places))


@pytest.mark.parametrize("rest", [b"1,", b'"', b" ", b"[],"])
def test_a_text_over_the_limit_is_refused_as_soon_as_it_is(rest):
    """Before its end has come; and one of exactly the limit is not."""
    limit = 5000
    decoder = Decoder(Limits(message=limit))
    begin = b'["do",{},' + rest
    feed(decoder, begin, b" " * (limit - len(begin)))
    with pytest.raises(ProtocolError, match="more than 5000 bytes"):
        feed(decoder, b" ")
    text = encode(Value("x" * 100))
    assert feed(Decoder(Limits(message=len(text))), text * 3) == [Value("x" * 100)] * 3
    with pytest.raises(ProtocolError):
        feed(Decoder(Limits(message=len(text) - 1)), text)


def test_blanks_are_not_kept():
    """A peer that sends nothing but blanks fills no memory, and is not midway."""
    decoder = Decoder(Limits(message=1024))
    feed(decoder, b" \n" * 30_000)
    tracemalloc.start()
    try:
        for _ in range(100):
            assert feed(decoder, b" \n" * 30_000) == []
        assert tracemalloc.get_traced_memory()[0] < CHUNK * 2
    finally:
        tracemalloc.stop()
    assert not decoder.midway


def test_each_byte_is_looked_at_once(monkeypatch):
    """A large text in small pieces costs no more than in large ones: the search goes on where it had stopped."""
    looked = []

    class Counting:
        def __init__(self, pattern):
            self.pattern = pattern

        def search(self, data, at):
            match = self.pattern.search(data, at)
            looked.append((match.end() if match else len(data)) - at)
            return match

    for name in ("_MARK", "_MARK_IN_STRING"):
        monkeypatch.setattr(json_text, name, Counting(getattr(json_text, name)))
    text = encode(Value(['ab\\"c', {"k": [1] * 100}] * 200))
    decoder = Decoder()
    assert len(feed(decoder, *[text[at : at + 7] for at in range(0, len(text), 7)])) == 1
    assert sum(looked) <= 1.2 * len(text)


# --- what a client reads ---------------------------------------------------------------------------------


def test_errors_from_perl():
    """One newline at the end goes; an error that is data is told as JSON."""
    decoder = ReplyDecoder()
    assert feed(
        decoder, b'["er",{},"no at x.pl line 3.\\n"]["er",{},"a\\n\\n"]["er",{},{"code":[4]}]["er",{},null]'
    ) == [
        Failure("no at x.pl line 3."),
        Failure("a\n"),
        Failure('{"code": [4]}'),
        Failure("null"),
    ]


def test_a_client_reads_no_last_words():
    """Nothing comes at the end."""
    decoder = ReplyDecoder()
    assert feed(decoder, b'["ok",{},1][') == [Value(1)]
    assert decoder.midway
    assert decoder.ended() is None
    with pytest.raises(ProtocolError):
        feed(ReplyDecoder(), b'["er",{}]')
