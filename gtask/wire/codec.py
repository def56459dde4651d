"""Messages to bytes and back: 4 bytes of length, big-endian, then one msgpack array.

A value comes out as it went in, but for tuples (lists), subclasses (their base) and time zones (their
offset); what cannot travel is an EncodeError before a byte of it is sent. What comes in is not trusted:
a length over the limit is refused before anything is allocated for it, a bad frame is a ProtocolError,
and memory grows only as bytes arrive. This is the only module that knows msgpack.
"""

from __future__ import annotations

import datetime
import decimal
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.messages import DEFAULT_LIMIT, Do, Extras, Message, Ok, from_plain, plain_do, to_plain

__all__ = ["LENGTH", "Decoder", "Encoder", "decode_body"]

CHUNK = 64 * 1024
"""Bytes that one read can take."""

KEEP = 1024 * 1024
"""Bytes that a packer's buffer may grow to and be kept."""

NESTED_EXT = 16
"""How deep sets may lie in sets. Each level is a C call with 40 KiB of stack, so it needs a bound."""

LENGTH = struct.Struct("!I")
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_KEYS = frozenset({str, int, bytes})
_NOTHING: dict[str, Any] = {}

# --- values beyond msgpack's own -----------------------------------------------------------------------

BIGINT, DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, UUID, SET, FROZENSET, COMPLEX = range(1, 11)


def _pack_ext(value: Any, depth: int = 0) -> msgpack.ExtType:
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
            return _pack_ext(inner, depth + 1)

        return msgpack.ExtType(code, msgpack.packb(list(value), default=deeper, unicode_errors="surrogatepass"))
    if isinstance(value, complex):
        return msgpack.ExtType(COMPLEX, struct.pack("!dd", value.real, value.imag))
    raise TypeError(f"a {type(value).__name__}")


def _pack_time(value: datetime.datetime | datetime.time) -> bytes:
    # A fold byte in front: isoformat() leaves it out.
    text = value.isoformat() if value.tzinfo is None else value.replace(tzinfo=_offset(value)).isoformat()
    return bytes([value.fold]) + text.encode("ascii")


def _offset(value: datetime.datetime | datetime.time) -> datetime.timezone | None:
    offset = value.utcoffset()
    if offset is not None and offset and abs(offset) < datetime.timedelta(seconds=1):
        raise ValueError("Python cannot read an offset of less than a second")
    return None if offset is None else datetime.timezone(offset)


def _unpack_ext(code: int, data: bytes, depth: int = 0, errors: str = "strict") -> Any:
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
        items = _unpackb(data, False, depth + 1, errors)
        if type(items) is not tuple:
            raise ValueError("a set is written as an array")
        return set(items) if code == SET else frozenset(items)
    if code == COMPLEX:
        return complex(*struct.unpack("!dd", data))
    raise ValueError(f"unknown extension type {code}")


def _unpackb(data: bytes | memoryview, use_list: bool, depth: int, errors: str) -> Any:
    return msgpack.unpackb(
        data,
        use_list=use_list,
        ext_hook=lambda code, inner: _unpack_ext(code, inner, depth, errors),
        strict_map_key=False,
        unicode_errors=errors,
        timestamp=3,
    )


# --- what can travel -----------------------------------------------------------------------------------


def _check_keys(value: Any) -> None:
    """Refuse what msgpack would write but nobody could read: maps whose keys are not str, int or bytes."""
    if isinstance(value, dict):
        if not _KEYS.issuperset(map(type, value)):
            for key in value:
                if not isinstance(key, (str, int, bytes)):
                    raise EncodeError(f"a dict with the key {key!r:.60} cannot travel: keys may be str, int or bytes")
        parts: Any = value.values()
    elif isinstance(value, (list, tuple)):
        if type(value) is msgpack.ExtType:
            raise EncodeError("a msgpack.ExtType cannot travel")
        parts = value
    else:
        return
    if not _SCALARS.issuperset(map(type, parts)):
        for part in parts:
            if type(part) not in _SCALARS:
                _check_keys(part)


def _check_members(items: Any) -> None:
    """Refuse what lies in a set here, because its class is hashable, and could not where it arrives."""
    for item in items:
        if isinstance(item, (dict, set)) or type(item) is msgpack.ExtType:
            raise TypeError(f"a {type(item).__name__} in a set")
        if isinstance(item, (list, tuple)):
            _check_members(item)


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # whatever its class does
        return type(error).__name__


def _culprit(value: Any, place: str = "") -> str:
    """Which part of a message that could not be packed is at fault, for the error's text."""
    try:
        msgpack.packb(value, default=_pack_ext, unicode_errors="surrogatepass")
    except Exception as error:  # whatever the packer said about the whole, ask for each part
        if isinstance(value, dict):
            parts: Any = ((f"{place}[{key!r:.40}]", part) for key, part in value.items())
        elif isinstance(value, (list, tuple)):
            parts = ((f"{place}[{index}]", part) for index, part in enumerate(value))
        else:
            parts = ()
        for inner_place, part in parts:
            found = _culprit(part, inner_place)
            if found:
                return found
        name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        reason = "" if str(error) == f"a {type(value).__name__}" else f": {error}"
        return f"{place or 'it'} is of type {name}{reason}"
    return ""


# --- frames --------------------------------------------------------------------------------------------


