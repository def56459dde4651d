"""From bytes to messages, in the general way: a read may have several frames, or part of one.

What comes in is not trusted: a length over the limit is refused before anything is allocated for it, a bad frame is a
ProtocolError, and memory grows only as bytes arrive.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

from gtask.errors import ProtocolError
from gtask.wire.bodies import ARRAY, LENGTH, REQUEST, REQUEST_ITEMS, Data, read_any, read_request
from gtask.wire.left import LEFT_HEAD, read_left
from gtask.wire.limits import DEFAULTS, LimitExceededError, Limits
from gtask.wire.malformed import or_malformed
from gtask.wire.messages import Message
from gtask.wire.named import NAMED_FIELDS, NAMED_HEADS, TIMED_HEADS, read_named, read_timed
from gtask.wire.values.agreement import PLAIN, Agreement
from gtask.wire.values.unpacking import Unpacking

__all__ = ["ANY", "CHUNK", "READERS", "FrameReader", "check_first"]

CHUNK = 64 * 1024
"""The size of the buffer of one read, in bytes."""

LARGE = 4 * CHUNK
"""Bytes of the smallest frame that is read into a mapping of its own. A page of the mapping costs nothing before bytes
have come into it."""

READERS: dict[bytes, tuple[Callable[[Data, int, int, int, int, Unpacking], Message], int]] = {
    **{head: (read_request, header) for head, header in REQUEST_ITEMS.items()},
    **{head: (read_named, ARRAY + count + NAMED_FIELDS) for count, head in enumerate(NAMED_HEADS)},
    **{head: (read_timed, ARRAY + count) for count, head in enumerate(TIMED_HEADS)},
    LEFT_HEAD: (read_left, 0),
}
"""What reads a frame, by its head, with the header that it needs."""
ANY = (read_any, 0)


def check_first(head: bytes, limits: Limits) -> None:
    """Refuse a greeting that is too long.

    Args:
        head: the first bytes of the stream, at least four unless they have not come.
        limits: of this side.

    Raises:
        ProtocolError: it is no greeting, or one that no peer of gtask sends.
    """
    length = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
    if length > limits.first_message:
        raise ProtocolError(
            f"the peer announced a first message of {length} bytes and the limit is {limits.first_message} "
            "(first_message); is it a gtask peer?"
        )


class FrameReader:
    """Reads the messages of one connection.

    The owner of the socket reads into :attr:`space` and says by :meth:`received` how much came::

        count = sock.recv_into(reader.space)
        for message in reader.received(count): ...

    Args:
        limits: of this side. The length of a frame that is larger is refused as soon as it is read.
    """

    __slots__ = (
        "_chunk", "_come", "_hook", "_items", "_limit", "_memory", "_partial", "_total", "_unpacking", "_used",
        "_usual", "space",
    )  # fmt: skip

    def __init__(self, limits: Limits = DEFAULTS) -> None:
        self._limit, self._items = limits.message, limits.items
        self._usual = min(self._limit, self._items)  # bytes of a frame at which none of both can strike
        self._chunk = bytearray(CHUNK + REQUEST.size)  # a head may be looked for where a frame is shorter
        self._partial = bytearray()
        self._come = self._total = 0  # bytes of the large frame that have come, and that it has, if there is one
        self._memory: mmap.mmap  # where they are
        self.space = memoryview(self._chunk)[:CHUNK]
        """Where the next bytes are to be put."""
        self.agree(PLAIN)

    def agree(self, agreement: Agreement) -> None:
        """The kinds of values that may be in messages from now on."""
        self._unpacking = Unpacking(agreement, items=self._items)
        self._used = self._unpacking.used
        self._hook = self._unpacking.hook

    @property
    def midway(self) -> bool:
        """Whether part of a frame has come and its rest has not."""
        return bool(self._partial)

    def received(self, count: int) -> list[Message]:
        """The messages that became whole with the next ``count`` bytes in :attr:`space`.

        Raises:
            ProtocolError: a frame is too long or is no message. Behind other messages it is raised when they
                have been iterated over. The reader cannot be used after it.
        """
        data: bytearray | memoryview = self._chunk
        start, end, limit = 0, count, self._limit
        if self._total:
            if not self._is_whole(count):
                return []
            data, self._partial, end = memoryview(self._memory), bytearray(), self._come
            del self._memory
        elif self._partial:
            data = self._joined(count)
            end = len(data) - REQUEST.size
        messages: list[Message] = []
        try:
            while end - start >= 4:
                length, head, epoch = REQUEST.unpack_from(data, start)
                stop = start + 4 + length
                if stop > end or length > limit:
                    self._check(length)
                    break
                read, header = READERS.get(head, ANY) if length <= self._items else ANY
                messages.append(read(data, start, stop, header, epoch, self._unpacking))
                start = stop
            if start < end:
                self._partial += data[start:end]
                self._look_ahead()
        except ProtocolError as error:
            return or_malformed(messages, error)
        return messages

    def _look_ahead(self) -> None:
        """If a large frame has begun, have its rest come to where it stays until it is read."""
        if len(self._partial) < LENGTH.size:
            return
        self._total = total = LENGTH.unpack_from(self._partial)[0] + LENGTH.size
        if not LARGE <= total <= self._limit + LENGTH.size:
            self._total = 0
            return
        self._memory = room = self._set_aside(total + CHUNK)  # a read may go on behind the end of the frame
        self._come = len(self._partial)
        room[: self._come] = self._partial
        self.space = memoryview(room)[self._come :]

    def _set_aside(self, size: int) -> mmap.mmap:
        try:
            return mmap.mmap(-1, size)
        except (OSError, MemoryError):
            raise LimitExceededError(f"there is no memory for a message of {size - CHUNK} bytes") from None

    def _is_whole(self, count: int) -> bool:
        """Note that ``count`` bytes of a large frame have come; gives whether it is whole now."""
        self._come += count
        if self._come < self._total:
            self.space = self.space[count:]
            return False
        self._total = 0
        self.space = memoryview(self._chunk)[:CHUNK]
        return True

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
                f"the peer announced a message of {length} bytes and the limit is {self._limit} (limit_message); "
                "is it a gtask peer?"
            )
