"""What a client reads of a worker does not depend on how the stream is cut: into pieces of any length, with last words
or without, behind a whole reply or behind part of one, and whatever the replies look like.
"""

from __future__ import annotations

import socket
import threading

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gtask
from gtask.errors import ProtocolError
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.json import text as json
from gtask.wire.lastwords import ReplyDecoder, last_words
from gtask.wire.limits import Limits
from gtask.wire.mark import LONGEST, MARK, needs_stuffing
from gtask.wire.messages import NOT_PLAIN, Failure, Greeting, LastWords, Value
from gtask.wire.reading import CHUNK
from tests.support.examples import examples

WORDS = LastWords(4711, signal="SIGKILL", method="f", elapsed=1.5, maxrss=15360)
LOOKALIKES = [
    b"\xc1",
    MARK,
    MARK[1:],
    MARK * 3,
    MARK[1:] + b"\0",
    MARK[1:] + b"\0" + MARK,
    b"\0" + MARK[1:],
    last_words(WORDS),
    last_words(WORDS)[:-1],
    Encoder().encode(WORDS) + b"\xc1GTK",
    Encoder().encode(Value(1)),
    Encoder().encode_value(b"\xc1"),
]
PIECES = st.lists(st.sampled_from(LOOKALIKES) | st.binary(max_size=20), max_size=6).map(b"".join)
RESULTS = (
    PIECES
    | st.lists(PIECES, max_size=3)
    | st.builds(lambda count, end: b"x" * count + end, st.integers(0, 200_000), PIECES)
    | st.integers(0, 300)
    | st.text(max_size=5)
)
REPLIES = st.lists(st.builds(Value, RESULTS) | st.builds(Failure, st.text(max_size=20)), max_size=5)
LENGTHS = st.lists(st.integers(1, 70) | st.integers(1, 70_000), min_size=1, max_size=20)


def cut(stream, lengths):
    """The stream in pieces of these lengths, over and over, as a socket gives them: none is over a read's size."""
    at, number = 0, 0
    while at < len(stream):
        length = min(lengths[number % len(lengths)], CHUNK)
        # Thousands of short reads take long, and say no more than the last hundreds.
        length = max(length, min(CHUNK, len(stream) - at - 2000))
        yield stream[at : at + length]
        at += length
        number += 1


def read(pieces, decoder=None):
    """What a client reads: the messages, and then the last words; as gtask's own stream does it."""
    decoder = decoder or ReplyDecoder()
    messages = []
    for piece in pieces:
        decoder.space[: len(piece)] = piece
        value = decoder.plain_value(len(piece))
        messages += decoder.received(len(piece)) if value is NOT_PLAIN else [Value(value)]
    return messages, decoder.ended()


@settings(deadline=None, max_examples=examples(4))
@example([Value(b"x" * 65_000)], 30, True, [70_000])
@example([Value(b"")], 1, True, [70_000])
@given(REPLIES, st.integers(0, 100_000), st.booleans(), LENGTHS)
def test_any_stream_in_any_pieces(replies, missing, has_words, lengths):
    """Of the last reply some bytes may be missing. All before it arrives, and so do the last words."""
    encoder = Encoder()
    frames = [encoder.encode_reply(reply) for reply in replies]
    expected = list(replies)
    if missing and frames:
        frames[-1] = frames[-1][: max(0, len(frames[-1]) - missing)]
        del expected[-1]
    stream = b"".join(frames) + (last_words(WORDS) if has_words else b"")
    assert read(cut(stream, lengths)) == (expected, WORDS if has_words else None)


@settings(deadline=None)
@given(RESULTS)
def test_no_reply_looks_as_if_it_had_last_words(value):
    """Whatever is in it, and in whatever way it is written."""
    encoder = Encoder()
    assert encoder.encode_value(value) == encoder.encode_reply(Value(value))
    assert not needs_stuffing(encoder.encode_value(value))


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100, 1000, 5000])
def test_each_end_of_a_reply(length):
    """Wherever a worker dies, in the reply's length, too; for replies that are shorter and longer than last words."""
    frame = Encoder().encode_value(b"x" * length)
    words = last_words(LastWords(4711, signal="SIGKILL", stacks="y" * 3000))
    for sent in [*range(min(len(frame), 40)), *range(max(0, len(frame) - 40), len(frame))]:
        for lengths in ([1], [sent or 1, 1], [len(frame), 7], [70_000]):
            assert read(cut(frame[:sent] + words, lengths))[1] is not None
            assert read(cut(frame[:sent] + words, lengths))[0] == []


def test_words_that_are_cut():
    """They are no words, and no reply."""
    words = last_words(WORDS)
    for end in range(len(words)):
        assert read([words[:end]] if end else []) == ([], None)


