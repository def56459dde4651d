"""What a client reads of a worker: replies, and at the end of the stream what the master says for a dead worker.

The last words are a mark and a frame, behind the last whole frame or behind part of one; see :mod:`gtask.wire.mark`.
"""

from __future__ import annotations

import mmap
from typing import Any

from gtask.errors import ProtocolError
from gtask.wire.bodies import LENGTH, SHORT, VALUE, VALUE_HEAD, VALUES, decode_body, read_value, unpack_again, unpackb
from gtask.wire.frames import Encoder
from gtask.wire.limits import DEFAULTS, Limits
from gtask.wire.malformed import or_malformed
from gtask.wire.mark import BYTE, LONGEST, MARK, SIXTEEN, reaches_into_last_words
from gtask.wire.messages import NOT_PLAIN, LastWords, Message
from gtask.wire.reading import FrameReader
from gtask.wire.values.agreement import PLAIN
from gtask.wire.values.unpacking import Unpacking

__all__ = ["ReplyDecoder", "last_words"]


def last_words(rip: LastWords) -> bytes:
    """What ends the stream of a dead worker."""
    return MARK + Encoder(LONGEST - 64).encode(rip)


class ReplyDecoder(FrameReader):
    """Reads what a worker sends, and at the end what its master says for it.

    Args:
        limits: of the client.
    """

    __slots__ = ("_room",)

    def __init__(self, limits: Limits = DEFAULTS) -> None:
        super().__init__(limits)
        self._room = 0
        """Bytes that may come in all before the end of the stream, once a frame is not whole; 0 before that."""

    def plain_value(self, count: int) -> Any:
        """The value, if the next ``count`` bytes are one whole reply with nothing but a value; else NOT_PLAIN.

        In the latter case :meth:`received` is to be called. Raises as that.
        """
        chunk = self._chunk
        length = count - 4
        if length < 6 or length > self._usual or self._partial or chunk[count - 1] == BYTE:
            return NOT_PLAIN
        if not chunk.startswith(VALUES[length] if length < SHORT else VALUE.pack(length, VALUE_HEAD)):
            return NOT_PLAIN
        if length > SIXTEEN and chunk.find(MARK, 0, count) >= 0:
            return NOT_PLAIN
        packed = chunk[9:count]
        try:
            value = unpackb(packed, ext_hook=self._hook, strict_map_key=False, timestamp=3)
        except Exception as error:
            value = unpack_again(packed, self._unpacking, error)
        if self._used:
            self._used.clear()  # received() notes it again
            return NOT_PLAIN
        return value

    def received(self, count: int) -> list[Message]:
        """As :meth:`FrameReader.received`; a frame that is not whole keeps back what comes behind it."""
        messages: list[Message] = []
        try:
            self._read(count, messages)
        except ProtocolError as error:
            return or_malformed(messages, error)
        return messages

    def _read(self, count: int, messages: list[Message]) -> None:
        if self._total:
            total = self._total
            if not self._is_whole(count):
                return
            self._take_large(total, messages)
            count = 0
        data, start = self._partial, 0
        data += self.space[:count]
        while not self._room and len(data) - start >= 4:
            length = LENGTH.unpack_from(data, start)[0]
            stop = start + 4 + length
            if length > self._limit:
                if data[start + 3] != BYTE:
                    self._check(length)
                self._room = LONGEST  # the last words may stand in the place of a length, or of its end
            elif stop > len(data):
                break
            elif reaches_into_last_words(data, start, stop):
                self._room = stop - start + LONGEST
            else:
                messages.append(self._message(data, start, stop))
                start = stop
        del data[:start]
        if not self._room:
            self._look_ahead()
        if self._room and len(data) > self._room:
            self._check(LENGTH.unpack_from(data)[0])
            raise ProtocolError(f"more than {LONGEST} bytes came behind a frame that ends in the byte {BYTE:x}")

    def ended(self) -> LastWords | None:
        """After the end of the stream: the last words, if there are any."""
        if self._total:
            self._partial = bytearray(self._memory[: self._come])
        at = self._partial.find(MARK)
        if at < 0:
            return None
        words = self._words(self._partial[at:].lstrip(MARK[:1]))
        del self._partial[at:]
        return words

    def _take_large(self, total: int, messages: list[Message]) -> None:
        """Take the large frame that is whole now. What has come behind it is what comes next."""
        memory, self._partial, start = self._memory, bytearray(), 0
        del self._memory
        if not reaches_into_last_words(memory, 0, total):
            messages.append(self._message(memory, 0, total))
            start = total
        self._partial += memory[start : self._come]

    def _message(self, whole: bytearray | mmap.mmap, start: int, stop: int) -> Message:
        with memoryview(whole) as data:
            if stop - start <= self._items and data[start + 4 : start + VALUE.size] == VALUE_HEAD:
                with data[start + VALUE.size : stop] as packed:
                    return read_value(packed, self._unpacking)
            with data[start + 4 : stop] as body:
                return decode_body(body, self._unpacking)

    def _words(self, frame: bytearray) -> LastWords | None:
        if len(frame) < 4 or len(frame) != 4 + LENGTH.unpack_from(frame)[0]:
            return None
        try:
            rip = decode_body(frame[4:], Unpacking(PLAIN))
        except ProtocolError:
            return None
        return rip if isinstance(rip, LastWords) else None
