"""What is fuzzed: each target takes any bytes, and raises only where gtask is wrong.

The bytes are a stream of a peer, or they stand for a value in its message.
"""

from __future__ import annotations

import copy
import pickle
import struct
import traceback
from collections.abc import Callable
from typing import Any

import msgpack

from gtask.aspects.logs.replay import from_deferred, replay
from gtask.errors import ProtocolError
from gtask.wire import frames, lastwords
from gtask.wire.exceptions import failure
from gtask.wire.json import text as json
from gtask.wire.lastwords import last_words
from gtask.wire.messages import (
    NOT_PLAIN,
    Done,
    Extend,
    Failure,
    Greeting,
    LastWords,
    LogRecords,
    Message,
    Preamble,
    Request,
    RequestMeta,
    Retire,
    Skipped,
    Value,
)
from tests.fuzz.shapes import shape

__all__ = ["SEEDS", "TARGETS", "conversation"]

OF_EXCEPTIONS = [
    "type", "module", "args", "frames", "attrs", "notes", "cause", "context", "members", "suppress", "message", "pid",
    "ValueError", "builtins", "ExceptionGroup", "OSError", "SyntaxError", "KeyError", "UnicodeDecodeError", "gtask",
    "gtask.errors", "os", "/etc/passwd", "/proc/self/mem", "/dev/zero", __file__, "__class__", "__dict__", "errno",
    "__traceback__", "strerror", "with_traceback", "name", "obj", "text", "exc", "filename", "lineno", "SystemExit",
]  # fmt: skip
OF_RECORDS = [
    "name", "level", "msg", "args", "text", "exc", "file", "line", "func", "created", "msecs", "thread", "thread_name",
    "process_name", "extra", "loggers", "stack", "%s", "%999999999d", "%(name)s", "%*d", "a.b", "root", "gtask", "logs",
    "type", "module", "frames",
]  # fmt: skip


# --- the targets -----------------------------------------------------------------------------------------------


def requests(data: bytes) -> None:
    """A client's stream, as a worker reads it."""
    _same_however_cut(frames.Decoder, data)


def replies(data: bytes) -> None:
    """A worker's stream and its end, as a client reads it."""
    _same_however_cut(lastwords.ReplyDecoder, data)


def json_requests(data: bytes) -> None:
    """The stream of a client that speaks JSON."""
    _same_however_cut(json.Decoder, data)


def json_replies(data: bytes) -> None:
    """The stream of a worker that speaks JSON."""
    _same_however_cut(json.ReplyDecoder, data)


def exceptions(data: bytes) -> None:
    """An exception of a worker: made, raised, shown, copied."""
    told = _carried(["er", {"exc": shape(data, OF_EXCEPTIONS)}, "the text"])
    if isinstance(told, Failure):
        error = failure.rebuild(told.exc, told.text)
        try:
            raise error
        except type(error) as raised:
            "".join(traceback.format_exception(raised))
        str(error), repr(error), copy.copy(error)
        pickle.loads(pickle.dumps(error))


def records(data: bytes) -> None:
    """Log records of a worker, and the log that one of another kind has deferred."""
    told = _carried(["lg", {"ld": shape(data, OF_RECORDS)}, *(shape(data[at:], OF_RECORDS) for at in range(0, 60, 20))])
    if isinstance(told, LogRecords):
        replay([*told.records, *from_deferred(told.ld)], 4711)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (requests, replies, json_requests, json_replies, exceptions, records)
}
"""The targets in this process, by name."""


# --- how streams are read --------------------------------------------------------------------------------------


def _carried(plain: Any) -> Message | None:
    """The message, as the other side reads it; None if none can be made of it."""
    try:
        body = msgpack.packb(plain, unicode_errors="surrogatepass")
        return next(iter(_read(lastwords.ReplyDecoder(), struct.pack("!I", len(body)) + body, 70_000)), None)
    except ProtocolError:
        return None


