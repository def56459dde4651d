"""The plain form of each message, ``[kind, meta, ...]``: the only place that knows where a field stands on the wire.

Unknown keys of ``meta`` are ignored; an unknown kind is a ProtocolError.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

from gtask.errors import ProtocolError
from gtask.printable import printable, printable_lines
from gtask.wire.messages import (
    OF_ASPECTS,
    OFFERS,
    VERSION,
    Done,
    Extend,
    Failure,
    Fields,
    Greeting,
    LastWords,
    LogRecords,
    Message,
    Preamble,
    Request,
    RequestMeta,
    Retire,
    Skipped,
    Value,
)

__all__ = ["WORDS", "are_names", "from_plain", "plain_request", "seconds", "to_plain"]

Plain = list[Any]

WORDS: dict[type, str] = {
    Greeting: "hi",
    Preamble: "be",
    Request: "do",
    Value: "ok",
    Failure: "er",
    Skipped: "sk",
    LogRecords: "lg",
    Extend: "ex",
    Done: "dn",
    Retire: "by",
    LastWords: "rip",
}
"""The word on the wire for each message."""


def to_plain(message: Message) -> Plain:
    """The plain form of a message, for a codec to write."""
    return _WRITERS[type(message)](message)


def from_plain(plain: Any) -> Message:
    """The message that a codec has read.

    Raises:
        ProtocolError: it is none.
    """
    if type(plain) is not list or len(plain) < 2:
        raise ProtocolError("a message is an array of a kind, a meta map and more")
    kind, fields = plain[0], plain[1]
    reader = _READERS.get(kind) if type(kind) is str else None
    if reader is None:
        raise ProtocolError(f"unknown kind of message: {_show(kind)}")
    if fields is None:
        fields = _NO_FIELDS
    elif type(fields) is not dict:
        raise ProtocolError("the second item of a message is a map or nil")
    return reader(plain, fields)


_NO_FIELDS: Fields = {}
_MOST_SECONDS = 1 << 64
MOST = (1 << 63) - 1
"""The largest number in the meta of a message: of a process, of bytes or of records."""


def _typed(fields: Fields, key: str, kind: type, default: Any) -> Any:
    value: Any = fields.get(key, default)
    if (type(value) is not kind and value is not default) or (type(value) is int and abs(value) > MOST):
        raise ProtocolError(f"{key!r} in the meta of a message is a {kind.__name__}, not {_show(value)}")
    return value


def _show(value: Any) -> str:
    """A value of the peer's, for an error: short, and made without a failure, whatever it is."""
    try:
        return reprlib.repr(value)[:60]
    except (ValueError, RecursionError):  # an int of too many digits
        return f"a {type(value).__name__}"


def _item(plain: Plain, kind: type) -> Any:
    if len(plain) < 3 or type(plain[2]) is not kind:
        raise ProtocolError(f"the third item of {plain[0]!r} is a {kind.__name__}")
    return plain[2]


def _write_hi(hi: Greeting) -> Plain:
    fields: Fields = {"v": hi.version}
    for key, value in (("name", hi.name), ("pid", hi.pid), ("done", hi.done), ("text", hi.text), ("about", hi.about)):
        if value:
            fields[key] = value
    for offer in OFFERS:
        if offer in hi.offers:
            fields[offer] = True
    if hi.exc is not None:
        fields["exc"] = hi.exc
    if hi.timeout is not None:
        fields["t"] = hi.timeout
    return ["hi", fields]


def _read_hi(plain: Plain, fields: Fields) -> Greeting:
    version = _typed(fields, "v", int, 0)
    if version != VERSION:
        raise ProtocolError(f"the peer speaks version {_show(version)} of the protocol, this side version {VERSION}")
    return Greeting(
        version,
        printable(_typed(fields, "name", str, "")),
        _typed(fields, "pid", int, 0),
        _typed(fields, "done", bool, False),
        _typed(fields, "exc", dict, None),
        _typed(fields, "text", str, ""),
        _typed(fields, "about", bool, False),
        seconds("t", fields.get("t")),
        frozenset(offer for offer in OFFERS if _typed(fields, offer, bool, False)),
    )


def seconds(key: str, value: Any) -> float | None:
    """The seconds that stand under a key of a message's meta; None for none.

    Raises:
        ProtocolError: the value is no number of seconds.
    """
    if type(value) is float and value >= 0:
        return value
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _MOST_SECONDS:
        raise ProtocolError(f"{key!r} in the meta of a message is a number of seconds, not {_show(value)}")
    return float(value)


def _map_of(fields: Fields, key: str, kind: type) -> dict[str, Any]:
    value: dict[str, Any] = _typed(fields, key, dict, _NO_FIELDS)
    if not all(type(name) is str and (kind is object or type(item) is kind) for name, item in value.items()):
        raise ProtocolError(f"{key!r} in the meta of a message is a map of names, not {_show(value)}")
    return value


def _write_before(before: Preamble) -> Plain:
    fields: Fields = {}
    if before.levels is not None:
        fields["levels"] = before.levels
    if before.left is not None:
        fields["left"] = before.left
    return ["be", fields]


def _read_before(plain: Plain, fields: Fields) -> Preamble:
    return Preamble(_map_of(fields, "levels", int) if "levels" in fields else None, seconds("left", fields.get("left")))


def plain_request(args: Sequence[Any], kwargs: dict[str, Any], epoch: int, meta: RequestMeta | None = None) -> Plain:
    """The plain form of a :class:`Request` with these fields, made without one: this is the hot path."""
    if meta is not None:
        return ["do", _request_fields(kwargs, epoch, meta), *args]
    if kwargs:
        return ["do", {"kw": kwargs, "q": epoch} if epoch else {"kw": kwargs}, *args]
    return ["do", {"q": epoch} if epoch else None, *args]