BAD = {
    "no msgpack": b"\x00\x00\x00\x01\xc0",
    "a length over the limit": b"\xff\xff\xff\xff",
    "the end of a frame that no server sends": b"\x00\x00\x00\x02\x91\xc1" + b"\0" * (LONGEST + 10),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("length", [1, 7, 70_000])
@pytest.mark.parametrize("make", [ReplyDecoder, Decoder, json.Decoder, json.ReplyDecoder])
def test_what_comes_before_bad_bytes(make, length, bad):
    """It arrives, also if it comes together with them; then they are an error."""
    good = [b'["ok",{},1]'] * 2 if make.__module__ == json.__name__ else [Encoder().encode(Value(1))] * 2
    found = []
    with pytest.raises(ProtocolError):  # noqa: PT012 - the error may come with any piece
        decoder = make()
        for piece in cut(b"".join(good) + bad, [length]):
            decoder.space[: len(piece)] = piece
            found.extend(decoder.received(len(piece)))
    assert found == [Value(1), Value(1)]


def test_a_client_gets_the_value_before_bad_bytes(connect, tmp_path):
    """The call ends well, and the connection ends behind it."""
    path = f"{tmp_path}/bad.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve():
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(Encoder().encode(Greeting(name="bad")))
                peer.recv(65536)
                peer.sendall(Encoder().encode(Value("good")) + b"\xff\xff\xff\xff")
                while peer.recv(65536):
                    pass

        server = threading.Thread(target=serve)
        server.start()
        client = connect(f"unix:{path}")
        try:
            with client.checkout() as checkout:
                assert checkout.f() == "good"
                with pytest.raises(ProtocolError, match="4294967295 bytes"):
                    checkout.f()
        finally:
            client.close()
            server.join()


def test_the_limit_counts_the_frame_that_travels():
    """In the other form it is longer, by at most a fifteenth."""
    with pytest.raises(gtask.EncodeError, match="limit"):
        Encoder(160_000).encode_value(b"\xc1" * 155_000)
    frame = Encoder(170_000).encode_value(b"\xc1" * 155_000)
    assert read(cut(frame, [70_000]), ReplyDecoder(Limits(message=170_000))) == ([Value(b"\xc1" * 155_000)], None)


@pytest.mark.parametrize(
    "body",
    [["st"], ["st", None], ["st", "text"], ["st", b""], ["st", b"\xc1"], ["st", msgpack.packb(["st", b"xx"]) + b"x"]],
)
def test_another_form_without_a_message(body):
    """It is refused, and so is one in another."""
    packed = msgpack.packb(body) + (b"" if body[-1] != b"\xc1" else b"\0")
    with pytest.raises(ProtocolError):
        read([len(packed).to_bytes(4, "big") + packed])


@pytest.mark.parametrize("end", [b"\xc1", b"", b"x"])
def test_what_follows_a_reply_that_is_not_whole_is_bounded(end):
    """A server cannot make its client keep all that it sends."""
    decoder = ReplyDecoder(Limits(message=1000))
    body = msgpack.packb(["ok", None, b"x" * 100 + MARK + end])
    start = len(body).to_bytes(4, "big") + body if end != b"x" else b"\xff\xff\xff\xc1"
    with pytest.raises(ProtocolError, match=r"bytes came behind a frame|limit is 1000"):
        read([start, *[b"z" * CHUNK] * 3], decoder)
    assert len(decoder._partial) <= LONGEST + 2 * CHUNK


def test_a_stream_in_small_pieces_takes_linear_time():
    """Each read looks at what is new, though a reply is long and comes byte by byte."""
    decoder, looks = ReplyDecoder(), 0

    class Counting(bytearray):
        def find(self, *arguments):
            nonlocal looks
            looks += 1
            return bytearray.find(self, *arguments)

    decoder._partial = Counting()
    frame = Encoder().encode_value(b"x" * 5000 + b"\xc1")
    assert read(cut(frame, [1]), decoder) == ([Value(b"x" * 5000 + b"\xc1")], None)
    assert looks <= 3


def test_a_client_gets_no_value_that_last_words_have_completed(connect, tmp_path):
    """A server whose worker died with thirty bytes of a long reply unsent; it is read in one piece."""
    frame = Encoder().encode_value(b"x" * (65_536 - 12))
    assert len(frame) == 65_536
    path = str(tmp_path / "peer")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def peer():
            with listener.accept()[0] as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                sock.recv(1000)
                sock.sendall(Encoder().encode_reply(Greeting(pid=4711)))
                sock.recv(1000)
                sock.sendall(frame[:-30] + last_words(WORDS))

        thread = threading.Thread(target=peer)
        thread.start()
        try:
            with pytest.raises(gtask.WorkerDied, match="SIGKILL"):
                connect(f"unix:{path}").call("f")
        finally:
            thread.join()
