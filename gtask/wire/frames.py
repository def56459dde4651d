"""Messages to bytes and back: 4 bytes of length, big-endian, then one msgpack array.

Here the usual request and the usual value are written and read, in a short way. Anything else goes the general way, by
:mod:`gtask.wire.writing` and :mod:`gtask.wire.reading`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gtask.wire.bodies import (
    DONE_BODY,
    FIRST_EPOCH,
    HEADERS,
    LENGTH,
    REQUEST,
    REQUEST_HEADS,
    REQUEST_ITEMS,
    SHORT,
    VALUE,
    VALUE_HEAD,
    VALUES,
    request_of,
    unpack_again,
    unpackb,
)
from gtask.wire.limits import DEFAULTS, Limits
from gtask.wire.mark import BYTE, MARK, SIXTEEN
from gtask.wire.messages import SERVED, Done, Message, Request, RequestMeta, Value
from gtask.wire.named import TIMED, frame_of, packed_timeout
from gtask.wire.pieces import LargeFrame, joined
from gtask.wire.reading import ANY, READERS, FrameReader
from gtask.wire.values.agreement import PLAIN, Agreement, ConditionalFrame
from gtask.wire.values.culprit import check
from gtask.wire.values.kinds import LIGHT
from gtask.wire.writing import FrameWriter, Names

__all__ = ["Decoder", "Encoder"]

pack_request, unpack_request = REQUEST.pack, REQUEST.unpack_from
NAMED_REQUEST_HEADS = REQUEST_HEADS[1:]
"""By the number of items behind the first."""


class Encoder(FrameWriter):
    """Writes the messages of one connection, and the usual ones in a short way.

    Args:
        limit, agreement: as of :class:`gtask.wire.writing.FrameWriter`.
    """

    __slots__ = ("_names",)

    def __init__(self, limit: int = DEFAULTS.message, agreement: Agreement = PLAIN) -> None:
        super().__init__(limit, agreement)
        self._names = Names()

    def encode(self, message: Message) -> bytes:
        """The frame of a message.

        Raises:
            EncodeError: a value in it cannot travel, or the frame would be over the limit.
        """
        if type(message) is Value and message.ld is None:
            return joined(self.encode_value(message.value))
        if type(message) is Request:
            frame = self.encode_request(message.args, message.kwargs, message.epoch, message.meta)
            return joined(frame.ready(self._agreement)) if isinstance(frame, ConditionalFrame) else frame
        return super().encode(message)

    def encode_reply(self, message: Message) -> bytes:
        """The frame of a message of a server, which last words cannot complete; raises as :meth:`encode`."""
        return self.stuffed_if_needed(self.encode(message))

    def encode_value(self, value: Any) -> bytes | LargeFrame:
        """The frame of a :class:`Value` that has no ``ld``, as :meth:`encode_reply` makes it; raises as that."""
        try:
            if type(value) not in LIGHT and check(value, self._is_lossless):
                return self.reply(["ok", None, value], value)
            pack = self._pack
            packed = pack(value)
        except Exception:  # the general way finds out what is wrong
            return self.reply(["ok", None, value], value)
        size = len(packed) + 5
        if size > self._keep:
            self._check_size(size)
        if packed[-1] == BYTE or (size > SIXTEEN and MARK in packed):  # as needs_stuffing says
            return self.stuffed(VALUE.pack(size, VALUE_HEAD) + packed)
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
        try:
            if kwargs or epoch < FIRST_EPOCH or (meta is not None and (meta.concerns_aspects or not meta.has_timeout)):
                whole = (*args,) if name is None else (name, *args)
                frame = frame_of(whole, kwargs, epoch, meta, self._pack, self._is_lossless)
                size = len(frame) - LENGTH.size
            else:
                for value in args:
                    if type(value) not in LIGHT and check(value, self._is_lossless):
                        return self.request(args if name is None else (name, *args), kwargs, epoch, meta)
                pack = self._pack
                items = pack(args)
                count, first = len(args), self._names[name]
                head = NAMED_REQUEST_HEADS[count] if first else REQUEST_HEADS[count]
                if meta is not None:
                    head, first = TIMED[head], (meta.packed or packed_timeout(meta)) + first
                size = len(items) + len(first) + 11
                # This is cheaper than a head and items[1:].
                frame = items.replace(HEADERS[count], pack_request(size, head, epoch) + first, 1)
        except Exception:  # the general way finds out what is wrong, or knows more items and larger epochs
            return self.request(args if name is None else (name, *args), kwargs, epoch, meta)
        if size > self._keep:
            self._check_size(size)
        if used:
            return self._conditional(frame, args if name is None else (name, *args), kwargs, epoch, meta)
        return frame


A_DONE, DONE_LENGTH = Done(), len(DONE_BODY)
DONE = LENGTH.pack(DONE_LENGTH) + DONE_BODY


class Decoder(FrameReader):
    """Reads the messages of one connection, and a read that is just one usual request in a short way."""

    __slots__ = ("_request",)

    def __init__(self, limits: Limits = DEFAULTS) -> None:
        super().__init__(limits)
        self._request = Request(SERVED)
        """The usual request that was read last. Once it is served it becomes the next one: a new one takes longer."""

    def received(self, count: int) -> list[Message]:
        """As :meth:`FrameReader.received`."""
        data, start, end = self._chunk, 0, count
        length, head, epoch = unpack_request(data)
        if length == DONE_LENGTH and data.startswith(DONE):
            start = len(DONE)
            if start == count and not self._partial:
                return [A_DONE]
            # The next request comes together with it.
            length, head, epoch = unpack_request(data, start)
        if length != end - start - 4:
            end = start + 4 + length  # perhaps the end of the checkout comes right behind it
            if end + len(DONE) != count or not data.startswith(DONE, end):
                return FrameReader.received(self, count)  # each call would pay for super()
        if length > self._usual or self._partial:
            return FrameReader.received(self, count)
        if head not in REQUEST_ITEMS:
            read, header = READERS.get(head, ANY)
            message = read(data, start, end, header, epoch, self._unpacking)
        else:  # what read_request does, without its frame
            data[start + 15] = REQUEST_ITEMS[head]
            items = data[start + 15 : end]
            try:
                args = unpackb(items, ext_hook=self._hook, strict_map_key=False, timestamp=3)
            except Exception as error:
                args = unpack_again(items, self._unpacking, error)
            message = request = self._request
            if request.args is not SERVED:
                message = request = self._request = Request(SERVED)
            request.args, request.epoch = args, epoch
            if self._used:
                message = request_of(args, {}, epoch, None, self._unpacking)
        messages = [A_DONE, message] if start else [message]
        if end < count:
            messages.append(A_DONE)
        return messages
