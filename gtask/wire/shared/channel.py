"""The channel: the second socket of a connection, which takes descriptors of shared memory to the peer.

The connection is read without a look for descriptors, which would cost time in each call; the kernel drops those that
come there. So the client sends one end of a socket pair with its greeting. Each side sends a descriptor through the
channel, under a number, before it sends the frame that has the number. A number that no frame has is passed over.
"""

from __future__ import annotations

import _socket as socket  # that of the standard library may be gevent's, and wait
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import FileIO
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from gtask.wire.shared import memory, word

if TYPE_CHECKING:
    from gtask.wire.values.holes import Part

__all__ = ["Channel", "adopted", "open_channel"]

NUMBER, INT = struct.Struct("!Q"), struct.Struct("i")
CLOEXEC, NOSIGNAL = getattr(socket, "MSG_CMSG_CLOEXEC", 0), getattr(socket, "MSG_NOSIGNAL", 0)
FLAGS = socket.MSG_DONTWAIT | CLOEXEC
ROOM = socket.CMSG_SPACE(INT.size)
MESSAGE = NUMBER.size, ROOM, FLAGS
flat, INTS, RIGHTS = chain.from_iterable, INT.iter_unpack, itemgetter(2)


def open_channel(sock: Any, limit: int) -> Channel | None:
    """A channel beside a connection, of which the peer has nothing yet.

    Args:
        sock: the connection.
        limit: bytes of shared memory that a message may name.

    Returns:
        None if there can be no channel: not a unix socket, no such memory here, or no descriptors left.
    """
    if getattr(sock, "family", None) != socket.AF_UNIX or not limit or not memory.is_here():
        return None
    ends: tuple[Any, ...] = ()
    try:
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Channel(ends[0], limit, sock, ends[1])
    except OSError:
        return None
    except BaseException:  # an interruption: nobody will have them
        for end in ends:
            end.close()
        raise


def adopted(sock: Any, space: memoryview, limit: int) -> tuple[int, Channel | None]:
    """Read the first bytes of a unix socket, and the peer's end of a channel, if one comes with them.

    Args:
        sock: the connection.
        space: for the bytes.
        limit: bytes of shared memory that a message may name; 0 if none may.

    Returns:
        how many bytes have come; the channel.
    """
    count, ancillary, _, _ = sock.recvmsg_into([space], ROOM, CLOEXEC)
    first, *others = [*flat(flat(map(INTS, map(RIGHTS, ancillary))))] or [-1]
    for descriptor in others:
        os.close(descriptor)
    if first < 0:
        return count, None
    try:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, first)
    except OSError:  # it is no socket
        os.close(first)
        return count, None
    if limit:
        return count, Channel(end, limit)
    end.close()
    return count, None


class Channel:
    """One end of it.

    Args:
        sock: the end.
        limit: bytes of shared memory that a message may name.
        connection, other: the connection by which the peer's end is yet to be sent, and that end.
    """

    __slots__ = ("_connection", "_number", "_other", "_socket", "limit")

    def __init__(self, sock: Any, limit: int, connection: Any = None, other: Any = None) -> None:
        self._socket = sock
        self._connection, self._other = connection, other
        self._number = 0
        self.limit = limit

    @property
    def remark(self) -> str:
        """What is said of the limit where a value is too large."""
        return f", or {self.limit} through shared memory (limit_shared)"

    def greet(self, data: bytes) -> None:
        """Send the first bytes of the connection, and the peer's end with them; raises OSError."""
        self._connection.sendmsg([data], [_rights(self._other.fileno())])
        self._let_go()

    def _let_go(self) -> None:
        if self._other is not None:
            self._other.close()
        self._connection = self._other = None

    def put(self, parts: Sequence[Part]) -> list[bytes] | None:
        """Send large values, and give what stands for each in the frame.

        Returns:
            None if they cannot be sent so: over the limit, no memory, no descriptors, too many on their way.
        """
        if sum(part.data.nbytes for part in parts) > self.limit:
            return None
        try:
            return [self._told(part) for part in parts]
        except OSError:
            return None

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of the memory of this number, which has come; raises ValueError, OSError, MemoryError."""
        value: bytes = self._with(number, offset + size, lambda descriptor: memory.read(descriptor, size, offset))
        return value

    def mapped(self, number: int, offset: int, size: int) -> Any:
        """The same as memory that may be changed, without a copy."""
        return self._with(number, offset + size, lambda descriptor: memory.map_private(descriptor, offset, size))

    def _with(self, number: int, size: int, use: Callable[[int], Any]) -> Any:
        """What comes of the file of this number, which is closed then."""
        found = -1
        while found < number:
            data, files, flags = self._received()
            try:
                if len(files) != 1 or len(data) != NUMBER.size or flags & socket.MSG_CTRUNC:
                    break
                found = NUMBER.unpack(data)[0]
                if found == number:
                    memory.check(files[0].fileno(), size)
                    return use(files[0].fileno())
            finally:
                for file in files:
                    file.close()
        raise ValueError(
            f"a frame names shared memory {number}, and it has not come, or this process has no descriptor left"
        )

    def _received(self) -> tuple[bytes, list[FileIO], int]:
        """The next message, with files that close themselves when they are dropped. They are made in one step, without
        a line of Python in between, where an interruption may strike."""
        message: Any = b"", (), 0, None
        try:
            files = [*map(FileIO, flat(flat(map(INTS, map(RIGHTS, (message := self._socket.recvmsg(*MESSAGE))[1])))))]
        except BlockingIOError:
            files = []
        except OSError:  # it is a directory, for one
            files = []
            for descriptor in flat(flat(map(INTS, map(RIGHTS, message[1])))):
                with suppress(OSError):
                    os.close(descriptor)
        return message[0], files, message[2]

    def close(self) -> None:
        """Close it, and with it what is on its way."""
        self._let_go()
        self._socket.close()

    def _told(self, part: Part) -> bytes:
        descriptor = None if part.born is None else part.born.frozen(part.owner)
        if part.born is not None and descriptor is not None:
            return word.packed(self._send(descriptor), part, part.born.offset_of(part.data), is_frozen=True)
        with memory.make(part.data) as file:
            number = self._send(file.fileno())
            told = word.packed(number, part, 0, is_frozen=False)
            part.lie_in(memory.map_private(file.fileno(), 0, part.data.nbytes))
        return told

    def _send(self, descriptor: int) -> int:
        self._number += 1
        self._socket.sendmsg([NUMBER.pack(self._number)], [_rights(descriptor)], socket.MSG_DONTWAIT | NOSIGNAL)
        return self._number


def _rights(descriptor: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, INT.pack(descriptor)
