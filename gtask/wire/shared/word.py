"""What stands in a frame for a value in shared memory: the number of its descriptor, and what its bytes are.

It is an extension type that holds the array ``[number, size, code, head, offset, is_frozen]``: the number of the
descriptor, how many bytes the value has, the extension type that it is of in a frame (0 for bytes), what stands there
before the data, where in the memory the data begin, and whether the value may not be changed where it arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from gtask.wire.limits import LimitExceededError
from gtask.wire.values.kinds import SHARED
from gtask.wire.values.unpacking import ReadOnceError

if TYPE_CHECKING:
    from gtask.wire.values.holes import Part
    from gtask.wire.values.kinds import Packing
    from gtask.wire.values.unpacking import Unpacking

__all__ = ["never", "packed", "value_of"]

FIELDS = (int, int, int, bytes, int, bool)
MOST = 70 * 1024
"""Bytes of such a word."""


def packed(number: int, part: Part, offset: int, is_frozen: bool) -> bytes:
    """The word in the form in which it stands in a frame."""
    fields = [number, part.data.nbytes, part.code, part.head, offset, is_frozen]
    word: bytes = msgpack.packb(msgpack.ExtType(SHARED, msgpack.packb(fields)))
    return word


def never(value: Any, packing: Packing) -> bytes:
    """No value is of this kind by its class."""
    raise TypeError("a word about shared memory")


def value_of(data: bytes, unpacking: Unpacking) -> Any:
    """The value for which a word stands.

    Raises:
        ReadOnceError: the message may be read again; a descriptor is taken once.
        LimitExceededError: the message has more shared memory than this side allows.
        ValueError, OSError, MemoryError: there is no such value.
    """
    if not unpacking.is_final:
        raise ReadOnceError
    agreement, channel = unpacking.agreement, unpacking.agreement.channel
    fields, end = unpacking.head(data, MOST, len(FIELDS))
    if type(fields) is not list or [*map(type, fields)] != [*FIELDS] or end != len(data) or channel is None:
        raise ValueError("a word about shared memory that is none")
    number, size, code, head, offset, is_frozen = fields
    kind = agreement.kinds.by_code.get(code)
    is_known = not code or (kind is not None and kind.build is not None and kind.offer in agreement.agreed)
    if size < 1 or offset < 0 or not is_known:
        raise ValueError("a word about shared memory that is none")
    unpacking.shared += offset + size
    if unpacking.shared > channel.limit:
        raise LimitExceededError(
            f"a message has more than {channel.limit} bytes in shared memory, which is the limit (limit_shared)"
        )
    if kind is None or kind.build is None:
        return channel.read(number, offset, size)
    return kind.build(head, channel.mapped(number, offset, size), not is_frozen, unpacking)
