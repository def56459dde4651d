"""What reads the extension types of a decoder's messages, and counts the items of a message that may have many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack

from gtask.wire.limits import DEFAULTS, too_many_items
from gtask.wire.values.collisions import MOST_COLLISIONS, checked_map

if TYPE_CHECKING:
    from gtask.wire.values.agreement import Agreement

__all__ = ["ManyExtensionsError", "ReadOnceError", "Unpacking"]

_T = TypeVar("_T")


class ManyExtensionsError(ValueError):
    """A message has many extension types, perhaps keys of one hash: it is to be read again, with a look at its keys."""


class ReadOnceError(ValueError):
    """A message has a value that can be read only once: it is to be read again, and whatever it has, for good."""


class Budget:
    """The items that a message may still have.

    Args:
        limit: their number.
    """

    __slots__ = ("_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._left = self._limit = limit

    def charge(self, item: _T) -> _T:
        """Count an item, which is returned; raises LimitExceededError."""
        self._left -= 1
        if self._left < 0:
            raise too_many_items(self._limit)
        return item


class Unpacking:
    """Reads the extension types of one decoder's messages.

    Args:
        agreement: what the two sides have agreed upon.
        errors: how text that is no UTF-8 is read, as :meth:`bytes.decode` takes it.
        items: lists, maps and extension types that a message may have. One with fewer bytes cannot have more.

    Attributes:
        is_final: whether what it reads is not read again.
        shared: bytes in shared memory of the message at hand; only where it is final.
        used: the offers under which values of the message at hand have come that are yet to be opened.
        left: how many extension types are read before a :class:`ManyExtensionsError`; infinite where maps are looked
            at, or cannot be.
    """

    __slots__ = ("_budget", "agreement", "depth", "errors", "is_final", "items", "left", "shared", "used")

    def __init__(self, agreement: Agreement, errors: str = "strict", items: int = DEFAULTS.items) -> None:
        self.agreement = agreement
        self.errors = errors
        self.items = items
        self._budget = Budget(items)
        self.depth = self.shared = 0
        self.is_final = False
        self.left: float = MOST_COLLISIONS
        self.used: set[str] = set()

    def hook(self, code: int, data: bytes) -> Any:
        """What the unpacker asks for each extension type."""
        self.left -= 1
        if self.left < 0:
            raise ManyExtensionsError
        kind = self.agreement.kinds.by_code.get(code)
        if kind is None:
            raise ValueError(f"unknown extension type {code}")
        if kind.offer and kind.offer not in self.agreement.agreed:
            raise ValueError(f"{kind.noun}, upon which both sides have not agreed")
        return kind.unpack(data, self)

    def _charged_hook(self, code: int, data: bytes) -> Any:
        return self._budget.charge(self.hook(code, data))

    def _map(self, pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
        return self._budget.charge(checked_map(pairs))

    def deeper(self) -> Unpacking:
        """The same within a value that is itself an extension type."""
        inner = Unpacking(self.agreement, self.errors, self.items)
        inner.depth, inner.used, inner.left = self.depth + 1, self.used, math.inf  # no map lies in it
        inner._budget = self._budget
        return inner

    def careful(self, errors: str = "strict", is_final: bool = False) -> Unpacking:
        """The same, but it looks at each list and at the keys of each map; ``errors`` and ``is_final`` as in the
        class."""
        other = Unpacking(self.agreement, errors, self.items)
        other.used, other.left, other.is_final = self.used, math.inf, is_final
        return other

    def value(self, packed: bytes | bytearray | memoryview, *, use_list: bool = True) -> Any:
        """The value of a message's bytes."""
        return msgpack.unpackb(
            packed,
            use_list=use_list,
            ext_hook=self._charged_hook,
            list_hook=self._budget.charge,
            object_pairs_hook=self._map,
            strict_map_key=False,
            unicode_errors=self.errors,
            timestamp=3,
        )

    def head(self, data: bytes, size: int, items: int) -> tuple[Any, int]:
        """A value without maps at the beginning of data, and where it ends.

        Args:
            size: bytes that it may have.
            items: items that an array in it may have.
        """
        unpacker = msgpack.Unpacker(
            max_buffer_size=size, max_array_len=items, max_map_len=0, unicode_errors=self.errors
        )
        unpacker.feed(data[:size])
        value = unpacker.unpack()
        return value, unpacker.tell()
