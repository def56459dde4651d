"""The bytes of a frame: how usual messages begin, and the message that any bytes are.

What comes in is not trusted: bytes that are no message are a ProtocolError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgpack

from gtask.errors import ProtocolError
from gtask.wire.forms import are_names, from_plain, seconds
from gtask.wire.messages import NOTHING_USED, WORDS, Message, Request, RequestMeta, Value
from gtask.wire.values.kinds import Unpacking

__all__ = [
    "ANY",
    "FIRST_EPOCH",
    "HEADERS",
    "ITEMS",
    "LAST_EPOCH",
    "NAMED",
    "NAMED_FIELDS",
    "NAMED_HEADS",
    "READERS",
    "REQUEST",
    "REQUEST_HEADS",
    "REQUEST_ITEMS",
    "SHORT",
    "TIMED",
    "TIMED_FIELDS",
    "TIMED_HEADS",
    "TIMEOUT_KEY",
    "VALUE",
    "VALUES",
    "VALUE_HEAD",
    "decode_body",
    "new",
    "note_used",
    "read_value",
    "unpack_again",
    "unpackb",
]

# The usual request is ["do", {"q": epoch}, *items], with few items and an epoch that msgpack writes as ce and four
# bytes; with arguments by name ["do", {"kw": map, "q": epoch}, *items]; with a time-out
# ["do", {"q": epoch, "t": seconds}, *items]. The usual value is ["ok", nil, value]. The beginning of each has one form,
# so it is written and recognised whole: length, array header, word, map header, first key. Items, with the fields
# before them that have no one form, are packed and read as one array, whose header stands in the place of the
# beginning's last byte.
ITEMS = 12
FIRST_EPOCH, LAST_EPOCH = 1 << 16, (1 << 32) - 1
ARRAY = 0x90
"""The header of an array with no items; with up to 15 the header is so much more."""
HEADERS = tuple(bytes([ARRAY + count]) for count in range(16))


def _heads(word: bytes) -> tuple[bytes, ...]:
    """The beginning behind the length, by the number of items."""
    return tuple(bytes([ARRAY + 2 + count]) + word for count in range(ITEMS + 1))


REQUEST, REQUEST_HEADS = struct.Struct("!I8sI"), _heads(b"\xa2do\x81\xa1q\xce")
NAMED, NAMED_HEADS = struct.Struct("!I8s"), _heads(b"\xa2do\x82\xa2kw")
TIMED, TIMED_HEADS = struct.Struct("!I8sI2s"), _heads(b"\xa2do\x82\xa1q\xce")
TIMEOUT_KEY = b"\xa1t"
VALUE, VALUE_HEAD = struct.Struct("!I5s"), b"\x93\xa2ok\xc0"
SHORT = 1000
VALUES = tuple(VALUE.pack(size, VALUE_HEAD) for size in range(SHORT))
"""The beginning of a usual value's frame, by what stands in it as its length."""

NAMED_FIELDS, TIMED_FIELDS = 3, 1
"""How many fields, or keys, are in one array with the items."""

Data = bytearray | memoryview
new, unpackb = object.__new__, msgpack.unpackb


