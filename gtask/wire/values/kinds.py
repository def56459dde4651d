"""Values beyond msgpack's own, as its extension types: numbers of any size, dates, sets, and what both sides have
agreed upon, arrays (:mod:`gtask.wire.values.arrays`) and pickles (:mod:`gtask.wire.values.pickles`).
"""

from __future__ import annotations

import datetime
import decimal
import struct
import uuid
from functools import partial
from typing import Any

import msgpack

from gtask.errors import EncodeError
from gtask.wire.messages import DEFAULT_LIMIT
from gtask.wire.values import arrays
from gtask.wire.values.agreement import NOTHING, Agreement, NotTransferable
from gtask.wire.values.pickles import Sealed

__all__ = [
    "NESTED_EXT",
    "NO_HOOK",
    "NO_TERMS",
    "PICKLE",
    "ExtensionState",
    "pack",
    "too_large",
    "type_name",
    "unpack",
    "unpack_body",
]

NESTED_EXT = 16
"""How deep sets may lie in sets. Each level is a C call with 40 KiB of stack, so it needs a bound."""

HEAD = 64 * 1024
"""Bytes in which an array has to say what it is."""

BIGINT, DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, UUID, SET, FROZENSET, COMPLEX, PICKLE, ARRAY, SCALAR = range(1, 14)


class ExtensionState:
    """What the ext types of one encoder or decoder have to know.

    Attributes:
        agreement: with the peer.
        limit: bytes that a frame may have.
        needs: what the frame at hand has that only an agreement allows: ``pickle``, ``arrays``; with a phrase for it.
    """

    __slots__ = ("agreement", "limit", "needs")

    def __init__(self, agreement: Agreement, limit: int) -> None:
        self.agreement = agreement
        self.limit = limit
        self.needs: dict[str, str] = {}


def pack(terms: ExtensionState, value: Any, depth: int = 0) -> msgpack.ExtType:
    """What the packer asks for each value that it does not know; a TypeError where there is no answer."""
    if isinstance(value, int):
        size = value.bit_length() // 8 + 1
        return msgpack.ExtType(BIGINT, value.to_bytes(size, "big", signed=True))
    if isinstance(value, datetime.datetime):
        return msgpack.ExtType(DATETIME, _pack_time(value))
    if isinstance(value, datetime.date):
        return msgpack.ExtType(DATE, value.isoformat().encode("ascii"))
    if isinstance(value, datetime.time):
        return msgpack.ExtType(TIME, _pack_time(value))
    if isinstance(value, datetime.timedelta):
        return msgpack.ExtType(TIMEDELTA, struct.pack("!iii", value.days, value.seconds, value.microseconds))
    if isinstance(value, decimal.Decimal):
        return msgpack.ExtType(DECIMAL, decimal.Decimal.__str__(value).encode("ascii"))
    if isinstance(value, uuid.UUID):
        return msgpack.ExtType(UUID, value.bytes)
    if isinstance(value, (set, frozenset)):
        if depth >= NESTED_EXT:
            raise ValueError(f"sets nested more than {NESTED_EXT} deep")
        code = SET if isinstance(value, set) else FROZENSET
        _check_members(value)

        def deeper(inner: Any) -> msgpack.ExtType:
            return pack(terms, inner, depth + 1)

        return msgpack.ExtType(code, msgpack.packb(list(value), default=deeper, unicode_errors="surrogatepass"))
    if isinstance(value, complex):
        return msgpack.ExtType(COMPLEX, struct.pack("!dd", value.real, value.imag))
    if arrays.is_numpy(value):
        return _pack_array(terms, value)
    raise TypeError(f"a {type(value).__name__}")


def _pack_array(terms: ExtensionState, value: Any) -> msgpack.ExtType:
    if not terms.agreement.arrays:
        raise NotTransferable(terms.agreement.why_no_arrays)
    is_scalar, told, data = arrays.tell(value)
    if len(data) > terms.limit:
        raise too_large(f"an array in it has {len(data)} bytes", terms.limit)
    head = msgpack.packb(told, unicode_errors="surrogatepass")
    if len(head) > HEAD:
        raise TypeError(f"its dtype takes {len(head)} bytes to tell, and there are {HEAD}")
    terms.needs["arrays"] = f"a value of type {type_name(value)}"
    return msgpack.ExtType(SCALAR if is_scalar else ARRAY, b"".join((head, data)))


