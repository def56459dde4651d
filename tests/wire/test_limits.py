"""The point of this test is to ensure that the memory of a message is bounded, and not only its bytes.

Each limit that strikes says which one it is and its value.
"""

from __future__ import annotations

import struct
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtask.errors import ProtocolError
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.json import text as json
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.limits import DEFAULTS, LimitExceededError, Limits
from gtask.wire.messages import Request, Value
from gtask.wire.reading import CHUNK, check_first

FEW = Limits(items=5000)
MANY = 5001


def feed(decoder, data):
    found = []
    for at in range(0, len(data), CHUNK):
        piece = data[at : at + CHUNK]
        decoder.space[: len(piece)] = piece
        found += decoder.received(len(piece))
    return found


def framed(body):
    return struct.pack("!I", len(body)) + body


def array(*items):
    """The bytes of an array of these, which are bytes already."""
    return b"\xdd" + struct.pack("!I", len(items)) + b"".join(items)


SETS = [msgpack.packb(msgpack.ExtType(8, array(*(b"\x91\xcd" + struct.pack("!H", n) for n in range(2600)))))] * 2

BOMBS = {
    "empty maps": [b"\x80"] * MANY,
    "empty lists": [b"\x90"] * MANY,
    "nested": [b"\x91" * 500 + b"\xc0"] * 11,
    "maps of one": [b"\x81\x01\xc0"] * MANY,
    "extension types": [msgpack.packb(msgpack.ExtType(6, b"1"))] * MANY,
    "sets of tuples": SETS,
    "maps with text that is no UTF-8": [b"\x81\xa3\xed\xa0\x80\x90"] * 2501,
}  # fmt: skip
AROUND = {
    "a value": lambda bomb: b"\x93\xa2ok\xc0" + bomb,
    "an argument": lambda bomb: b"\x94\xa2do\xc0\xa1f" + bomb,
    "an argument by name": lambda bomb: b"\x93\xa2do\x82\xa2kw\x81\xa1a" + bomb + b"\xa1q\xce\x00\x01\x00\x00\xa1f",
    "what nobody knows in a greeting": lambda bomb: b"\x92\xa2hi\x82\xa1v\x01\xa1x" + bomb,
    "an exception": lambda bomb: b"\x93\xa2er\x81\xa3exc\x81\xa1x" + bomb + b"\xa1t",
    "what is stuffed": lambda bomb: msgpack.packb(["st", b"\x93\xa2ok\xc0" + bomb + b"\0"]),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND.keys())
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.parametrize("make", [Decoder, ReplyDecoder])
def test_many_items_are_refused(make, bomb, around):
    """Wherever they lie in a message; the error names limit and option."""
    with pytest.raises(LimitExceededError, match=r"more than 5,000 lists.*limit_items"):
        feed(make(FEW), framed(around(array(*bomb))))


@pytest.mark.parametrize("make", [json.Decoder, json.ReplyDecoder])
@pytest.mark.parametrize("item", [b"{}", b"[]", b'{"a":{}}'])
def test_json_with_many_items(make, item):
    """The same; brackets in a string are none."""
    with pytest.raises(LimitExceededError, match=r"more than 5,000 lists.*limit_items"):
        feed(make(FEW), b'["ok",{},[' + b",".join([item] * MANY) + b"]]")
    assert feed(make(FEW), b'["ok",{},"' + item.replace(b'"', b"") * MANY + b'"]')[0].value == item.replace(
        b'"', b""
    ).decode() * MANY  # fmt: skip


@pytest.mark.parametrize("make", [Decoder, ReplyDecoder])
def test_as_many_as_there_may_be(make):
    """To the item; and bytes are no items, however many."""
    value = [[]] * (FEW.items - 3)  # the message, its value
    assert feed(make(FEW), Encoder().encode(Value(value))) == [Value(value)]
    value = [[]] * (FEW.items - 1)
    with pytest.raises(LimitExceededError):
        feed(make(FEW), Encoder().encode(Value(value)))
    for value in (b"\x90" * 100_000, "x" * 100_000, list(range(100_000)), {n: n for n in range(20_000)}):
        assert feed(make(FEW), Encoder().encode(Value(value))) == [Value(value)]


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.integers(-9, 9) | st.binary(max_size=8) | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
        max_leaves=40,
    )
)
def test_what_is_counted_is_read_as_it_is(value):
    """A message that is long enough to be counted is the same message."""
    frame = Encoder().encode(Request(["f", value], {}, 65_536))
    assert feed(Decoder(Limits(items=max(1, len(frame) - 5))), frame) == feed(Decoder(), frame)


def test_a_message_takes_a_bounded_multiple_of_its_bytes():
    """Two million empty maps would be 140 MB; by default no message of that kind is read to its end."""
    bomb = framed(b"\x93\xa2ok\xc0" + array(*[b"\x80"] * (DEFAULTS.items * 3)))
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceededError):
            feed(ReplyDecoder(), bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 120 * DEFAULTS.items


def test_the_first_message_is_short():
    """Its length decides, before anything is read; a part of a length decides nothing."""
    check_first(struct.pack("!I", DEFAULTS.first_message), DEFAULTS)
    check_first(b"\xff\xff\xff", DEFAULTS)
    with pytest.raises(ProtocolError, match=r"first message of 16385 bytes and the limit is 16384 \(first_message\)"):
        check_first(struct.pack("!I", DEFAULTS.first_message + 1), DEFAULTS)


def test_limits_are_frozen():
    """One value for all who read it."""
    with pytest.raises(AttributeError):
        DEFAULTS.items = 5
    assert hash(Limits()) == hash(DEFAULTS)
