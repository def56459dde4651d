"""The point of this test is to ensure that a frame of any size, cut anyhow, is read as what was written.

Large values are sent from where they lie: the pieces of such a frame are the bytes of the frame. Memory grows as bytes
come, and not as they are announced.
"""

import _socket
import errno
import mmap
import struct
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.lastwords import ReplyDecoder, last_words
from gtask.wire.limits import Limits
from gtask.wire.messages import LastWords, Request, Value
from gtask.wire.pieces import LargeFrame, joined, write
from gtask.wire.reading import CHUNK, LARGE
from gtask.wire.shared.channel import Channel
from gtask.wire.values.agreement import PLAIN, prepared
from gtask.wire.values.kinds import LARGE as LARGE_VALUE
from gtask.wire.values.offers import agree

MIB = 1 << 20


def feed(decoder, data, sizes):
    """The messages that a decoder makes of the data. Its reads give these numbers of bytes in turn; when no number is
    left they fill the decoder's space."""
    sizes, messages, start = list(reversed(sizes)), [], 0
    while start < len(data):
        count = min(len(decoder.space), len(data) - start, sizes.pop() if sizes else MIB)
        decoder.space[:count] = data[start : start + count]
        messages += list(decoder.received(count))
        start += count
    return messages


around = st.sampled_from([1, 2, 3, 5, 16, CHUNK - 1, CHUNK, LARGE - 1, LARGE])
lengths = st.one_of(around, st.integers(1, 3 * LARGE))


@pytest.mark.parametrize("make", [Decoder, ReplyDecoder])
@given(st.lists(st.integers(0, 4 * LARGE), min_size=1, max_size=4), st.lists(lengths, max_size=12))
@example([LARGE - 9], [])
@example([LARGE - 14, LARGE], [LARGE - 1, 1, LARGE - 1])
def test_frames_of_any_size_however_they_are_cut(make, sizes, reads):
    """Each comes once, whole, in order."""
    values = [Value(bytes([n + 1]) * size) for n, size in enumerate(sizes)]
    data = b"".join(joined(Encoder().encode_value(value.value)) for value in values)
    assert feed(make(), data, reads) == values


@given(st.integers(0, 3 * LARGE), st.lists(lengths, max_size=6))
def test_last_words_behind_part_of_a_large_frame(come, reads):
    """They are found wherever the worker has died, and the part is no message."""
    frame = Encoder().encode(Value(b"x" * (4 * LARGE)))[: come + 1]
    decoder, words = ReplyDecoder(), LastWords(7, why="memory")
    assert feed(decoder, frame + last_words(words), reads) == []
    assert decoder.ended() == words