def _same_however_cut(make: Callable[[], Any], data: bytes) -> None:
    """Read a stream in large pieces, and in pieces of a size that its first byte decides."""
    size, stream = 1 + data[0] ** 2 % 70_000 if data else 1, data[1:]
    one, other = _outcome(make, stream, 65_536), _outcome(make, stream, size)
    assert one == other, f"read otherwise in pieces of {size}:\n{one:.500}\n{other:.500}"


def _outcome(make: Callable[[], Any], stream: bytes, size: int) -> str:
    """The messages, and how it ended."""
    reader, messages = make(), list[Message]()
    try:
        for message in _read(reader, stream, size):
            messages.append(message)
        end = repr(reader.ended()) if hasattr(reader, "ended") else ""
    except ProtocolError as error:
        if messages[-1:] == [Done()]:
            del messages[-1]  # a worker that hears an error ends, and so does the checkout
        return f"{messages!r}, then {type(error).__name__}"
    return f"{messages!r}, then {end}, {'midway' if reader.midway else 'at an end'}"


def _read(reader: Any, stream: bytes, size: int) -> Any:
    size = min(size, len(reader.space))
    for at in range(0, len(stream), size):
        piece = stream[at : at + size]
        reader.space[: len(piece)] = piece
        value = reader.plain_value(len(piece)) if hasattr(reader, "plain_value") else NOT_PLAIN
        yield from [Value(value)] if value is not NOT_PLAIN else reader.received(len(piece))


# --- what is worth to begin with -------------------------------------------------------------------------------

HOSTILE = [
    b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff",
    b"\x00\x00\x07\xd0" + b"\x91" * 2000,
    b"\xc1" * 40,
    b"[" * 2000,
    b'["ok",{},"\\',
]


def conversation() -> list[bytes]:
    """What a client says to a worker, message by message."""
    encode = frames.Encoder().encode
    return [
        encode(message)
        for message in (
            Greeting(name="fuzz", timeout=3.0),
            Preamble({"a": 10}, 1.5),
            Request(["echo", 1, "text", b"bytes", None, [1.5, {"a": 2**70}]], {}, 65_536),
            Request(["echo"], {"value": {1, 2, (3, 4)}}, 65_537, RequestMeta(1.5, True)),
            Request(["echo", frozenset({"a"}), 1j, {"b": {}}], {}, 65_538, RequestMeta(None, False, True, {"a": "b"})),
            Done(),
        )
    ]


def _said_by_workers() -> list[bytes]:
    encode = frames.Encoder().encode_reply
    return [
        *map(
            encode,
            (
                Greeting(name="fuzz", pid=1, done=True),
                Value({"a": [1, 2.5, b"\xc1" * 20]}),
                Failure("text", failure.describe(ValueError("x")), None),
                LogRecords([{"name": "a", "level": 20, "msg": "%s", "args": ["x"]}], None),
                Skipped(),
                Extend(5.0),
                Done(),
                Retire("why", True),
            ),
        ),
        last_words(LastWords(1, None, "SIGKILL", "echo", 1.5, 1, "stacks", "why")),
    ]


def _seeds(frames: list[bytes]) -> list[bytes]:
    """Each frame, all of them, and what is hostile, behind the byte that decides about the pieces."""
    return [b"\x07" + stream for stream in (*frames, b"".join(frames), *HOSTILE)]


JSON = [
    b'["do",{},"echo",1,["a",null]]',
    b'["ok",{},{"a":[1.5e3,"\\u20ac"]}]',
    b'["er",{},"setup exception: x"]',
    b'["dn"]',
]

SEEDS: dict[str, list[bytes]] = {
    "requests": _seeds(conversation()),
    "replies": _seeds(_said_by_workers()),
    "json_requests": _seeds(JSON),
    "json_replies": _seeds(JSON),
    "exceptions": [bytes(range(256)), b"\x05" + bytes(range(0, 96, 3))],
    "records": [bytes(range(256)), b"\x07" + bytes(range(0, 96, 2))],
}
"""Inputs to begin with, by the name of the target."""
