"""Messages to JSON texts and back: a stream of arrays with neither length nor separator, as AnyEvent::Task speaks it.

JSON has fewer types than msgpack, so less can travel: what cannot is an EncodeError before a byte of it is sent. What
comes in is not trusted: a text over the limit, nested too deeply, or with a number that has no end is a ProtocolError.
Each byte is looked at once to find where a text ends, and once more when it is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.forms import from_plain, plain_request, to_plain
from gtask.wire.json.conversation import SETUP_EXCEPTION
from gtask.wire.limits import DEFAULTS, Limits, too_many_items
from gtask.wire.malformed import or_malformed
from gtask.wire.messages import (
    NOT_PLAIN,
    Failure,
    Greeting,
    LastWords,
    LogRecords,
    Message,
    Request,
    RequestMeta,
    Value,
)
from gtask.wire.values.bases import ChangedError, as_base, base_of, type_name

__all__ = ["OPENING", "Decoder", "Encoder", "ReplyDecoder", "writable"]

OPENING = b"["
"""The first byte of a peer that speaks JSON. As that of a msgpack frame it would announce more than a gigabyte."""

DEPTH = 512
"""How deep arrays and objects may lie in each other, the message itself counted; JSON::XS reads no deeper ones."""

AROUND = 3
"""How many of them lie around a keyword argument: the message, its meta and ``kw``. Others have fewer."""

DIGITS = 4300
"""Digits that a whole number may have. To read one takes time that grows with their square, so it needs a bound."""

BITS = 14284
"""Bits of the largest number that has no more digits than that, whatever its value."""

CHUNK = 64 * 1024
"""The size of the buffer of one read, in bytes."""

BLANKS = b" \t\n\r"
_MARK = re.compile(rb'["\[\]{}]')
_MARK_IN_STRING = re.compile(rb'["\\]')
_SCALARS = frozenset({type(None), bool, str})
_TYPES = frozenset({str, int, float, list, tuple, dict})
_CAN = "What can: None, bool, int, float, str, list, tuple, and dict with str keys"


# --- what can travel -----------------------------------------------------------------------------------


def writable(value: Any) -> Any:
    """Plain data of a worker's log as JSON can carry it: what it cannot is told by its ``str()``."""
    if isinstance(value, dict):
        return {str(key): writable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [writable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return value if value.bit_length() <= BITS else hex(value)
    return value if value is None or isinstance(value, str) else str(value)


def _check(value: Any, place: str, around: int) -> None:
    """Refuse what JSON would not carry, or would carry as something else; the error names the part."""
    cls = type(value)
    if cls in _SCALARS:
        return
    base = cls if cls in _TYPES else base_of(cls)
    if base not in _TYPES:
        raise EncodeError(f"cannot travel: {place} is of type {type_name(value)}. {_CAN}")
    if base is not cls:
        _check_base(value, base, place)
    if base is int:
        if int.bit_length(value) > BITS:
            raise EncodeError(f"cannot travel: {place} is an int of more than {DIGITS} digits")
    elif base is float:
        if not math.isfinite(value):
            raise EncodeError(f"cannot travel: {place} is {float.__repr__(value)}, for which JSON has no number")
    elif base is not str:
        if around >= DEPTH:
            raise EncodeError("a value that is nested too deeply (or contains itself) cannot travel")
        if base is dict:
            _check_keys(value, place)
        for key, part in value.items() if base is dict else enumerate(value):
            if type(part) not in _SCALARS:
                _check(part, f"{place}[{key!r:.40}]", around + 1)


def _check_base(value: Any, base: type, place: str) -> None:
    """Refuse an instance of a subclass that equals no value of its base, which is what would arrive."""
    try:
        as_base(value, base)
    except ChangedError as error:
        raise EncodeError(f"cannot travel: {place} is of type {type_name(value)}: {error}. {_CAN}") from None


def _check_keys(value: dict[Any, Any], place: str) -> None:
    for key in value:
        if type(key) is not str:
            if not issubclass(type(key), str):
                raise EncodeError(f"cannot travel: {place} has the key {key!r:.60}. {_CAN}")
            _check_base(key, str, f"the key {key!r:.60} of {place}")
    if len({str.__str__(key) for key in value}) < len(value):
        raise EncodeError(f"cannot travel: {place} has keys that would arrive as one. {_CAN}")


class Encoder:
    """Writes the messages of one connection; for a msgpack peer :class:`gtask.wire.frames.Encoder` does.

    Args:
        limit: bytes that a text may have; the same as the reader's.
    """

    __slots__ = ("_dumps", "_limit")

    def __init__(self, limit: int = DEFAULTS.message) -> None:
        self._limit = limit
        encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
        self._dumps = encoder.encode

    def encode(self, message: Message) -> bytes:
        """The text of a message. An exception travels as its text alone.

        Raises:
            EncodeError: a value in it cannot travel, or the text would be over the limit.
        """
        if type(message) is Request:
            return self.encode_request(message.args, message.kwargs, message.epoch, message.meta)
        if type(message) is Failure:
            return self._text(["er", _fields(message.ld), message.text], {"the deferred log": message.ld})
        if type(message) is Value:
            value = message.value
            return self._text(["ok", _fields(message.ld), value], {"the result": value, "the deferred log": message.ld})
        kind, fields, *items = to_plain(message)
        return self._text([kind, fields or {}, *items], {"it": [fields, *items]})

    def encode_request(
        self,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        epoch: int,
        meta: RequestMeta | None = None,
        name: str | None = None,
    ) -> bytes:
        """The text of a :class:`Request` with these fields; raises as :meth:`encode`. A JSON peer knows no epochs."""
        if name is not None:
            args = (name, *args)
        kind, fields, *items = plain_request(args, kwargs, 0, meta)
        named = {f"argument {index}": item for index, item in enumerate(items)}
        named.update({f"argument {name}": item for name, item in kwargs.items()})
        if meta is not None:
            named.update({f"the context variable {name}": item for name, item in meta.context.items()})
        return self._text([kind, fields or {}, *items], named)

    def _text(self, plain: list[Any], named: dict[str, Any]) -> bytes:
        try:
            for place, value in named.items():
                if type(value) not in _SCALARS:
                    _check(value, place, AROUND)
            # Only a lone surrogate is no UTF-8, and it stands in a string: there JSON writes it with a backslash, too.
            text = self._dumps(plain).encode("utf-8", "backslashreplace")
        except EncodeError:
            raise
        except RecursionError:
            raise EncodeError("a value that is nested too deeply (or contains itself) cannot travel") from None
        except Exception as error:  # what the methods of a value's class raise
            raise EncodeError(f"cannot travel: it holds something that cannot be looked at: {_name(error)}") from None
        if len(text) > self._limit:
            raise EncodeError(
                f"too large: the message has {len(text)} bytes and the limit is {self._limit}; "
                "send it in parts, or through a file"
            )
        return text


def _fields(ld: dict[str, Any] | None) -> dict[str, Any]:
    return {} if ld is None else {"ld": ld}


def _name(error: Exception) -> str:
    return type(error).__name__


# --- what has come -------------------------------------------------------------------------------------


def _read_int(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise ProtocolError(f"a number of more than {DIGITS} digits")
    return int(digits)


def _read_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ProtocolError("a number beyond those that a float can have")
    return value


def _refuse_constant(name: str) -> Any:
    raise ProtocolError(f"{name} is no JSON")


_read = json.JSONDecoder(parse_int=_read_int, parse_float=_read_float, parse_constant=_refuse_constant).raw_decode


class Decoder:
    """Reads the messages of one connection, as :class:`gtask.wire.frames.Decoder` does.

    Args:
        limits: of this side. A longer text is refused as soon as it has more.
    """

    __slots__ = ("_chunk", "_depth", "_in_string", "_items", "_limit", "_opened", "_partial", "_seen", "space")

    def __init__(self, limits: Limits = DEFAULTS) -> None:
        self._limit, self._items = limits.message, limits.items
        self._opened = 0
        self._chunk = bytearray(CHUNK)
        self._partial = bytearray()
        self._seen = 0  # how much of it has been looked at
        self._depth = 0
        self._in_string = False
        self.space = memoryview(self._chunk)
        """Where the next bytes are to be put."""

    @property
    def midway(self) -> bool:
        """Whether part of a text has come and its rest has not."""
        return bool(self._partial)

    def received(self, count: int) -> list[Message]:
        """The messages that became whole with the next ``count`` bytes in :attr:`space`.

        Raises:
            ProtocolError: a text is too long or is no message. Behind other messages it is raised when they
                have been iterated over. The decoder cannot be used after it.
        """
        messages: list[Message] = []
        try:
            self._read_texts(count, messages)
        except ProtocolError as error:
            return or_malformed(messages, error)
        return messages

    def _read_texts(self, count: int, messages: list[Message]) -> None:
        data = self._partial
        data += self.space[:count]
        while True:
            if not self._seen:
                del data[: len(data) - len(data.lstrip(BLANKS))]
                if data and not data.startswith(OPENING):
                    raise ProtocolError(f"a JSON text that is no array: it begins with {bytes(data[:20])!r}")
            end = self._find_end()
            if (end or len(data)) > self._limit:
                raise ProtocolError(
                    f"the peer sent a JSON text of more than {self._limit} bytes, which is the limit (limit_message)"
                )
            if not end:
                return
            messages.append(self._message(data[:end]))
            del data[:end]
            self._seen = self._opened = 0

    def _find_end(self) -> int:
        """Where the text ends with which the bytes begin; 0 if its end has not come."""
        data, at, depth = self._partial, self._seen, self._depth
        while True:
            match = (_MARK_IN_STRING if self._in_string else _MARK).search(data, at)
            if match is None:
                self._seen, self._depth = len(data), depth
                return 0
            at = match.end()
            mark = match[0]
            if mark == b'"':
                self._in_string = not self._in_string
            elif mark == b"\\":
                if at == len(data):  # what it escapes is yet to come: begin with the backslash again
                    self._seen, self._depth = at - 1, depth
                    return 0
                at += 1
            elif mark in b"[{":
                depth += 1
                self._opened += 1
                if self._opened > self._items:
                    raise too_many_items(self._items)
                if depth > DEPTH:
                    raise ProtocolError(f"a JSON text that is nested more than {DEPTH} deep")
            else:
                depth -= 1
                if not depth:
                    self._depth = 0
                    return at

    def _message(self, text: bytearray) -> Message:
        try:
            plain, _ = _read(text.decode("utf-8", "surrogatepass"))
        except ProtocolError:
            raise
        except Exception as error:  # any failure to read hostile bytes is the peer's fault
            raise ProtocolError(f"a text that is no JSON array: {type(error).__name__}: {error!s:.200}") from None
        return self._made(plain)

    def _made(self, plain: list[Any]) -> Message:
        return from_plain(plain)


class ReplyDecoder(Decoder):
    """Reads what a worker sends, as :class:`gtask.wire.lastwords.ReplyDecoder` does; here nothing follows the replies.

    The deferred log of a reply is a message of its own, before the reply. A reply whose text says that setup has raised
    is the greeting of a worker that has failed.

    Args:
        limits: of this side.
    """

    __slots__ = ()

    def plain_value(self, count: int) -> Any:
        """A text may hold more than a value."""
        return NOT_PLAIN

    def _read_texts(self, count: int, messages: list[Message]) -> None:
        found: list[Message] = []
        try:
            super()._read_texts(count, found)
        finally:
            for message in found:
                if isinstance(message, Failure) and message.text.startswith(SETUP_EXCEPTION):
                    message = Greeting(text=message.text.removeprefix(SETUP_EXCEPTION))
                elif isinstance(message, (Value, Failure)) and message.ld is not None:
                    messages.append(LogRecords(ld=message.ld))
                    message.ld = None
                messages.append(message)

    def ended(self) -> LastWords | None:
        """Nobody says last words to a JSON peer."""
        return None

    def _made(self, plain: list[Any]) -> Message:
        # Perl's errors end with a newline, and may be any data.
        if plain[:1] == ["er"] and len(plain) > 2:
            error = plain[2]
            plain[2] = error.removesuffix("\n") if type(error) is str else json.dumps(error, ensure_ascii=False)
        return from_plain(plain)