def _request_fields(kwargs: dict[str, Any], epoch: int, meta: RequestMeta) -> Fields:
    fields: Fields = {}
    for key, value in (
        ("kw", kwargs),
        ("q", epoch),
        ("ld", meta.ld),
        ("headers", meta.headers),
        ("context", meta.context),
    ):
        if value:
            fields[key] = value
    fields.update(meta.others)
    if meta.has_timeout:
        fields["t"] = meta.timeout
    return fields


def _read_do(plain: Plain, fields: Fields) -> Request:
    args = plain[2:]
    epoch = fields.get("q", 0)
    if type(epoch) is not int:
        raise ProtocolError("'q' in the meta of a call is an int")
    if epoch and len(fields) == 1:
        return Request(args, {}, epoch)  # the hot path
    kwargs = fields.get("kw")
    if kwargs is None:
        kwargs = {}
    elif not are_names(kwargs):
        raise ProtocolError("'kw' in the meta of a call is a map with strings for its keys")
    return Request(args, kwargs, epoch, _read_request_meta(fields) if fields.keys() - _OF_ALL else None)


def are_names(kwargs: Any) -> bool:
    """Whether it is a map with strings for its keys."""
    if type(kwargs) is not dict:
        return False
    for key in kwargs:  # noqa: SIM110  # all() would make a generator, and this is a hot path
        if type(key) is not str:
            return False
    return True


_OF_ALL = frozenset({"kw", "q"})
_KNOWN = _OF_ALL | OF_ASPECTS | {"t"}


def _read_request_meta(fields: Fields) -> RequestMeta | None:
    meta = RequestMeta(
        seconds("t", fields.get("t")),
        "t" in fields,
        _typed(fields, "ld", bool, False),
        _map_of(fields, "headers", str),
        _map_of(fields, "context", object),
        {key: value for key, value in fields.items() if type(key) is str and key not in _KNOWN},
    )
    return meta if meta.has_timeout or meta.concerns_aspects else None


def _write_ok(ok: Value) -> Plain:
    return ["ok", None if ok.ld is None else {"ld": ok.ld}, ok.value]


def _read_ok(plain: Plain, fields: Fields) -> Value:
    if len(plain) < 3:
        raise ProtocolError("an 'ok' without its value")
    return Value(plain[2], _typed(fields, "ld", dict, None))


def _write_er(er: Failure) -> Plain:
    fields = {key: value for key, value in (("exc", er.exc), ("ld", er.ld)) if value is not None}
    return ["er", fields or None, er.text]


def _write_log(log: LogRecords) -> Plain:
    fields: Fields = {}
    if log.ld is not None:
        fields["ld"] = log.ld
    if log.dropped:
        fields["dropped"], fields["size"] = log.dropped, log.size
    return ["lg", fields or None, *log.records]


def _read_log(plain: Plain, fields: Fields) -> LogRecords:
    return LogRecords(
        plain[2:], _typed(fields, "ld", dict, None), _typed(fields, "dropped", int, 0), _typed(fields, "size", int, 0)
    )


def _read_extend(plain: Plain, fields: Fields) -> Extend:
    more = seconds("t", fields.get("t"))
    if more is None or more == math.inf:
        raise ProtocolError("an 'ex' without a number of seconds")
    return Extend(more)


def _write_rip(rip: LastWords) -> Plain:
    fields: Fields = {"pid": rip.pid, "method": rip.method, "elapsed": rip.elapsed, "maxrss": rip.maxrss}
    if rip.exitcode is not None:
        fields["exitcode"] = rip.exitcode
    if rip.signal:
        fields["signal"] = rip.signal
    if rip.stacks:
        fields["stacks"] = rip.stacks
    if rip.why:
        fields["why"] = rip.why
    return ["rip", fields]


def _read_rip(plain: Plain, fields: Fields) -> LastWords:
    return LastWords(
        _typed(fields, "pid", int, 0),
        _typed(fields, "exitcode", int, None),
        printable(_typed(fields, "signal", str, "")),
        printable(_typed(fields, "method", str, "")),
        _typed(fields, "elapsed", float, 0.0),
        _typed(fields, "maxrss", int, 0),
        printable_lines(_typed(fields, "stacks", str, "")),
        printable(_typed(fields, "why", str, "")),
    )


_WRITERS: dict[type, Callable[[Any], Plain]] = {
    Greeting: _write_hi,
    Preamble: _write_before,
    Request: lambda do: plain_request(do.args, do.kwargs, do.epoch, do.meta),
    Value: _write_ok,
    Failure: _write_er,
    Skipped: lambda sk: ["sk", None],
    LogRecords: _write_log,
    Extend: lambda extend: ["ex", {"t": extend.seconds}],
    Done: lambda done: ["dn", None],
    Retire: lambda bye: ["by", {"why": bye.why, "end": True} if bye.end else {"why": bye.why}],
    LastWords: _write_rip,
}

_READERS: dict[str, Callable[[Plain, Fields], Message]] = {
    "hi": _read_hi,
    "be": _read_before,
    "do": _read_do,
    "ok": _read_ok,
    "er": lambda plain, fields: Failure(
        _item(plain, str), _typed(fields, "exc", dict, None), _typed(fields, "ld", dict, None)
    ),
    "sk": lambda plain, fields: Skipped(),
    "lg": _read_log,
    "ex": _read_extend,
    "dn": lambda plain, fields: Done(),
    "by": lambda plain, fields: Retire(printable(_typed(fields, "why", str, "")), _typed(fields, "end", bool, False)),
    "rip": _read_rip,
}