def _pack_time(value: datetime.datetime | datetime.time) -> bytes:
    # A fold byte in front: isoformat() leaves it out.
    text = value.isoformat() if value.tzinfo is None else value.replace(tzinfo=_offset(value)).isoformat()
    return bytes([value.fold]) + text.encode("ascii")


def _offset(value: datetime.datetime | datetime.time) -> datetime.timezone | None:
    offset = value.utcoffset()
    if offset is not None and offset and abs(offset) < datetime.timedelta(seconds=1):
        raise ValueError("Python cannot read an offset of less than a second")
    return None if offset is None else datetime.timezone(offset)


def unpack(terms: ExtensionState, code: int, data: bytes, depth: int = 0, errors: str = "strict") -> Any:
    if code == BIGINT:
        return int.from_bytes(data, "big", signed=True)
    if code == DATETIME:
        return datetime.datetime.fromisoformat(data[1:].decode("ascii")).replace(fold=data[0])
    if code == DATE:
        return datetime.date.fromisoformat(data.decode("ascii"))
    if code == TIME:
        return datetime.time.fromisoformat(data[1:].decode("ascii")).replace(fold=data[0])
    if code == TIMEDELTA:
        days, seconds, microseconds = struct.unpack("!iii", data)
        return datetime.timedelta(days, seconds, microseconds)
    if code == DECIMAL:
        return decimal.Decimal(data.decode("ascii"))
    if code == UUID:
        return uuid.UUID(bytes=data)
    if code in (SET, FROZENSET):
        if depth >= NESTED_EXT:
            raise ValueError(f"sets nested more than {NESTED_EXT} deep")
        # An array that claims items which are not there would take their memory, in each set anew.
        whole = msgpack.Unpacker(max_buffer_size=len(data))
        whole.feed(data)
        whole.skip()
        # What lies in a set is hashable, so an array in it was a tuple.
        items = unpack_body(terms, data, False, depth + 1, errors)
        if type(items) is not tuple:
            raise ValueError("a set is written as an array")
        return set(items) if code == SET else frozenset(items)
    if code == COMPLEX:
        return complex(*struct.unpack("!dd", data))
    if code in (ARRAY, SCALAR) and terms.agreement.arrays:
        head = msgpack.Unpacker(max_buffer_size=HEAD, max_array_len=arrays.FIELDS, max_map_len=0, unicode_errors=errors)
        head.feed(data[:HEAD])
        told = head.unpack()
        return (arrays.array if code == ARRAY else arrays.scalar)(told, memoryview(data)[head.tell() :])
    if code == PICKLE and terms.agreement.pickle:
        terms.needs["pickle"] = "a pickle"
        return Sealed(data)
    if code in (PICKLE, ARRAY, SCALAR):
        raise ValueError(f"{'a pickle' if code == PICKLE else 'an array'}, upon which both sides have not agreed")
    raise ValueError(f"unknown extension type {code}")


NO_TERMS = ExtensionState(NOTHING, DEFAULT_LIMIT)
NO_HOOK = partial(unpack, NO_TERMS)


def unpack_body(
    terms: ExtensionState, data: bytes | bytearray | memoryview, use_list: bool, depth: int, errors: str
) -> Any:
    return msgpack.unpackb(
        data,
        use_list=use_list,
        ext_hook=lambda code, inner: unpack(terms, code, inner, depth, errors),
        strict_map_key=False,
        unicode_errors=errors,
        timestamp=3,
    )


def _check_members(items: Any) -> None:
    """Refuse what lies in a set here, because its class is hashable, and could not where it arrives."""
    for item in items:
        if isinstance(item, (dict, set)) or type(item) is msgpack.ExtType:
            raise TypeError(f"a {type(item).__name__} in a set")
        if isinstance(item, (list, tuple)):
            _check_members(item)


def type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def too_large(what: str, limit: int) -> EncodeError:
    return EncodeError(f"too large: {what} and the limit is {limit}; send it in parts, or through a file")
