"""Messages to bytes and back: 4 bytes of length, big-endian, then one msgpack array.

A value comes out as it went in, but for tuples (lists), subclasses (their base) and time zones (their
offset); what cannot travel is an EncodeError before a byte of it is sent. What comes in is not trusted:
a length over the limit is refused before anything is allocated for it, a bad frame is a ProtocolError,
and memory grows only as bytes arrive. Only this module and :mod:`~gtask.wire.values.kinds` know msgpack.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.forms import from_plain, plain_request, to_plain
from gtask.wire.messages import (
    DEFAULT_LIMIT,
    WORDS,
    Message,
    Request,
    RequestMeta,
    Value,
)
from gtask.wire.values.agreement import PLAIN, Agreement, ConditionalFrame
from gtask.wire.values.culprit import SCALARS, check_keys, refusal
from gtask.wire.values.kinds import Packing, Unpacking, too_large

__all__ = ["LENGTH", "VALUE", "VALUE_WORD", "Decoder", "Encoder", "decode_body"]

CHUNK = 64 * 1024
"""Bytes that one read can take."""

KEEP = 1024 * 1024
"""Bytes that a packer's buffer may grow to and be kept."""

LENGTH = struct.Struct("!I")

# The usual request is ["do", {"q": epoch}, *items] or ["do", {"kw": map, "q": epoch}, *items] with few items and an
# epoch that msgpack writes as ce and four bytes; the usual value is ["ok", nil, value]. What stands before the items
# has one form, so it is written and recognised whole: length, array header, word and keys, epoch.
ITEMS = 13
FIRST_EPOCH, LAST_EPOCH = 1 << 16, (1 << 32) - 1
REQUEST = struct.Struct("!IB7sI")
REQUEST_WORD = b"\xa2do\x81\xa1q\xce"
NAMED_REQUEST = struct.Struct("!IB7s")
NAMED_WORD = b"\xa2do\x82\xa2kw"
EPOCH = struct.Struct("!3sI")
EPOCH_KEY = b"\xa1q\xce"
VALUE = struct.Struct("!I5s")
VALUE_WORD = b"\x93\xa2ok\xc0"
ARRAY = 0x90
"""The header of an array with no items; with up to 15 the header is so much more."""

_NOTHING: dict[str, Any] = {}


class Encoder:
    """Writes the messages of one connection.

    Args:
        limit: bytes that a frame may have; the same as the reader's.
        agreement: the kinds of values that may be in them.
    """

    __slots__ = ("_keep", "_limit", "_pack", "_packing", "_used")

    def __init__(self, limit: int = DEFAULT_LIMIT, agreement: Agreement = PLAIN) -> None:
        self._limit = limit
        self._keep = min(limit, KEEP)
        self.agree(agreement)

    def agree(self, agreement: Agreement) -> None:
        """The kinds of values that may be in messages from now on."""
        self._packing = Packing(agreement, self._limit)
        self._used = self._packing.used
        self._pack: Callable[[Any], bytes] = msgpack.Packer(default=self._packing.default).pack

    def encode(self, message: Message) -> bytes:
        """The frame of a message.

        Raises:
            EncodeError: a value in it cannot travel, or the frame would be over the limit.
        """
        if type(message) is Value and message.ld is None:
            return self.encode_value(message.value)
        if type(message) is Request:
            frame = self.encode_request(message.args, message.kwargs, message.epoch, message.meta)
            return frame.data if isinstance(frame, ConditionalFrame) else frame
        return self._frame(to_plain(message), (message.value,) if type(message) is Value else (), _NOTHING)

    def encode_value(self, value: Any) -> bytes:
        """The frame of a :class:`Value` that has no ``ld``; raises as :meth:`encode`."""
        try:
            if type(value) not in SCALARS:
                check_keys(value)
            packed = self._pack(value)
        except Exception:  # the general way finds out what is wrong
            return self._frame(["ok", None, value], (value,), _NOTHING)
        size = len(packed) + 5
        if size > self._keep:
            self._check_size(size)
        return VALUE.pack(size, VALUE_WORD) + packed

    def encode_request(
        self, args: Sequence[Any], kwargs: dict[str, Any], epoch: int, meta: RequestMeta | None = None
    ) -> bytes | ConditionalFrame:
        """The frame of a :class:`Request` with these fields; raises as :meth:`encode`."""
        used = self._used
        if used:
            used.clear()
        frame = None
        if meta is None and FIRST_EPOCH <= epoch <= LAST_EPOCH and len(args) <= ITEMS and type(args) is tuple:
            try:
                for value in args:
                    if type(value) not in SCALARS:
                        check_keys(value)
                items: bytes | memoryview = self._pack(args)
                named = b""
                if kwargs:
                    for key, value in kwargs.items():
                        if type(key) is not str or type(value) not in SCALARS:
                            check_keys({key: value})
                    named = self._pack(kwargs)
            except Exception:  # the general way finds out what is wrong
                pass
            else:
                size = len(items) + len(named) + (14 if named else 11)
                if size > self._keep:
                    self._check_size(size)
                    items = memoryview(items)  # whose slice is no copy
                if named:
                    head = NAMED_REQUEST.pack(size, items[0] + 2, NAMED_WORD) + named + EPOCH.pack(EPOCH_KEY, epoch)
                else:
                    head = REQUEST.pack(size, items[0] + 2, REQUEST_WORD, epoch)
                frame = head + items[1:]
        if frame is None:
            values = args if meta is None else (*args, meta.context, meta.others)
            frame = self._frame(plain_request(args, kwargs, epoch, meta), values, kwargs)
        return ConditionalFrame(frame, dict(used)) if used else frame

    def _frame(self, plain: list[Any], values: Sequence[Any], named_values: dict[str, Any]) -> bytes:
        try:
            for value in values:
                if type(value) not in SCALARS:
                    check_keys(value)
            if named_values:
                check_keys(named_values)
            body = self._pack(plain)
        except UnicodeEncodeError:
            body = self._body(plain)
        except Exception as error:  # also what the methods of a value's class raise
            body = self._other_body(plain, error)
        size = len(body)
        if size > self._keep:
            self._check_size(size)
        return LENGTH.pack(size) + body

    def _check_size(self, size: int) -> None:
        """Drop the packer, or its buffer would stay as large; and refuse what is over the limit."""
        self._pack = msgpack.Packer(default=self._packing.default).pack
        if size > self._limit:
            raise too_large(f"the message has {size} bytes", self._limit)

    def _body(self, plain: list[Any]) -> bytes:
        """With text that UTF-8 has no bytes for."""
        try:
            return self._packing.body(plain)
        except Exception as error:  # as in _frame
            return self._other_body(plain, error)

    def _other_body(self, plain: list[Any], error: Exception) -> bytes:
        """With a stand-in for each value that is of no kind, if one is agreed upon; or the error that says why not."""
        self._used.clear()
        agreement = self._packing.agreement
        if agreement.fallback is not None and not isinstance(error, EncodeError):
            # With a packing of its own: a stand-in may run code of the application, which may have another message
            # written by this encoder.
            packing = Packing(agreement, self._limit)
            try:
                body = packing.body(agreement.fallback(plain, packing))
                self._used.update(packing.used)
                return body
            except Exception as later:  # as in _frame
                error = later
        packing = Packing(agreement, self._limit)  # which notes what nobody is to know
        raise refusal(plain, error, packing.body, agreement.no_fallback) from None


