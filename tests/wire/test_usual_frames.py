"""What is written and recognised whole is the message that it stands for: the usual request, the usual value, and what
comes with the request when a worker is handed over.

Their bytes are those of the message's plain form, and what is read of any bytes is what the general decoder reads.
"""

from __future__ import annotations

import datetime
import struct
from decimal import Decimal

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.bodies import DONE_BODY, FIRST_EPOCH, REQUEST_HEADS, VALUE_HEAD, decode_body
from gtask.wire.forms import plain_request, to_plain
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.left import LEFT_HEAD
from gtask.wire.mark import needs_stuffing
from gtask.wire.messages import SERVED, Done, Greeting, Preamble, Request, RequestMeta, Value
from gtask.wire.named import NAMED_HEADS, TIMED_HEADS, TIMEOUT_KEY
from gtask.wire.pieces import joined
from gtask.wire.reading import CHUNK
from gtask.wire.values import offers
from gtask.wire.values.agreement import PLAIN, prepared
from gtask.wire.values.unpacking import Unpacking
from gtask.wire.writing import KEEP

EPOCHS = st.sampled_from([0, 1, 127, 128, 65535, 65536, 2**32 - 1, 2**32]) | st.integers(0, 2**33)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=3),
    max_leaves=8,
)
NAMED = st.dictionaries(st.text(max_size=5), VALUES, max_size=18)
ARGS = st.lists(VALUES, max_size=17).map(tuple)
TIMEOUTS = st.none() | st.integers(0, 2**53) | st.floats(0)
METAS = st.none() | st.builds(RequestMeta, TIMEOUTS, st.just(True))
HEADS = [
    (REQUEST_HEADS[0], b""),
    (NAMED_HEADS[0], b""),
    (TIMED_HEADS[0], b"\0\1\0\0" + TIMEOUT_KEY),
    (LEFT_HEAD, b"ft\xcb"),
    (DONE_BODY, b""),
]
"""How begins what is recognised whole."""
BETWEEN = st.just(Done()) | st.builds(Preamble, st.none(), st.none() | st.floats(0) | st.integers(0, 9).map(float))
"""What may come between requests."""


def framed(plain):
    body = msgpack.packb(plain, unicode_errors="surrogatepass")
    return struct.pack("!I", len(body)) + body


def read(decoder, data):
    """The messages in these bytes, or "refused"."""
    messages = []
    try:
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            decoder.space[: len(piece)] = piece
            messages += decoder.received(len(piece))
    except ProtocolError:
        return "refused"
    return messages


def read_generally(body):
    try:
        return [decode_body(memoryview(body), Unpacking(PLAIN))]
    except ProtocolError:
        return "refused"


@settings(deadline=None)
@example(("f", "\ud800"), {"a": "\udfff"}, 65536, None)
@example(("f", "\ud800"), {}, 65536, RequestMeta(1, True))
@example(("f",) * 12, {}, 65536, None)
@example(("f",) * 13, {}, 65536, None)
@example(("f",) * 12, {"a": 1}, 65536, None)
@example(("f",) * 13, {"a": 1}, 65536, None)
@example(("f",) * 12, {}, 65536, RequestMeta(1.5, True))
@example(("f",) * 13, {}, 65536, RequestMeta(1.5, True))
@example((), {}, 65536, None)
@given(ARGS, NAMED, EPOCHS, METAS)
def test_a_request_has_the_bytes_of_its_plain_form(args, kwargs, epoch, meta):
    """Whatever its arguments, its epoch and its time-out; and it is read as it was."""
    frame = Encoder().encode_request(args, kwargs, epoch, meta)
    assert frame == framed(plain_request(args, kwargs, epoch, meta))
    assert Encoder().encode(Request(list(args), kwargs, epoch, meta)) == frame
    assert read(Decoder(), frame) == [Request(list(args), kwargs, epoch, meta)] == read_generally(frame[4:])


@settings(deadline=None)
@example(193)
@example("\ud800")
@given(VALUES)
def test_a_value_has_the_bytes_of_its_plain_form(value):
    """Whatever it is; and it is read as it was."""
    frame = Encoder().encode_value(value)
    assert frame == Encoder().encode(Value(value))
    plain = framed(["ok", None, value])
    assert frame == plain or needs_stuffing(plain)  # then it has another form: tests/wire/test_cut_streams.py
    assert read(ReplyDecoder(), frame + framed(["dn", None]))[0] == Value(value) == read_generally(frame[4:])[0]


@settings(deadline=None)
@given(BETWEEN)
def test_what_comes_between_has_the_bytes_of_its_plain_form(message):
    """The end of a checkout, and the time that the next call has left."""
    frame = Encoder().encode(message)
    assert frame == framed(to_plain(message))
    assert read(Decoder(), frame) == [message] == read_generally(frame[4:])


REQUESTS = st.builds(lambda args, *rest: Request(list(args), *rest), ARGS, NAMED, EPOCHS, METAS)


