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

__all__ = ["LENGTH", "Decoder", "Encoder", "decode_body"]

CHUNK = 64 * 1024
"""Bytes that one read can take."""

KEEP = 1024 * 1024
"""Bytes that a packer's buffer may grow to and be kept."""

LENGTH = struct.Struct("!I")
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
        if type(message) is Request:
            frame = self.encode_do(message.args, message.kwargs, message.epoch, message.extras)
            return frame.data if isinstance(frame, ConditionalFrame) else frame
        return self._frame(to_plain(message), (message.value,) if type(message) is Value else (), _NOTHING)

    def encode_do(
        self, args: Sequence[Any], kwargs: dict[str, Any], epoch: int, extras: RequestMeta | None = None
    ) -> bytes | ConditionalFrame:
        """The frame of a :class:`Request` with these fields; raises as :meth:`encode`."""
        values = args if extras is None else (*args, extras.context)
        frame = self._frame(plain_request(args, kwargs, epoch, extras), values, kwargs)
        if self._needs:
            needs = ConditionalFrame(frame, dict(self._needs))
            self._needs.clear()
            return needs
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
            self._pack = msgpack.Packer(default=self._default).pack  # or this one's buffer would stay as large
            if size > self._limit:
                self._needs.clear()
                raise too_large(f"the message has {size} bytes", self._limit)
        return LENGTH.pack(size) + body

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
        self._chunk = bytearray(CHUNK)
        self._partial = bytearray()
        self.space = memoryview(self._chunk)
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
        if not self._partial:
            # The common case, exactly one whole frame, has this short path.
            if LENGTH.unpack_from(self._chunk)[0] == count - 4 <= self._limit:
                return [decode_body(self.space[4:count], self._terms, self._hook)]
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
            messages.append(decode_body(data[body:stop], self._terms, self._hook))
            start = stop
        if start < end:
            self._partial += data[start:]
        return messages

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise ProtocolError(
                f"the peer announced a message of {length} bytes and the limit is {self._limit}; is it a gtask peer?"
            )


def decode_body(
    body: memoryview, terms: ExtensionState = extensions.NO_TERMS, hook: Callable[..., Any] = extensions.NO_HOOK
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
        try:
            plain = msgpack.unpackb(body, ext_hook=hook, strict_map_key=False, timestamp=3)
        except UnicodeDecodeError:
            plain = extensions.unpack_body(terms, body, True, 0, "surrogatepass")
        message = from_plain(plain)
    except ProtocolError:
        raise
    except Exception as error:  # any failure to read hostile bytes is the peer's fault
        raise ProtocolError(f"a frame that is no message: {type(error).__name__}: {error!s:.200}") from None
    if terms.needs:
        terms.needs.clear()
        _mark_pickled(message)
    return message


def _mark_pickled(message: Message) -> None:
    if type(message) is Request:
        message.extras = message.extras or RequestMeta()
        message.extras.pickled = True
    elif type(message) is Value:
        message.pickled = True
    else:
        raise ProtocolError(f"a pickle in {WORDS[type(message)]!r}, where none may be")
