"""The kinds of values beyond msgpack's own: a table with a row for each, its extension type's code and its functions.

:data:`NATIVE` has the kinds that every peer reads. Kinds that both sides must want stand with their offer, in
:mod:`gtask.wire.values.offers`. To add a kind is to add a row.
"""

from __future__ import annotations

import datetime
import decimal
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from gtask.errors import EncodeError
from gtask.wire.values.bases import ChangedError, as_base, base_of, cut, type_name
from gtask.wire.values.collisions import check_hashes

if TYPE_CHECKING:
    from gtask.wire.values.agreement import Agreement
    from gtask.wire.values.unpacking import Unpacking

__all__ = [
    "ARRAY", "LARGE", "LIGHT", "NATIVE", "NESTED_EXT", "PICKLE", "SCALAR", "SCALARS", "SHARED", "UNKNOWN", "Ext",
    "Kind", "Kinds", "NotTransferable", "Packing", "Timestamp", "UnusualError", "is_large", "too_large",
]  # fmt: skip

NESTED_EXT = 16
"""How deep sets may lie in sets. Each level is a C call with 40 KiB of stack, so it needs a bound."""

BIGINT, DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, UUID, SET, FROZENSET, COMPLEX, PICKLE, ARRAY, SCALAR, SHARED = range(
    1, 15
)

SCALARS = frozenset({type(None), bool, int, float, str, bytes})
"""Classes whose instances travel as they stand."""

LIGHT = SCALARS - {bytes}
"""Those of them whose instances are packed, however large they are."""

LARGE = 1024 * 1024
"""Bytes from which on a value stays where it lies until it is sent."""

UNKNOWN = "it is of no kind that can travel"
"""What is said of a value whose class alone says it."""

Ext, Timestamp = msgpack.ExtType, msgpack.Timestamp
Types = tuple[type, ...]


class NotTransferable(TypeError):
    """A value is refused, also where pickles are agreed upon."""


class UnusualError(TypeError):
    """A value cannot be packed as it stands: the message needs a copy, if there is one that can travel."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table.

    Attributes:
        code: of the extension type, 1 to 127.
        types: classes whose instances are of this kind; or a function that returns them, for classes that may not be
            loaded.
        pack: a value's bytes; it raises an exception for a value that cannot travel.
        unpack: the value of these bytes; they may be hostile, and it may raise any exception.
        offer: the offer under which it travels; "" for a kind that every peer reads.
        noun: the kind in an error text, for one under an offer.
        lay_out: of a large value what stands before its data, and the data where they lie; raises as ``pack``. None if
            such values are packed like others.
        build: the value of what has come so: what stands before its data, the memory where they lie, which is its own,
            and whether it may be changed there; raises as ``unpack``.
    """

    code: int
    types: Types | Callable[[], Types]
    pack: Callable[[Any, Packing], bytes]
    unpack: Callable[[bytes, Unpacking], Any]
    offer: str = ""
    noun: str = ""
    lay_out: Callable[[Any, Packing], tuple[bytes, memoryview]] | None = None
    build: Callable[[bytes, Any, bool, Unpacking], Any] | None = None


class Kinds:
    """A table of kinds. A value is of the first kind whose types it is an instance of.

    Args:
        rows: the kinds.
    """

    __slots__ = ("_by_type", "by_code", "rows")

    def __init__(self, rows: tuple[Kind, ...]) -> None:
        self.rows = rows
        self.by_code = {row.code: row for row in rows}
        self._by_type: dict[type, Kind] = {}
        for row in rows:
            for cls in () if callable(row.types) else row.types:
                self._by_type.setdefault(cls, row)

    def of(self, value: Any) -> Kind | None:
        """The kind of a value; None if it has none."""
        cls = type(value)
        return self._by_type.get(cls) or self._of_base(cls)

    def exact(self, cls: type) -> Kind | None:
        """The kind of a class that its row names."""
        return self._by_type.get(cls)

    def claims(self, cls: type) -> bool:
        """Whether a class is of a kind whose classes need not be loaded: instances travel without a pickle, if they
        can, also those that a row before it takes."""
        return any(issubclass(cls, row.types()) for row in self.rows if callable(row.types))

    def _of_base(self, cls: type) -> Kind | None:
        for row in self.rows:
            if issubclass(cls, row.types() if callable(row.types) else row.types):
                return row
        return None


