"""The end of a worker's stream: what the master says for a dead worker, and which replies before that are whole.

A worker may die half way through a reply. What the master then appends must not be taken for the reply's rest. So the
last words are a trailer, ``frame, length of the frame, magic``, looked for only at the very end, after the end of
the stream; and a frame that such a trailer could have completed is withheld until it is clear that it was not.
"""

from __future__ import annotations

from typing import Any

from gtask.errors import ProtocolError
from gtask.wire.bodies import LENGTH, SHORT, VALUE, VALUE_HEAD, VALUES, decode_body, read_value, unpack_again, unpackb
from gtask.wire.frames import Encoder
from gtask.wire.messages import DEFAULT_LIMIT, NOT_PLAIN, LastWords, Message
from gtask.wire.reading import FrameReader
from gtask.wire.values.agreement import PLAIN
from gtask.wire.values.kinds import Unpacking

__all__ = ["ReplyDecoder", "last_words"]

MAGIC = b"\xc1GTK"
END = MAGIC[-1]
START = b"\x92\xa3rip"
"""How the frame of a trailer begins, behind its length."""

LONGEST = 128 * 1024
"""Bytes that a trailer has at the most."""


def last_words(rip: LastWords) -> bytes:
    """The trailer that ends the stream of a dead worker."""
    frame = Encoder(LONGEST - 64).encode(rip)
    return frame + LENGTH.pack(len(frame)) + MAGIC


class ReplyDecoder(FrameReader):
    """Reads what a worker sends, and at the end what its master says for it.

    Args:
        limit: bytes that a frame may have.
    """

    __slots__ = ("withheld",)

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        super().__init__(limit)
        self.withheld = False
        """Whether it waits to see if the stream ends here. If nothing comes, call :meth:`settle`."""

    def plain_value(self, count: int) -> Any:
        """The value, if the next ``count`` bytes are one whole reply with nothing but a value; else NOT_PLAIN.

        In the latter case :meth:`received` is to be called. Raises as that.
        """
        chunk = self._chunk
        length = count - 4
        if length < 6 or length > self._limit or self._partial or chunk[count - 1] == END:
            return NOT_PLAIN
        if not chunk.startswith(VALUES[length] if length < SHORT else VALUE.pack(length, VALUE_HEAD)):
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
        """As :meth:`FrameReader.received`; some messages may come with the next bytes, or from :meth:`settle`."""
        self._partial += self.space[:count]
        return self._take(settled=False)

    def settle(self) -> list[Message]:
        """The messages that were withheld: the stream goes on.

        Raises:
            ProtocolError: what was withheld is no message.
        """
        rip, start = self._trailer()
        if rip is not None and start in (0, *self._stops()[0]):
            return []  # last words, and no reply is cut: the end of the stream is yet to come
        return self._take(settled=True)

    def ended(self) -> tuple[list[Message], LastWords | None]:
        """After the end of the stream: the messages that had been withheld, and the last words if there are any.

        Raises:
            ProtocolError: there are no last words, and what there is was no message.
        """
        rip, end = self._trailer()
        del self._partial[end:]
        stops, too_long = self._stops()
        messages: list[Message] = []
        self.withheld = False
        try:
            self._check(too_long)
            self._decode_into(messages, stops)
        except ProtocolError:
            if rip is None and not messages:
                raise
            # Otherwise it is half a reply, cut where a shorter one could have ended.
        return messages, rip

    def _take(self, settled: bool) -> list[Message]:
        data = self._partial
        stops, too_long = self._stops()
        rest = len(data) - (stops[-1] if stops else 0)
        begin = self._possible_trailer() if stops or too_long else len(data)
        self.withheld = not settled and (
            too_long > 0 or (bool(stops) and (0 < rest <= LONGEST or begin < len(data) or data.endswith(MAGIC)))
        )
        if self.withheld:
            stops = [stop for stop in stops[:-1] if stop <= begin]
        else:
            self._check(too_long)
        messages: list[Message] = []
        self._decode_into(messages, stops)
        return messages

    def _possible_trailer(self) -> int:
        """Where a trailer begins, if one may: its bytes may pass for the rest of a frame and for further frames."""
        data = self._partial
        at = data.find(START, max(0, len(data) - LONGEST))
        while at >= 0:
            if at >= 4 and len(data) <= at + LENGTH.unpack_from(data, at - 4)[0] + 8:
                return at - 4
            at = data.find(START, at + 1)
        return len(data)

    def _decode_into(self, messages: list[Message], stops: list[int]) -> None:
        start = 0
        with memoryview(self._partial) as data:
            for stop in stops:
                if self._partial.startswith(VALUE_HEAD, start + 4):
                    with data[start + VALUE.size : stop] as packed:
                        messages.append(read_value(packed, self._unpacking))
                else:
                    with data[start + 4 : stop] as body:
                        messages.append(decode_body(body, self._unpacking))
                start = stop
        del self._partial[:start]

    def _stops(self) -> tuple[list[int], int]:
        """Where the whole frames end; and the length that the next one announces, if it is over the limit."""
        data, start = self._partial, 0
        stops: list[int] = []
        while len(data) - start >= 4:
            length = LENGTH.unpack_from(data, start)[0]
            if length > self._limit:
                return stops, length
            start += 4 + length
            if start > len(data):
                break
            stops.append(start)
        return stops, 0

    def _trailer(self) -> tuple[LastWords | None, int]:
        data = self._partial
        end = len(data)
        if end < 8 or not data.endswith(MAGIC):
            return None, end
        size = LENGTH.unpack_from(data, end - 8)[0]
        start = end - 8 - size
        if not 4 <= size <= LONGEST or start < 0:
            return None, end
        try:
            with memoryview(data) as view, view[start + 4 : end - 8] as body:
                rip = decode_body(body, Unpacking(PLAIN))
        except ProtocolError:
            return None, end
        return (rip, start) if isinstance(rip, LastWords) else (None, end)