@settings(deadline=None)
@example([Done(), Preamble(None, 1.5), Request(["f"], {}, 65536)], 300)
@given(st.lists(REQUESTS | BETWEEN, max_size=8), st.integers(1, 300))
def test_messages_in_pieces_are_read_as_they_were(messages, size):
    """Several in one read, and one in several."""
    data = b"".join(map(Encoder().encode, messages))
    decoder, found = Decoder(), []
    for start in range(0, len(data), size):
        found += read(decoder, data[start : start + size])
    assert found == messages
    assert not decoder.midway


@settings(deadline=None)
@example(b"")
@example(b"\xff\xff\xff")
@example(b"\x00\x01\x00\x00\xa1f\xc0")
@example(b"\x81\xa1a\x01\xa1q\xce\x00\x01\x00\x00\xa1f")
@example(b"\x81\x02\x01\xa1q\xce\x00\x01\x00\x00\xa1f")
@example(b"\x80\xa1q\xc3\xa1f")
@example(b"\x80\xa1t\x01\xa1f")
@example(b"\x80\xa1q\x01\xa1f")
@example(b"\xcb\xff\xf8\x00\x00\x00\x00\x00\x00\xa1f")
@example(struct.pack("!d", -1.5))
@example(struct.pack("!d", float("nan")))
@example(struct.pack("!d", 1.5))
@example(b"\xff\xa1f")
@example(b"\xc2\xa1f")
@example(b"\xc0")
@example(b"\xc1")
@example(b"\xc1" * 16 + b"\0")
@given(
    st.binary(max_size=20)
    | st.builds(lambda epoch, args: epoch + msgpack.packb(args)[1:], st.binary(min_size=4, max_size=4), ARGS)
)
def test_what_looks_like_a_usual_frame_is_read_as_the_general_decoder_reads_it(rest):
    """Cut, too long, with another number of items than it says: also then."""
    for decoder, heads in (
        (Decoder, [bytes([n]) + head[1:] + more for head, more in HEADS for n in range(0x90, 0xA1)]),
        (ReplyDecoder, [VALUE_HEAD]),
    ):
        for head in heads:
            for body in {head + rest, head[: len(rest)]}:
                frame = struct.pack("!I", len(body)) + body
                # A server sends no such frame: its client waits for the end of the stream.
                kept_back = decoder is ReplyDecoder and needs_stuffing(frame)
                assert repr(read(decoder(), frame)) == repr([] if kept_back else read_generally(body))


def test_what_does_not_fit_the_head_travels_all_the_same():
    """More meta than the epoch, kinds beyond msgpack's own, text without UTF-8, and frames that are large."""
    meta = RequestMeta(1.5, True)
    for args, kwargs, more in (
        (("f",), {}, meta),
        (("f", 10**30, {1, 2}), {"day": datetime.date(2026, 1, 2)}, None),
        (("f", "x" * KEEP), {}, None),
        (("f",), {"a": b"x" * (2 * KEEP)}, None),
        (("f", b"x" * (2 * KEEP)), {}, meta),
        (("f",), {"a": 1}, meta),
        (("f", "\ud800"), {}, None),
    ):
        frame, _ = prepared(Encoder().encode_request(args, kwargs, 70000, more), PLAIN)
        assert read(Decoder(), joined(frame)) == [Request(list(args), kwargs, 70000, more)]
    for value in (10**30, "x" * KEEP, [b"x" * (2 * KEEP)]):
        frame = joined(Encoder().encode_value(value))
        assert read(ReplyDecoder(), frame) == [Value(value)]


def test_a_request_that_is_served_becomes_the_next():
    """One that is not, or that came under an offer, stays what it was."""
    decoder = Decoder()
    first, second, third = (Request([name, 1], {}, FIRST_EPOCH + number) for number, name in enumerate("abc"))
    (served,) = read(decoder, Encoder().encode(first))
    assert served == first
    served.args = SERVED
    (kept,) = read(decoder, Encoder().encode(second))
    assert (kept is served, kept) == (True, second)
    (other,) = read(decoder, Encoder().encode(third))
    assert (other, kept) == (third, second)

    agreement = offers.at_worker(frozenset({"pickle"}), Greeting(offers=frozenset({"pickle"})))
    decoder.agree(agreement)
    encoder = Encoder(agreement=agreement)
    other.args = SERVED
    (pickled,) = read(decoder, encoder.encode(Request(["d", Decimal], {}, FIRST_EPOCH)))
    assert pickled.used == {"pickle"}
    pickled.args = SERVED
    (plain,) = read(decoder, encoder.encode(first))
    assert plain == first


def test_the_limit_is_kept():
    """A frame of just so many bytes travels, and one more is refused with its size."""
    for encode in (
        lambda encoder, size: encoder.encode_value(b"x" * (size - 7)),
        lambda encoder, size: encoder.encode_request((b"x" * (size - 14),), {}, 70000),
        lambda encoder, size: encoder.encode_request((), {"k": b"x" * (size - 20)}, 70000),
        lambda encoder, size: encoder.encode_request((b"x" * (size - 17),), {}, 70000, RequestMeta(1, True)),
    ):
        assert len(encode(Encoder(200), 200)) == 204
        with pytest.raises(EncodeError, match="the message has 201 bytes and the limit is 200"):
            encode(Encoder(200), 201)
