"""Messages to bytes and back: 4 bytes of length, big-endian, then one msgpack array.

A value comes out as it went in, but for tuples (lists), subclasses (their base) and time zones (their
offset); what cannot travel is an EncodeError before a byte of it is sent. What comes in is not trusted:
a length over the limit is refused before anything is allocated for it, a bad frame is a ProtocolError,
and memory grows only as bytes arrive. Only this module and :mod:`~gtask.wire.values.kinds` know msgpack.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgpack

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.messages import (
    DEFAULT_LIMIT,
    WORDS,
    Message,
    Request,
    RequestMeta,
    Value,
    from_plain,
    plain_request,
    to_plain,
)
from gtask.wire.values import kinds as extensions
from gtask.wire.values.agreement import NOTHING, Agreement, ConditionalFrame, NotTransferable
from gtask.wire.values.kinds import ExtensionState, too_large, type_name
from gtask.wire.values.pickles import Pickling

__all__ = ["LENGTH", "VALUE", "VALUE_WORD", "Decoder", "Encoder", "decode_body"]

CHUNK = 64 * 1024
"""Bytes that one read can take."""

KEEP = 1024 * 1024
"""Bytes that a packer's buffer may grow to and be kept."""

LENGTH = struct.Struct("!I")

# The usual request is ["do", {"q": epoch}, *items] or ["do", {"kw": map, "q": epoch}, *items] with few items and an
# epoch that msgpack writes as ce and four bytes; the usual value is ["ok", nil, value]. What stands before the items
# has one form, so it is written and recognised whole: length, array header, word and keys, epoch.
ITEMS = 13
FIRST_EPOCH, LAST_EPOCH = 1 << 16, (1 << 32) - 1
REQUEST = struct.Struct("!IB7sI")
REQUEST_WORD = b"\xa2do\x81\xa1q\xce"
NAMED_REQUEST = struct.Struct("!IB7s")
NAMED_WORD = b"\xa2do\x82\xa2kw"
EPOCH = struct.Struct("!3sI")
EPOCH_KEY = b"\xa1q\xce"
VALUE = struct.Struct("!I5s")
VALUE_WORD = b"\x93\xa2ok\xc0"
ARRAY = 0x90
"""The header of an array with no items; with up to 15 the header is so much more."""

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_KEYS = frozenset({str, int, bytes})
_NOTHING: dict[str, Any] = {}

# --- what can travel -----------------------------------------------------------------------------------


class _KeysError(TypeError):
    """There is a dict whose keys cannot travel, or what would break the frame."""


def _check_keys(value: Any) -> None:
    """Refuse what msgpack would write but nobody could read: maps whose keys are not str, int or bytes."""
    if isinstance(value, dict):
        if not _KEYS.issuperset(map(type, value)):
            for key in value:
                if not isinstance(key, (str, int, bytes)):
                    raise _KeysError(f"a dict with the key {key!r:.60} cannot travel: keys may be str, int or bytes")
        parts: Any = value.values()
    elif isinstance(value, (list, tuple)):
        if type(value) is msgpack.ExtType:
            raise _KeysError("a msgpack.ExtType cannot travel")
        parts = value
    else:
        return
    if not _SCALARS.issuperset(map(type, parts)):
        for part in parts:
            if type(part) not in _SCALARS:
                _check_keys(part)


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # whatever its class does
        return type(error).__name__


def _places(plain: list[Any]) -> Iterator[tuple[str, Any, Any]]:
    """The values in a message: what each is called, in what it lies, and at which key or index."""
    kind, meta = plain[0], plain[1]
    if kind == "ok":
        yield "the result", plain, 2
    if kind == "do":
        for index in range(2, len(plain)):
            yield f"argument {index - 2}", plain, index
        for key, what in (("kw", "argument"), ("context", "the context variable")):
            for name in meta[key] if meta and key in meta else ():
                yield f"{what} {name}", meta[key], name