class Encoder:
    """Writes the messages of one connection.

    Args:
        limit: bytes that a frame may have; the same as the reader's.
    """

    __slots__ = ("_keep", "_limit", "_pack")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._keep = min(limit, KEEP)
        self._pack: Callable[[Any], bytes] = msgpack.Packer(default=_pack_ext).pack

    def encode(self, message: Message) -> bytes:
        """The frame of a message.

        Raises:
            EncodeError: a value in it cannot travel, or the frame would be over the limit.
        """
        if type(message) is Do:
            return self.encode_do(message.args, message.kwargs, message.epoch, message.extras)
        return self._frame(to_plain(message), (message.value,) if type(message) is Ok else (), _NOTHING)

    def encode_do(self, args: Sequence[Any], kwargs: dict[str, Any], epoch: int, extras: Extras | None = None) -> bytes:
        """The frame of a :class:`Do` with these fields; raises as :meth:`encode`."""
        if extras is not None and extras.context:
            _check_keys(extras.context)
        return self._frame(plain_do(args, kwargs, epoch, extras), args, kwargs)

    def _frame(self, plain: list[Any], values: Sequence[Any], named_values: dict[str, Any]) -> bytes:
        try:
            for value in values:
                if type(value) not in _SCALARS:
                    _check_keys(value)
            if named_values:
                _check_keys(named_values)
            body = self._pack(plain)
        except EncodeError:
            raise
        except UnicodeEncodeError:
            body = self._pack_surrogates(plain)
        except RecursionError:
            raise EncodeError("a value that is nested too deeply (or contains itself) cannot travel") from None
        except Exception as error:  # also what the methods of a value's class raise
            raise self._refusal(plain, error) from None
        size = len(body)
        if size > self._keep:
            self._pack = msgpack.Packer(default=_pack_ext).pack  # or this one's buffer would stay as large
            if size > self._limit:
                raise EncodeError(
                    f"too large: the message has {size} bytes and the limit is {self._limit}; "
                    "send it in parts, or through a file"
                )
        return LENGTH.pack(size) + body

    def _pack_surrogates(self, plain: list[Any]) -> bytes:
        try:
            body: bytes = msgpack.packb(plain, default=_pack_ext, unicode_errors="surrogatepass")
            return body
        except Exception as error:  # as in encode
            raise self._refusal(plain, error) from None

    @staticmethod
    def _refusal(plain: list[Any], error: Exception) -> EncodeError:
        if "recursion limit" in _text(error):
            return EncodeError("a value that is nested too deeply (or contains itself) cannot travel")
        kind, meta, *items = plain
        named = {f"argument {index}": item for index, item in enumerate(items)} if kind == "do" else {}
        if kind == "do" and meta and "kw" in meta:
            named.update({f"argument {name}": item for name, item in meta["kw"].items()})
        if kind == "do" and meta and "context" in meta:
            named.update({f"the context variable {name}": item for name, item in meta["context"].items()})
        if kind == "ok":
            named = {"the result": items[0]}
        for place, item in named.items():
            try:
                found = _culprit(item, place)
            except Exception:  # its methods raise even when it is only looked at
                found = f"{place} is or holds something that cannot be looked at"
            if found:
                return EncodeError(
                    f"cannot travel: {found}. What can: None, bool, int, float, str, bytes, list, tuple, dict, "
                    "set, datetime and its kin, Decimal, UUID, complex"
                )
        return EncodeError(f"cannot travel: {_text(error)}")


class Decoder:
    """Reads the messages of one connection.

    The owner of the socket reads into :attr:`space` and says by :meth:`received` how much came::

        count = sock.recv_into(decoder.space)
        for message in decoder.received(count): ...

    Args:
        limit: bytes that a frame may have; the length of a larger one is refused as soon as it is read.
    """

    __slots__ = ("_chunk", "_limit", "_partial", "space")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._chunk = bytearray(CHUNK)
        self._partial = bytearray()
        self.space = memoryview(self._chunk)
        """Where the next bytes are to be put."""

    @property
    def midway(self) -> bool:
        """Whether part of a frame has come and its rest has not."""
        return bool(self._partial)

    def received(self, count: int) -> list[Message]:
        """The messages that became whole with the next ``count`` bytes in :attr:`space`.

        Raises:
            ProtocolError: a frame is too long or is no message. The decoder cannot be used after it.
        """
        if not self._partial:
            # The common case, exactly one whole frame, has this short path.
            if LENGTH.unpack_from(self._chunk)[0] == count - 4 <= self._limit:
                return [decode_body(self.space[4:count])]
            return self._frames(self.space[:count])
        self._partial += self.space[:count]
        if len(self._partial) >= 4:
            length = LENGTH.unpack_from(self._partial)[0]
            self._check(length)
            if length + 4 > len(self._partial):
                return []  # the rest of a large frame is still on its way
        whole, self._partial = self._partial, bytearray()
        return self._frames(memoryview(whole))

    def _frames(self, data: memoryview) -> list[Message]:
        messages = []
        start, end, limit = 0, len(data), self._limit
        while end - start >= 4:
            body = start + 4
            stop = body + LENGTH.unpack_from(data, start)[0]
            if stop > end or stop - body > limit:
                self._check(stop - body)
                break
            messages.append(decode_body(data[body:stop]))
            start = stop
        if start < end:
            self._partial += data[start:]
        return messages

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise ProtocolError(
                f"the peer announced a message of {length} bytes and the limit is {self._limit}; is it a gtask peer?"
            )


def decode_body(body: memoryview) -> Message:
    """The message in a frame, without its length.

    Raises:
        ProtocolError: it is none.
    """
    try:
        # unpackb's own limits are what is wanted here: no string, array or map is longer than its frame has bytes,
        # and nothing nests deeper than 1024.
        try:
            plain = msgpack.unpackb(body, ext_hook=_unpack_ext, strict_map_key=False, timestamp=3)
        except UnicodeDecodeError:
            plain = _unpackb(body, True, 0, "surrogatepass")
    except Exception as error:  # any failure to read hostile bytes is the peer's fault
        raise ProtocolError(f"a frame that is no msgpack array: {type(error).__name__}: {error!s:.200}") from None
    return from_plain(plain)