class Packing:
    """Writes the extension types of one encoder's messages.

    Args:
        agreement: what the two sides have agreed upon.
        limit: bytes that a frame may have.
        is_lossless: whether a value that would lose something is an :class:`UnusualError`, for there may be another
            way for it. Otherwise it travels, if what arrives is equal.

    Attributes:
        used: the offers under which values of the message at hand travel, each with a phrase for the first such value.
        needs_fallback: whether one of these values can travel in no other way than by the agreement's fallback.
    """

    __slots__ = ("agreement", "depth", "is_lossless", "limit", "needs_fallback", "used")

    def __init__(self, agreement: Agreement, limit: int, is_lossless: bool = False) -> None:
        self.agreement = agreement
        self.limit = limit
        self.is_lossless = is_lossless
        self.needs_fallback = False
        self.depth = 0
        self.used: dict[str, str] = {}

    def default(self, value: Any) -> msgpack.ExtType:
        """What the packer asks for each value that it does not know; a TypeError where there is no answer."""
        kind = self.agreement.kinds.exact(type(value))
        if kind is None:
            kind = self.agreement.kinds.of(value)
            if kind is None:
                raise TypeError(UNKNOWN)
            if not kind.offer:
                value = self.plain(value)
        if kind.offer:
            if kind.offer not in self.agreement.agreed:
                raise NotTransferable(self.agreement.reasons.get(kind.offer, "both sides have not agreed upon it"))
            packed = kind.pack(value, self)
            self.note(kind, value)
            return Ext(kind.code, packed)
        return Ext(kind.code, kind.pack(value, self))

    def note(self, kind: Kind, value: Any) -> None:
        """A value of a kind that travels under an offer is in the message."""
        self.used.setdefault(kind.offer, f"a value of type {type_name(value)}")

    def plain(self, value: Any) -> Any:
        """What an instance of a subclass arrives as, if that is equal.

        Raises:
            UnusualError: it may not lose its class.
            Exception: there is no such value.
        """
        cls = type(value)
        base = base_of(cls)
        if base is None:
            return value
        if self.is_lossless and not self.agreement.kinds.claims(cls):
            raise UnusualError(f"a {cls.__name__} would arrive as a {base.__name__}")
        return as_base(value, base)

    def hashed(self, value: Any) -> Any:
        """The same for a key, or for a member of a set, which is to be found again; raises as :meth:`plain`."""
        try:
            plain = self.plain(value)
            is_found = bool(plain != plain) or hash(plain) == hash(value)  # NaN is never found
        except ChangedError:
            is_found = False
        if not is_found:
            raise ChangedError(f"{cut(value, 60)} in it, of type {type_name(value)}, would arrive changed")
        return plain

    def deeper(self) -> Packing:
        """The same within a value that is itself an extension type."""
        inner = Packing(self.agreement, self.limit, self.is_lossless)
        inner.depth, inner.used = self.depth + 1, self.used
        return inner

    def body(self, value: Any) -> bytes:
        """A value's bytes, also of text for which UTF-8 has none."""
        packed: bytes = msgpack.packb(value, default=self.default, unicode_errors="surrogatepass")
        return packed


def is_large(value: Any) -> bool:
    """Whether a value has so many bytes that it should not be copied to be sent."""
    kind = type(value)
    size = len(value) if kind is bytes or kind is bytearray else getattr(value, "nbytes", 0)
    return type(size) is int and size >= LARGE


def too_large(what: str, limit: int, more: str = "") -> EncodeError:
    return EncodeError(f"too large: {what} and the limit is {limit}{more}; send it in parts, or through a file")


# --- how the native kinds are written and read -----------------------------------------------------------


def _pack_int(value: int, _: Packing) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _pack_time(value: datetime.datetime | datetime.time, packing: Packing) -> bytes:
    zone = value.tzinfo
    if packing.is_lossless and zone is not None and type(zone) is not datetime.timezone:
        raise UnusualError("of a time zone only the offset would arrive")
    # A fold byte in front: isoformat() leaves it out.
    text = value.isoformat() if zone is None else value.replace(tzinfo=_offset(value)).isoformat()
    return bytes([value.fold]) + text.encode("ascii")


def _offset(value: datetime.datetime | datetime.time) -> datetime.timezone | None:
    offset = value.utcoffset()
    if offset is not None and offset and abs(offset) < datetime.timedelta(seconds=1):
        raise ValueError("Python cannot read an offset of less than a second")
    return None if offset is None else datetime.timezone(offset)