def _culprit(pack: Callable[[Any], bytes], value: Any, place: str) -> str:
    """Which part of a value that could not be packed is at fault, for the error's text."""
    try:
        pack(value)
    except Exception as error:  # whatever the packer said about the whole, ask for each part
        if isinstance(value, dict):
            parts: Any = ((f"{place}[{key!r:.40}]", part) for key, part in value.items())
        elif isinstance(value, (list, tuple)):
            parts = ((f"{place}[{index}]", part) for index, part in enumerate(value))
        else:
            parts = ()
        for inner_place, part in parts:
            found = _culprit(pack, part, inner_place)
            if found:
                return found
        reason = "" if str(error) == f"a {type(value).__name__}" else f": {error}"
        return f"{place} is of type {type_name(value)}{reason}"
    return ""


# --- frames --------------------------------------------------------------------------------------------


class Encoder:
    """Writes the messages of one connection.

    Args:
        limit: bytes that a frame may have; the same as the reader's.
        agreement: what may be in them beyond what every peer can read.
    """

    __slots__ = ("_default", "_keep", "_limit", "_needs", "_pack", "_terms")

    def __init__(self, limit: int = DEFAULT_LIMIT, agreement: Agreement = NOTHING) -> None:
        self._limit = limit
        self._keep = min(limit, KEEP)
        self.agree(agreement)

    def agree(self, agreement: Agreement) -> None:
        """What may be in messages from now on."""
        self._terms = ExtensionState(agreement, self._limit)
        self._needs = self._terms.needs
        self._default = partial(extensions.pack, self._terms)
        self._pack: Callable[[Any], bytes] = msgpack.Packer(default=self._default).pack

    def encode(self, message: Message) -> bytes:
        """The frame of a message.

        Raises:
            EncodeError: a value in it cannot travel, or the frame would be over the limit.
        """
        if type(message) is Value and message.ld is None:
            return self.encode_value(message.value)
        if type(message) is Request:
            frame = self.encode_request(message.args, message.kwargs, message.epoch, message.meta)
            return frame.data if isinstance(frame, ConditionalFrame) else frame
        frame = self._frame(to_plain(message), (message.value,) if type(message) is Value else (), _NOTHING)
        self._needs.clear()
        return frame

    def encode_value(self, value: Any) -> bytes:
        """The frame of a :class:`Value` that has no ``ld``; raises as :meth:`encode`."""
        try:
            if type(value) not in _SCALARS:
                _check_keys(value)
            packed = self._pack(value)
        except Exception:  # the general way finds out what is wrong
            frame = self._frame(["ok", None, value], (value,), _NOTHING)
        else:
            size = len(packed) + 5
            if size > self._keep:
                self._check_size(size)
            frame = VALUE.pack(size, VALUE_WORD) + packed
        if self._needs:
            self._needs.clear()
        return frame

    def encode_request(
        self, args: Sequence[Any], kwargs: dict[str, Any], epoch: int, meta: RequestMeta | None = None
    ) -> bytes | ConditionalFrame:
        """The frame of a :class:`Request` with these fields; raises as :meth:`encode`."""
        frame = None
        if meta is None and FIRST_EPOCH <= epoch <= LAST_EPOCH and len(args) <= ITEMS and type(args) is tuple:
            try:
                if not _SCALARS.issuperset(map(type, args)):
                    _check_keys(args)
                items: bytes | memoryview = self._pack(args)
                named = b""
                if kwargs:
                    _check_keys(kwargs)
                    named = self._pack(kwargs)
            except Exception:  # the general way finds out what is wrong
                pass
            else:
                size = len(items) + len(named) + (14 if named else 11)
                if size > self._keep:
                    self._check_size(size)
                    items = memoryview(items)  # whose slice is no copy
                if named:
                    head = NAMED_REQUEST.pack(size, items[0] + 2, NAMED_WORD) + named + EPOCH.pack(EPOCH_KEY, epoch)
                else:
                    head = REQUEST.pack(size, items[0] + 2, REQUEST_WORD, epoch)
                frame = head + items[1:]
        if frame is None:
            values = args if meta is None else (*args, meta.context, meta.others)
            frame = self._frame(plain_request(args, kwargs, epoch, meta), values, kwargs)
        if self._needs:
            conditional = ConditionalFrame(frame, dict(self._needs))
            self._needs.clear()
            return conditional
        return frame

    def _frame(self, plain: list[Any], values: Sequence[Any], named_values: dict[str, Any]) -> bytes:
        try:
            for value in values:
                if type(value) not in _SCALARS:
                    _check_keys(value)
            if named_values:
                _check_keys(named_values)
            body = self._pack(plain)
        except UnicodeEncodeError:
            body = self._body(plain)
        except Exception as error:  # also what the methods of a value's class raise
            body = self._other_body(plain, error)
        size = len(body)
        if size > self._keep:
            self._check_size(size)
        return LENGTH.pack(size) + body

    def _check_size(self, size: int) -> None:
        """Drop the packer, or its buffer would stay as large; and refuse what is over the limit."""
        self._pack = msgpack.Packer(default=self._default).pack
        if size > self._limit:
            self._needs.clear()
            raise too_large(f"the message has {size} bytes", self._limit)

    def _body(self, plain: list[Any]) -> bytes:
        """With what UTF-8 has no bytes for."""
        try:
            return self._pack_any(plain)
        except Exception as error:  # as in _frame
            return self._other_body(plain, error)

    def _other_body(self, plain: list[Any], error: Exception) -> bytes:
        """With pickles for what cannot travel otherwise, if that is agreed upon; or the error that says why not."""
        self._needs.clear()
        if self._terms.agreement.pickle and not isinstance(error, EncodeError):
            try:
                return self._pickled_body(plain)
            except Exception as later:  # as in _frame
                error = later
        raise self._refusal(plain, error) from None

    def _pickled_body(self, plain: list[Any]) -> bytes:
        # With terms of its own: pickling runs code of the application, which may have another message written by this.
        terms = ExtensionState(self._terms.agreement, self._limit)
        default = partial(extensions.pack, terms)
        pickling = Pickling(default, partial(msgpack.ExtType, extensions.PICKLE), msgpack.ExtType)
        copy = list(plain)
        if copy[1] is not None:
            copy[1] = {key: dict(part) if type(part) is dict else part for key, part in copy[1].items()}
        for place, whole, key in _places(copy):
            whole[key] = pickling.copy(whole[key], place)
        body: bytes = msgpack.packb(copy, default=default, unicode_errors="surrogatepass")
        self._needs.update(terms.needs, pickle=pickling.first)
        return body

    def _pack_any(self, value: Any) -> bytes:
        body: bytes = msgpack.packb(value, default=self._default, unicode_errors="surrogatepass")
        return body

    def _refusal(self, plain: list[Any], error: Exception) -> EncodeError:
        if isinstance(error, EncodeError):
            return error
        if isinstance(error, RecursionError) or "recursion limit" in _text(error):
            return EncodeError("a value that is nested too deeply (or contains itself) cannot travel")
        why = self._terms.agreement.why_no_pickle
        advice = f". {why}" if why and not isinstance(error, NotTransferable) else ""
        if isinstance(error, _KeysError):
            return EncodeError(f"{error}{advice}")
        for place, whole, key in _places(plain):
            try:
                found = _culprit(self._pack_any, whole[key], place)
            except Exception:  # its methods raise even when it is only looked at
                found = f"{place} is or holds something that cannot be looked at"
            if found:
                self._needs.clear()
                return EncodeError(
                    f"cannot travel: {found}. What can: None, bool, int, float, str, bytes, list, tuple, dict, "
                    f"set, datetime and its kin, Decimal, UUID, complex, numpy's arrays and scalars{advice}"
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

    __slots__ = ("_chunk", "_hook", "_limit", "_partial", "_terms", "space")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._chunk = bytearray(CHUNK + REQUEST.size)  # a head may be looked for where a frame is shorter
        self._partial = bytearray()
        self.space = memoryview(self._chunk)[:CHUNK]
        """Where the next bytes are to be put."""
        self._terms, self._hook = extensions.NO_TERMS, extensions.NO_HOOK

    def agree(self, agreement: Agreement) -> None:
        """What may be in messages from now on, beyond what every peer can read."""
        self._terms = ExtensionState(agreement, self._limit)
        self._hook = partial(extensions.unpack, self._terms)

    @property
    def midway(self) -> bool:
        """Whether part of a frame has come and its rest has not."""
        return bool(self._partial)

    def received(self, count: int) -> list[Message]:
        """The messages that became whole with the next ``count`` bytes in :attr:`space`.

        Raises:
            ProtocolError: a frame is too long or is no message. The decoder cannot be used after it.
        """
        data: bytearray | memoryview = self._chunk
        start, end, limit = 0, count, self._limit
        if self._partial:
            data = self._joined(count)
            end = len(data) - REQUEST.size
        messages: list[Message] = []
        while end - start >= 4:
            length, header, word, epoch = REQUEST.unpack_from(data, start)
            stop = start + 4 + length
            if stop > end or length > limit:
                self._check(length)
                break
            if word == REQUEST_WORD and ARRAY + 2 <= header <= ARRAY + 15:
                data[start + 15] = header - 2  # so the items have a header of their own
                items = data[start + 15 : stop]
                try:
                    args = msgpack.unpackb(items, ext_hook=self._hook, strict_map_key=False, timestamp=3)
                except Exception as error:
                    args = unpack_again(items, self._terms, error)
                messages.append(Request(args, {}, epoch))
                if self._terms.needs:
                    _mark_pickled(messages[-1], self._terms)
            else:
                messages.append(decode_body(data[start + 4 : stop], self._terms, self._hook))
            start = stop
        if start < end:
            self._partial += data[start:end]
        return messages

    def _value(self, packed: bytearray | memoryview) -> Value:
        """The usual value, of what stands behind its word."""
        try:
            value = Value(msgpack.unpackb(packed, ext_hook=self._hook, strict_map_key=False, timestamp=3))
        except Exception as error:
            value = Value(unpack_again(packed, self._terms, error))
        if self._terms.needs:
            _mark_pickled(value, self._terms)
        return value

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
                f"the peer announced a message of {length} bytes and the limit is {self._limit}; is it a gtask peer?"
            )


