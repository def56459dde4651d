"""Large values are taken out of a message, so that they are neither packed nor copied. A hole stands for each.

They are found where most messages have them: as arguments and results, and in lists, tuples and maps of these. Anywhere
else a large value is packed like any other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgpack

from gtask.wire.values.culprit import places, shallow
from gtask.wire.values.kinds import LIGHT, Packing, is_large

if TYPE_CHECKING:
    from gtask.wire.shared.born import Born

__all__ = ["Holes", "Part"]

HOLE = 127
"""The code of the extension type that stands in a hole until the message is split there."""

NONCE, INDEX = 12, struct.Struct("!I")
BIN, EXT = struct.Struct("!BI"), struct.Struct("!BIb")
BIN_32, EXT_32, FIXEXT_16 = 0xC6, 0xC9, 0xD8


class Part:
    """A large value.

    Args:
        owner: the value.
        data: its bytes.
        code: of its extension type; 0 for bytes.
        head: what stands before its bytes in the extension type.
    """

    __slots__ = ("_is_fixed", "code", "data", "head", "owner")

    def __init__(self, owner: Any, data: memoryview, code: int = 0, head: bytes = b"") -> None:
        self.owner = owner
        self.data = data
        self.code = code
        self.head = head
        self._is_fixed = type(data.obj) is bytes

    @property
    def header(self) -> bytes:
        """What stands before its bytes in a frame."""
        if not self.code:
            return BIN.pack(BIN_32, self.data.nbytes)
        return EXT.pack(EXT_32, len(self.head) + self.data.nbytes, self.code) + self.head

    @property
    def born(self) -> Born | None:
        """What the bytes lie in, if that was made to be shared."""
        holder: Any = self.data.obj
        while holder is not None and not hasattr(holder, "born"):
            holder = getattr(holder, "obj" if type(holder) is memoryview else "base", None)
        return getattr(holder, "born", None)

    def wait(self) -> None:
        """The value is not sent at once: from now on the application cannot change it."""
        if self.born is None or self.born.frozen(self.owner) is None:
            self.keep()

    def keep(self) -> None:
        """Copy the bytes, unless nobody can change them."""
        if not self._is_fixed:
            self.lie_in(bytes(self.data))

    def lie_in(self, memory: Any) -> None:
        """The bytes lie here as well, where nobody can change them: let go of the value itself."""
        self.owner, self.data = memory, memoryview(memory).cast("B")
        self._is_fixed = True


class Holes:
    """The large values of one message.

    Args:
        packing: of the message; it notes the offers under which they travel.

    Attributes:
        parts: those that were taken out.
    """

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._mark = os.urandom(NONCE)  # so that no value looks like it
        self.parts: list[Part] = []

    def without(self, plain: list[Any]) -> list[Any]:
        """A message with holes; what is in the message itself is left as it is."""
        copy = shallow(plain)
        for _, whole, key in places(copy):
            whole[key] = self._taken(whole[key])
        return copy

    def split(self, packed: bytes) -> Sequence[bytes]:
        """The packed message before, between and behind its holes; ``parts`` then are in the order of these."""
        first, *others = packed.split(bytes((FIXEXT_16, HOLE)) + self._mark)
        self.parts = [self.parts[INDEX.unpack_from(segment)[0]] for segment in others]
        return [first, *(segment[INDEX.size :] for segment in others)]

    def _taken(self, value: Any) -> Any:
        """The value with holes; itself if nothing in it is large."""
        kind = type(value)
        if kind in LIGHT:
            return value
        if kind is list or kind is tuple:
            if LIGHT.issuperset(map(type, value)):
                return value
            parts: Any = [self._taken(part) for part in value]
            return value if all(map(_is, parts, value)) else parts
        if kind is dict:
            if LIGHT.issuperset(map(type, value.values())):
                return value
            parts = {key: self._taken(part) for key, part in value.items()}
            return value if all(map(_is, parts.values(), value.values())) else parts
        part = self._part(value) if is_large(value) else None
        if part is None:
            return value
        self.parts.append(part)
        return msgpack.ExtType(HOLE, self._mark + INDEX.pack(len(self.parts) - 1))

    def _part(self, value: Any) -> Part | None:
        """What is sent of a large value; None if it is to be packed."""
        kind = type(value)
        if kind is bytes or kind is bytearray or kind is memoryview:
            data = memoryview(value)
            return Part(value, data.cast("B")) if data.c_contiguous else None
        packing = self._packing
        row = packing.agreement.kinds.of(value)
        if row is None or row.lay_out is None or row.offer not in packing.agreement.agreed:
            return None
        head, data = row.lay_out(value, packing)
        packing.note(row, value)
        return Part(value, data, row.code, head)


def _is(one: Any, other: Any) -> bool:
    return one is other