def resident():
    """Bytes of memory that this process uses."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


def test_memory_grows_as_bytes_come():
    """Of a frame that is announced to be large no more is in use than has come."""
    decoder, before = Decoder(Limits(message=1 << 30)), resident()
    head = struct.pack("!I", 1 << 30)
    decoder.space[: len(head)] = head
    decoder.received(len(head))
    come = len(head)
    while come < 40 * MIB:
        count = min(len(decoder.space), MIB)
        decoder.space[:count] = bytes(count)
        come += count
        assert decoder.received(count) == []
        assert decoder.midway
        assert resident() - before < 2 * come + 4 * MIB


@pytest.mark.parametrize("make", [Decoder, ReplyDecoder])
def test_a_frame_over_the_limit(make):
    """It is refused when its length has come, also behind others."""
    decoder, ok = make(Limits(message=MIB)), Encoder().encode(Value(1))
    with pytest.raises(ProtocolError, match="the limit is 1048576"):
        feed(decoder, ok + struct.pack("!I", MIB + 1) + bytes(100), [])


@pytest.mark.parametrize(
    "value", [b"x" * LARGE_VALUE, bytearray(LARGE_VALUE), memoryview(bytes(LARGE_VALUE))], ids=type
)
@pytest.mark.parametrize("where", ["an argument", "by name", "in a list", "in a map", "beside text without UTF-8"])
def test_the_pieces_are_the_frame(value, where):
    """As it would be if the value were packed; the value itself is one of them."""
    args, kwargs = {
        "an argument": (("f", value), {}),
        "by name": (("f",), {"x": value}),
        "in a list": (("f", [1, (value, 2)]), {}),
        "in a map": (("f", {"a": {5: value}}), {}),
        "beside text without UTF-8": (("f", "\ud800", value), {}),
    }[where]
    frame, refusal = prepared(Encoder().encode_request(args, kwargs, 1 << 20), PLAIN)
    assert (type(frame), refusal) == (LargeFrame, "")
    immutable = [each for each in (value, getattr(value, "obj", None)) if type(each) is bytes]
    assert [piece.obj for piece in frame.pieces if any(piece.obj is each for each in immutable)] == immutable
    (request,) = feed(Decoder(), joined(frame), [])
    (other,) = feed(Decoder(), Encoder().encode(Request([*args], kwargs, 1 << 20)), [])
    assert request == other
    assert len(frame) == len(joined(frame))
    assert joined(b"before" + frame + b"behind") == b"before" + joined(frame) + b"behind"


def test_values_that_only_look_large():
    """What has a size and is nothing that travels is refused, and what its size is wrong about travels."""

    class Sized:
        nbytes = 2 * LARGE_VALUE

    with pytest.raises(EncodeError, match="is of type"):
        Encoder().encode_request(("f", Sized(), b"x" * LARGE_VALUE), {}, 1 << 20)

    class Text(str):
        nbytes = 2 * LARGE_VALUE

    assert feed(Decoder(), Encoder().encode(Request(["f", Text("x")])), [])[0].args == ["f", "x"]


@pytest.fixture
def agreement():
    """With a peer that takes part in shared memory."""
    ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    channels = [Channel(end, 10 * MIB) for end in ends]
    yield agree({"shared"}, None, channels[0]), agree({"shared"}, None, channels[1])
    for channel in channels:
        channel.close()


def read(frame, agreement):
    """What the peer reads of a frame."""
    decoder = Decoder()
    decoder.agree(agreement)
    (request,) = feed(decoder, joined(frame), [])
    return request.args


@pytest.mark.parametrize(
    "ways", [["whole"] * 2, ["shared"] * 2, ["whole", "shared"], ["shared", "whole"]], ids="-".join
)
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "in line"])
def test_what_was_sent_is_sent_again(agreement, ways, waits):
    """To another worker, if the first is found to be dead: as it was, whatever the application has done since."""
    value = bytearray(b"x" * LARGE_VALUE)
    frame = Encoder().encode_request(("f", value), {}, 1 << 20)
    if waits:
        frame.wait()
        value[:] = b"y"
    for way in ways:
        mine, peers = agreement if way == "shared" else (PLAIN, PLAIN)
        frame, _ = prepared(frame, mine)
        value[:] = b"y"  # nothing here keeps it from being resized
        assert read(frame, peers) == ["f", b"x" * LARGE_VALUE]


def test_what_comes_before_a_frame_that_there_is_no_memory_for(monkeypatch):
    """It is read; then comes the error."""

    def refuse(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    for decoder in (Decoder(), ReplyDecoder()):
        data = Encoder().encode(Value(1)) + struct.pack("!I", MIB) + bytes(20)
        decoder.space[: len(data)] = data
        messages = iter(decoder.received(len(data)))
        assert next(messages) == Value(1)
        with pytest.raises(ProtocolError, match="there is no memory for a message of 1048580 bytes"):
            next(messages)


@given(st.lists(st.integers(0, 50), max_size=5), st.lists(st.integers(0, 40), max_size=30))
def test_what_finds_no_room_waits(sizes, rooms):
    """All bytes go out in order."""
    owners = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    frame, unsent, sent, left = LargeFrame([memoryview(owner) for owner in owners]), deque(), b"", list(rooms)

    def send(piece):
        nonlocal sent
        room = left.pop() if left else 0
        if not room:
            raise BlockingIOError
        sent += bytes(piece[:room])
        return min(room, len(piece))

    write(unsent, frame, send)
    assert sent + b"".join(unsent) == b"".join(owners)
