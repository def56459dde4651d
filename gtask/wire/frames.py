"""Messages to bytes and back: 4 bytes of length, big-endian, then one msgpack array.

A value comes out as it went in, but for tuples (lists), instances of subclasses (the values of the base that they
equal) and time zones (their offset); what cannot travel is an EncodeError before a byte of it is sent. What comes in is
not trusted: a length over the limit is refused before anything is allocated for it, a bad frame is a ProtocolError, and
memory grows only as bytes arrive. Only this module, :mod:`~gtask.wire.bodies` and :mod:`~gtask.wire.values.kinds` know
msgpack.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.bodies import (
    ANY,
    FIRST_EPOCH,
    HEADERS,
    ITEMS,
    LAST_EPOCH,
    NAMED,
    NAMED_FIELDS,
    NAMED_HEADS,
    READERS,
    REQUEST,
    REQUEST_HEADS,
    REQUEST_ITEMS,
    SHORT,
    TIMED,
    TIMED_FIELDS,
    TIMED_HEADS,
    TIMEOUT_KEY,
    VALUE,
    VALUE_HEAD,
    VALUES,
    new,
    note_used,
    unpack_again,
    unpackb,
)
from gtask.wire.forms import plain_request, to_plain
from gtask.wire.messages import DEFAULT_LIMIT, NOTHING_USED, Done, Message, Request, RequestMeta, Value
from gtask.wire.values.agreement import PLAIN, Agreement, ConditionalFrame
from gtask.wire.values.copies import body_of_copy
from gtask.wire.values.culprit import check
from gtask.wire.values.kinds import SCALARS, Packing, Unpacking, too_large

__all__ = ["LENGTH", "Decoder", "Encoder"]

CHUNK = 64 * 1024
"""Bytes that one read can take."""

KEEP = 1024 * 1024
"""Bytes that a packer's buffer may grow to and be kept."""

LENGTH = struct.Struct("!I")

pack_request, unpack_request = REQUEST.pack, REQUEST.unpack_from
NAMED_REQUEST_HEADS = REQUEST_HEADS[1:]
"""By the number of items behind the first."""

MOST_NAMES = 1000
"""The most names that an encoder remembers."""

_NOTHING: dict[str, Any] = {}


class Names(dict[str | None, bytes]):
    """The bytes of names; none at all for None."""

    def __missing__(self, name: str | None) -> bytes:
        packed: bytes = b"" if name is None else msgpack.packb(name)
        if (name is None or type(name) is str) and len(self) < MOST_NAMES:
            self[name] = packed
        return packed