def decode_body(
    body: bytearray | memoryview,
    terms: ExtensionState = extensions.NO_TERMS,
    hook: Callable[..., Any] = extensions.NO_HOOK,
) -> Message:
    """The message in a frame, without its length.

    Args:
        terms: of its decoder, and ``hook``, what reads ext types by them; by default nothing is agreed upon.

    Raises:
        ProtocolError: it is none.
    """
    try:
        # unpackb's own limits are what is wanted here: no string, array or map is longer than its frame has bytes,
        # and nothing nests deeper than 1024.
        plain = msgpack.unpackb(body, ext_hook=hook, strict_map_key=False, timestamp=3)
    except Exception as error:
        plain = unpack_again(body, terms, error)
    message = from_plain(plain)
    if terms.needs:
        _mark_pickled(message, terms)
    return message


def unpack_again(packed: bytearray | memoryview, terms: ExtensionState, error: Exception) -> Any:
    """The value that msgpack could not read: with what UTF-8 has no bytes for.

    Raises:
        ProtocolError: that was not why.
    """
    if isinstance(error, UnicodeDecodeError):
        try:
            return extensions.unpack_body(terms, packed, True, 0, "surrogatepass")
        except Exception as later:  # as below
            error = later
    # Any failure to read hostile bytes is the peer's fault.
    raise ProtocolError(f"a frame that is no message: {type(error).__name__}: {error!s:.200}") from None


def _mark_pickled(message: Message, terms: ExtensionState) -> None:
    terms.needs.clear()
    if type(message) is Request:
        message.meta = message.meta or RequestMeta()
        message.meta.pickled = True
    elif type(message) is Value:
        message.pickled = True
    else:
        raise ProtocolError(f"a pickle in {WORDS[type(message)]!r}, where none may be")