def decode_body(body: Data, unpacking: Unpacking) -> Message:
    """The message in a frame, without its length.

    Raises:
        ProtocolError: it is none.
    """
    try:
        # unpackb's own limits are what is wanted here: no string, array or map is longer than its frame has bytes,
        # and nothing nests deeper than 1024.
        plain = unpackb(body, ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
    except Exception as error:
        plain = unpack_again(body, unpacking, error)
    return _noted(from_plain(plain), unpacking)


def unpack_again(packed: Data, unpacking: Unpacking, error: Exception) -> Any:
    """The value that msgpack could not read: with text that UTF-8 has no bytes for.

    Raises:
        ProtocolError: the error has another cause.
    """
    if isinstance(error, UnicodeDecodeError):
        try:
            return unpacking.lenient().value(packed)
        except Exception as later:  # as below
            error = later
    # Any failure to read hostile bytes is the peer's fault.
    raise ProtocolError(f"a frame that is no message: {type(error).__name__}: {error!s:.200}") from None


def _noted(message: Message, unpacking: Unpacking) -> Message:
    if unpacking.used:
        note_used(message, unpacking)
    return message


def note_used(message: Message, unpacking: Unpacking) -> None:
    """Note in a message under which offers values in it have come.

    Raises:
        ProtocolError: the message is none that may have such values.
    """
    used = frozenset(unpacking.used)
    unpacking.used.clear()
    if type(message) is not Request and type(message) is not Value:
        raise ProtocolError(f"a {', '.join(used)} in {WORDS[type(message)]!r}, where none may be")
    message.used = used


def read_request(data: Data, start: int, stop: int, header: int, epoch: int, unpacking: Unpacking) -> Message:
    """The frame between start and stop, a usual request.

    Args:
        header: for the array that is read as one.
        epoch: what stands where a usual request has it.
    """
    data[start + 15] = header
    items = data[start + 15 : stop]
    try:
        args = unpackb(items, ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
    except Exception as error:
        args = unpack_again(items, unpacking, error)
    return _request(args, {}, epoch, None, unpacking)


def _request(args: Any, kwargs: dict[str, Any], epoch: int, meta: RequestMeta | None, unpacking: Unpacking) -> Request:
    request = new(Request)  # a call of the class takes twice as long
    request.args = args
    request.kwargs = kwargs
    request.epoch = epoch
    request.meta = meta
    request.used = NOTHING_USED
    if unpacking.used:
        note_used(request, unpacking)
    return request


_of_timeout = lru_cache(maxsize=100, typed=True)(lambda timeout: RequestMeta(timeout, True))


def read_named(data: Data, start: int, stop: int, header: int, epoch: int, unpacking: Unpacking) -> Message:
    """The frame between start and stop: a request with arguments by name, or what else begins in this way."""
    if stop > start + 12:
        data[start + 11] = header
        try:
            plain = unpackb(data[start + 11 : stop], ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
        except Exception:  # the general way finds out what is wrong
            plain = None
        if plain and type(plain[1]) is str and plain[1] == "q" and type(plain[2]) is int and are_names(plain[0]):
            return _request(plain[3:], plain[0], plain[2], None, unpacking)
        data[start + 11] = NAMED_HEADS[0][-1]
    return decode_body(data[start + 4 : stop], unpacking)


def read_timed(data: Data, start: int, stop: int, header: int, epoch: int, unpacking: Unpacking) -> Message:
    """The frame between start and stop: a request with a time-out, or what else begins in this way."""
    at = start + 17
    if stop > at and data[at] == TIMEOUT_KEY[1] and data[at - 1] == TIMEOUT_KEY[0]:
        data[at] = header
        try:
            args = unpackb(data[at:stop], ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
            timeout = seconds("t", args.pop(0))
        except Exception:  # the general way finds out what is wrong
            data[at] = TIMEOUT_KEY[1]
        else:
            return _request(args, {}, epoch, _of_timeout(timeout), unpacking)
    return decode_body(data[start + 4 : stop], unpacking)


def read_any(data: Data, start: int, stop: int, header: int, epoch: int, unpacking: Unpacking) -> Message:
    """The frame between start and stop, any message."""
    return decode_body(data[start + 4 : stop], unpacking)


REQUEST_ITEMS = {head: ARRAY + count for count, head in enumerate(REQUEST_HEADS)}
"""The header of a usual request's items, by its head."""

Reader = Callable[[Data, int, int, int, int, Unpacking], Message]

READERS: dict[bytes, tuple[Reader, int]] = {
    **{head: (read_request, header) for head, header in REQUEST_ITEMS.items()},
    **{head: (read_named, ARRAY + count + NAMED_FIELDS) for count, head in enumerate(NAMED_HEADS)},
    **{head: (read_timed, ARRAY + count + TIMED_FIELDS) for count, head in enumerate(TIMED_HEADS)},
}
"""What reads a frame, by its head, with the header that it needs."""
ANY = (read_any, 0)


def read_value(packed: Data, unpacking: Unpacking) -> Value:
    """The usual value, of what stands behind its word."""
    try:
        value = unpackb(packed, ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
    except Exception as error:
        value = unpack_again(packed, unpacking, error)
    message = new(Value)
    message.value = value
    message.ld = None
    message.used = NOTHING_USED
    if unpacking.used:
        note_used(message, unpacking)
    return message