def _unpack_datetime(data: bytes, _: Unpacking) -> datetime.datetime:
    return datetime.datetime.fromisoformat(data[1:].decode("ascii")).replace(fold=data[0])


def _unpack_time(data: bytes, _: Unpacking) -> datetime.time:
    return datetime.time.fromisoformat(data[1:].decode("ascii")).replace(fold=data[0])


def _pack_timedelta(value: datetime.timedelta, _: Packing) -> bytes:
    return struct.pack("!iii", value.days, value.seconds, value.microseconds)


def _pack_decimal(value: decimal.Decimal, _: Packing) -> bytes:
    return decimal.Decimal.__str__(value).encode("ascii")


def _pack_set(value: set[Any] | frozenset[Any], packing: Packing) -> bytes:
    if packing.depth >= NESTED_EXT:
        raise ValueError(f"sets nested more than {NESTED_EXT} deep")
    members = list(value)
    if not SCALARS.issuperset(map(type, members)):
        plain = [_member(item, packing) for item in members]
        if any(one is not other for one, other in zip(members, plain, strict=True)) and len({*plain}) < len(members):
            raise ChangedError("some of its members would arrive as one")
        members = plain
    return packing.deeper().body(members)


def _member(item: Any, packing: Packing) -> Any:
    """The member of a set as it arrives. Refused is what is hashable here, because its class says so, and would not be
    where it arrives."""
    cls = type(item)
    if cls in SCALARS or (cls is not set and packing.agreement.kinds.exact(cls) is not None):
        return item
    base = base_of(cls)
    if base in _UNHASHABLE or cls is Ext:
        raise TypeError(f"a {cls.__name__} in a set")
    if cls is not tuple:
        if base is None:
            return item
        plain = packing.hashed(item)
        if base is not tuple:
            return plain
        item = plain
    parts = [_member(part, packing) for part in item]
    return item if all(one is other for one, other in zip(item, parts, strict=True)) else tuple(parts)


_UNHASHABLE = (list, dict, set, bytearray, memoryview)


def _unpack_set(data: bytes, unpacking: Unpacking) -> tuple[Any, ...]:
    if unpacking.depth >= NESTED_EXT:
        raise ValueError(f"sets nested more than {NESTED_EXT} deep")
    # An array that claims items which are not there would take their memory, in each set anew.
    whole = msgpack.Unpacker(max_buffer_size=len(data))
    whole.feed(data)
    whole.skip()
    # What lies in a set is hashable, so an array in it was a tuple.
    items = unpacking.deeper().value(data, use_list=False)
    if type(items) is not tuple:
        raise ValueError("a set is written as an array")
    check_hashes(items)
    return items


def _pack_complex(value: complex, _: Packing) -> bytes:
    return struct.pack("!dd", value.real, value.imag)


NATIVE = (
    Kind(BIGINT, (int,), _pack_int, lambda data, _: int.from_bytes(data, "big", signed=True)),
    Kind(DATETIME, (datetime.datetime,), _pack_time, _unpack_datetime),
    Kind(
        DATE,
        (datetime.date,),
        lambda value, _: value.isoformat().encode("ascii"),
        lambda data, _: datetime.date.fromisoformat(data.decode("ascii")),
    ),
    Kind(TIME, (datetime.time,), _pack_time, _unpack_time),
    Kind(
        TIMEDELTA,
        (datetime.timedelta,),
        _pack_timedelta,
        lambda data, _: datetime.timedelta(*struct.unpack("!iii", data)),
    ),
    Kind(DECIMAL, (decimal.Decimal,), _pack_decimal, lambda data, _: decimal.Decimal(data.decode("ascii"))),
    Kind(UUID, (uuid.UUID,), lambda value, _: value.bytes, lambda data, _: uuid.UUID(bytes=data)),
    Kind(SET, (set,), _pack_set, lambda data, unpacking: set(_unpack_set(data, unpacking))),
    Kind(FROZENSET, (frozenset,), _pack_set, lambda data, unpacking: frozenset(_unpack_set(data, unpacking))),
    Kind(COMPLEX, (complex,), _pack_complex, lambda data, _: complex(*struct.unpack("!dd", data))),
)
"""The kinds that every peer reads."""