class Decoder:
    """Reads the messages of one connection.

    The owner of the socket reads into :attr:`space` and says by :meth:`received` how much came::

        count = sock.recv_into(decoder.space)
        for message in decoder.received(count): ...

    Args:
        limit: bytes that a frame may have; the length of a larger one is refused as soon as it is read.
    """

    __slots__ = ("_chunk", "_hook", "_limit", "_partial", "_unpacking", "_used", "space")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._chunk = bytearray(CHUNK + REQUEST.size)  # a head may be looked for where a frame is shorter
        self._partial = bytearray()
        self.space = memoryview(self._chunk)[:CHUNK]
        """Where the next bytes are to be put."""
        self.agree(PLAIN)

    def agree(self, agreement: Agreement) -> None:
        """The kinds of values that may be in messages from now on."""
        self._unpacking = Unpacking(agreement)
        self._used = self._unpacking.used
        self._hook = self._unpacking.hook

    @property
    def midway(self) -> bool:
        """Whether part of a frame has come and its rest has not."""
        return bool(self._partial)

    def received(self, count: int) -> list[Message]:
        """The messages that became whole with the next ``count`` bytes in :attr:`space`.

        Raises:
            ProtocolError: a frame is too long or is no message. The decoder cannot be used after it.
        """
        data: bytearray | memoryview = self._chunk
        start, end, limit = 0, count, self._limit
        if self._partial:
            data = self._joined(count)
            end = len(data) - REQUEST.size
        messages: list[Message] = []
        while end - start >= 4:
            length, header, word, epoch = REQUEST.unpack_from(data, start)
            stop = start + 4 + length
            if stop > end or length > limit:
                self._check(length)
                break
            if word == REQUEST_WORD and ARRAY + 2 <= header <= ARRAY + 15:
                data[start + 15] = header - 2  # so the items have a header of their own
                items = data[start + 15 : stop]
                try:
                    args = msgpack.unpackb(items, ext_hook=self._hook, strict_map_key=False, timestamp=3)
                except Exception as error:
                    args = unpack_again(items, self._unpacking, error)
                messages.append(Request(args, {}, epoch))
                if self._used:
                    note_used(messages[-1], self._unpacking)
            else:
                messages.append(decode_body(data[start + 4 : stop], self._unpacking))
            start = stop
        if start < end:
            self._partial += data[start:end]
        return messages

    def _value(self, packed: bytearray | memoryview) -> Value:
        """The usual value, of what stands behind its word."""
        try:
            value = Value(msgpack.unpackb(packed, ext_hook=self._hook, strict_map_key=False, timestamp=3))
        except Exception as error:
            value = Value(unpack_again(packed, self._unpacking, error))
        if self._used:
            note_used(value, self._unpacking)
        return value

    def _joined(self, count: int) -> memoryview:
        """What has come of frames that are not whole yet, and as many bytes behind it as a head has."""
        self._partial += self.space[:count]
        if len(self._partial) >= 4:
            length = LENGTH.unpack_from(self._partial)[0]
            self._check(length)
            if length + 4 > len(self._partial):
                return memoryview(bytes(REQUEST.size))  # the rest of a large frame is still on its way
        data, self._partial = self._partial, bytearray()
        data += bytes(REQUEST.size)
        return memoryview(data)  # whose slices are no copies

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise ProtocolError(
                f"the peer announced a message of {length} bytes and the limit is {self._limit}; is it a gtask peer?"
            )


def decode_body(body: bytearray | memoryview, unpacking: Unpacking) -> Message:
    """The message in a frame, without its length.

    Raises:
        ProtocolError: it is none.
    """
    try:
        # unpackb's own limits are what is wanted here: no string, array or map is longer than its frame has bytes,
        # and nothing nests deeper than 1024.
        plain = msgpack.unpackb(body, ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
    except Exception as error:
        plain = unpack_again(body, unpacking, error)
    message = from_plain(plain)
    if unpacking.used:
        note_used(message, unpacking)
    return message


def unpack_again(packed: bytearray | memoryview, unpacking: Unpacking, error: Exception) -> Any:
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