class Encoder:
    """Writes the messages of one connection.

    Args:
        limit: bytes that a frame may have; the same as the reader's.
        agreement: the kinds of values that may be in them.
    """

    __slots__ = ("_is_lossless", "_is_replaceable", "_keep", "_limit", "_names", "_pack", "_packing", "_used")

    def __init__(self, limit: int = DEFAULT_LIMIT, agreement: Agreement = PLAIN) -> None:
        self._limit = limit
        self._keep = min(limit, KEEP)
        self._names = Names()
        self.agree(agreement)

    def agree(self, agreement: Agreement) -> None:
        """The kinds of values that may be in messages from now on."""
        self._is_lossless = agreement.fallback is not None
        self._packing = Packing(agreement, self._limit, self._is_lossless)
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
                check(value, self._is_lossless)
            pack = self._pack
            packed = pack(value)
        except Exception:  # the general way finds out what is wrong
            return self._frame(["ok", None, value], (value,), _NOTHING)
        size = len(packed) + 5
        if size > self._keep:
            self._check_size(size)
        return (VALUES[size] if size < SHORT else VALUE.pack(size, VALUE_HEAD)) + packed

    def encode_request(
        self,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        epoch: int,
        meta: RequestMeta | None = None,
        name: str | None = None,
    ) -> bytes | ConditionalFrame:
        """The frame of a :class:`Request` with these fields; raises as :meth:`encode`.

        Args:
            args, kwargs, epoch, meta: of the request.
            name: the first argument, before ``args``; None for none.
        """
        used = self._used
        if used:
            used.clear()
        if kwargs or meta is not None or epoch < FIRST_EPOCH:
            whole = args if name is None else (name, *args)
            frame = self._frame_with_fields(whole, kwargs, epoch, meta)
        else:
            try:
                for value in args:
                    if type(value) not in SCALARS:
                        check(value, self._is_lossless)
                pack = self._pack
                items = pack(args)
                first = self._names[name]
                size = len(items) + len(first) + 11
                if size > self._keep:
                    self._check_size(size)
                # This is cheaper than a head and items[1:].
                count = len(args)
                head = NAMED_REQUEST_HEADS[count] if first else REQUEST_HEADS[count]
                frame = items.replace(HEADERS[count], pack_request(size, head, epoch) + first, 1)
            except EncodeError:
                raise
            except Exception:  # the general way finds out what is wrong, or knows more items and larger epochs
                whole = args if name is None else (name, *args)
                frame = self._frame(plain_request(whole, kwargs, epoch), whole, kwargs)
        if used:
            return self._conditional(frame, args if name is None else (name, *args), kwargs, epoch, meta)
        return frame

    def _conditional(
        self, frame: bytes, args: Sequence[Any], kwargs: dict[str, Any], epoch: int, meta: RequestMeta | None
    ) -> ConditionalFrame:
        """The frame with what a worker must have agreed upon, and what another worker gets."""
        used, fallback, otherwise = dict(self._used), self._packing.agreement.fallback, None
        if fallback is not None and fallback.offer in used and self._is_replaceable:
            other = Encoder(self._limit, self._packing.agreement.without_fallback())
            with contextlib.suppress(EncodeError):
                otherwise = other.encode_request(args, kwargs, epoch, meta)
        return ConditionalFrame(frame, used, otherwise)

    def _frame_with_fields(
        self, args: Sequence[Any], kwargs: dict[str, Any], epoch: int, meta: RequestMeta | None
    ) -> bytes:
        """The frame of a request with more in its meta than the epoch."""
        items = None
        if FIRST_EPOCH <= epoch <= LAST_EPOCH and len(args) <= ITEMS and type(args) is tuple:
            try:
                for value in args:
                    if type(value) not in SCALARS:
                        check(value, self._is_lossless)
                if meta is None:
                    for key, value in kwargs.items():
                        if type(key) is not str or type(value) not in SCALARS:
                            check({key: value}, self._is_lossless)
                    items = self._pack((kwargs, "q", epoch, *args))
                elif meta.has_timeout and not (kwargs or meta.concerns_aspects):
                    items = self._pack((meta.timeout, *args))
            except Exception:  # the general way finds out what is wrong
                pass
        if items is None:
            values = args if meta is None else (*args, meta.context, meta.others)
            return self._frame(plain_request(args, kwargs, epoch, meta), values, kwargs)
        size = len(items) + (7 if meta is None else 13)
        if size > self._keep:
            self._check_size(size)
        count = len(args)
        if meta is None:
            return items.replace(HEADERS[count + NAMED_FIELDS], NAMED.pack(size, NAMED_HEADS[count]), 1)
        head = TIMED.pack(size, TIMED_HEADS[count], epoch, TIMEOUT_KEY)
        return items.replace(HEADERS[count + TIMED_FIELDS], head, 1)

    def _frame(self, plain: list[Any], values: Sequence[Any], named_values: dict[str, Any]) -> bytes:
        try:
            for value in values:
                if type(value) not in SCALARS:
                    check(value, self._is_lossless)
            if named_values:
                check(named_values, self._is_lossless)
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
        """That of a copy in which everything can travel; or the error that says what cannot, and why."""
        self._used.clear()
        # With a separate packing: a copy may run code of the application, which may have another message written by
        # this encoder.
        packing = Packing(self._packing.agreement, self._limit)
        body = body_of_copy(plain, error, packing)
        self._used.update(packing.used)
        self._is_replaceable = not packing.needs_fallback  # by a frame without the fallback
        return body


A_DONE = Done()
DONE = Encoder().encode(A_DONE)
DONE_LENGTH = len(DONE) - LENGTH.size


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
        data, start = self._chunk, 0
        length, head, epoch = unpack_request(data)
        if length == DONE_LENGTH and data.startswith(DONE):
            start = len(DONE)  # the next request comes together with it
            length, head, epoch = unpack_request(data, start)
        if length != count - start - 4 or length > self._limit or self._partial:
            return self._several(count)
        if head not in REQUEST_ITEMS:
            read, header = READERS.get(head, ANY)
            message = read(data, start, count, header, epoch, self._unpacking)
            return [A_DONE, message] if start else [message]
        # What read_request does, without its frame.
        start += 15
        data[start] = REQUEST_ITEMS[head]
        items = data[start:count]
        try:
            args = unpackb(items, ext_hook=self._hook, strict_map_key=False, timestamp=3)
        except Exception as error:
            args = unpack_again(items, self._unpacking, error)
        request = new(Request)  # a call of the class takes twice as long
        request.args = args
        request.kwargs = {}
        request.epoch = epoch
        request.meta = None
        request.used = NOTHING_USED
        if self._used:
            note_used(request, self._unpacking)
        return [request] if start == 15 else [A_DONE, request]

    def _several(self, count: int) -> list[Message]:
        """The messages of a read that is not just one frame."""
        data: bytearray | memoryview = self._chunk
        start, end, limit = 0, count, self._limit
        if self._partial:
            data = self._joined(count)
            end = len(data) - REQUEST.size
        messages: list[Message] = []
        while end - start >= 4:
            if end - start >= len(DONE) and bytes(data[start : start + len(DONE)]) == DONE:
                messages.append(A_DONE)
                start += len(DONE)
                continue
            length, head, epoch = unpack_request(data, start)
            stop = start + 4 + length
            if stop > end or length > limit:
                self._check(length)
                break
            read, header = READERS.get(head, ANY)
            messages.append(read(data, start, stop, header, epoch, self._unpacking))
            start = stop
        if start < end:
            self._partial += data[start:end]
        return messages

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
