"""The body of a frame: how the usual request and the usual value begin, and the message that any bytes are.

What comes in is not trusted: bytes that are no message are a ProtocolError.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

from gtask.errors import ProtocolError
from gtask.wire.forms import WORDS, from_plain
from gtask.wire.limits import LimitExceededError
from gtask.wire.mark import STUFFED, unstuff
from gtask.wire.messages import NOTHING_USED, Done, Message, Request, RequestMeta, Value
from gtask.wire.values.collisions import MOST_COLLISIONS
from gtask.wire.values.unpacking import ManyExtensionsError, ReadOnceError, Unpacking

__all__ = [
    "ARRAY", "DONE_BODY", "FIRST_EPOCH", "HEADERS", "ITEMS", "LAST_EPOCH", "LENGTH", "REQUEST", "REQUEST_HEADS",
    "REQUEST_ITEMS", "SHORT", "VALUE", "VALUES", "VALUE_HEAD", "Data", "decode_body", "heads", "new", "note_used",
    "packb", "read_any", "read_request", "read_value", "request_of", "unpack_again", "unpackb",
]  # fmt: skip

LENGTH = struct.Struct("!I")

# The usual request is ["do", {"q": epoch}, *items], with few items and an epoch that msgpack writes as ce and four
# bytes. The usual value is ["ok", nil, value]. The beginning of each has one form, so it is written and recognised
# whole: length, array header, word, map header, first key. Items are packed and read as one array, whose header stands
# in the place of the beginning's last byte.
ITEMS = 12
FIRST_EPOCH, LAST_EPOCH = 1 << 16, (1 << 32) - 1
ARRAY = 0x90
"""The header of an array with no items; with up to 15 the header is so much more."""
HEADERS = tuple(bytes([ARRAY + count]) for count in range(16))


def heads(word: bytes) -> tuple[bytes, ...]:
    """The beginning behind the length, by the number of items."""
    return tuple(bytes([ARRAY + 2 + count]) + word for count in range(ITEMS + 1))


REQUEST, REQUEST_HEADS = struct.Struct("!I8sI"), heads(b"\xa2do\x81\xa1q\xce")
REQUEST_ITEMS = {head: ARRAY + count for count, head in enumerate(REQUEST_HEADS)}
"""The header of a usual request's items, by its head."""
DONE_BODY = b"\x92\xa2dn\xc0"
"""The end of a checkout, which has one form."""
VALUE, VALUE_HEAD = struct.Struct("!I5s"), b"\x93\xa2ok\xc0"
SHORT = 1000
VALUES = tuple(VALUE.pack(size, VALUE_HEAD) for size in range(SHORT))
"""The beginning of a usual value's frame, by what stands in it as its length."""

AGAIN = (
    (ManyExtensionsError, "strict", False),
    (UnicodeDecodeError, "surrogatepass", False),
    (ReadOnceError, "surrogatepass", True),
)
"""Why a message is read again, and how."""

Data = bytearray | memoryview
new, packb, unpackb = object.__new__, msgpack.packb, msgpack.unpackb


def decode_body(body: Data, unpacking: Unpacking) -> Message:
    """The message in a frame, without its length.

    Raises:
        ProtocolError: it is none.
    """
    plain = _unpack(body, unpacking)
    if type(plain) is list and len(plain) == 2 and type(plain[1]) is bytes and plain[0] == STUFFED:
        plain = _unpack(unstuff(plain[1]), unpacking)
    return _noted(from_plain(plain), unpacking)


def _unpack(packed: Data, unpacking: Unpacking) -> Any:
    if len(packed) > unpacking.items:
        return unpack_again(packed, unpacking, ManyExtensionsError())
    try:
        # unpackb's own limits are what is wanted here: no string, array or map is longer than its frame has bytes,
        # and nothing nests deeper than 1024.
        return unpackb(packed, ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
    except Exception as error:
        return unpack_again(packed, unpacking, error)


def unpack_again(packed: Data, unpacking: Unpacking, error: Exception) -> Any:
    """The value that msgpack could not read: with text that UTF-8 has no bytes for, or with many items.

    Raises:
        ProtocolError: the error has another cause, or the items are too many.
    """
    for cause, errors, is_final in AGAIN:
        if isinstance(error, cause):
            unpacking.left = MOST_COLLISIONS
            try:
                return unpacking.careful(errors, is_final).value(packed)
            except Exception as later:  # as below
                error = later
    if isinstance(error, LimitExceededError):
        raise error
    if isinstance(error, MemoryError):
        raise LimitExceededError(f"there is no memory for what a message of {len(packed)} bytes holds")
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
    return request_of(args, {}, epoch, None, unpacking)


def request_of(
    args: Any, kwargs: dict[str, Any], epoch: int, meta: RequestMeta | None, unpacking: Unpacking
) -> Request:
    """A request with these fields, in which it is noted what values in it have come under offers."""
    request = new(Request)  # a call of the class takes twice as long
    request.args = args
    request.kwargs = kwargs
    request.epoch = epoch
    request.meta = meta
    request.used = NOTHING_USED
    if unpacking.used:
        note_used(request, unpacking)
    return request


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


def read_any(data: Data, start: int, stop: int, header: int, epoch: int, unpacking: Unpacking) -> Message:
    """The frame between start and stop, any message; the end of a checkout is often among others."""
    if stop - start == 4 + len(DONE_BODY) and bytes(data[start + 4 : stop]) == DONE_BODY:
        return Done()
    return decode_body(data[start + 4 : stop], unpacking)
