"""The whole vocabulary of the wire: each message as a class, and its plain form ``[kind, meta, ...]``.

A message knows its fields; :func:`to_plain` and :func:`from_plain` are the only places that know where a
field stands on the wire. Unknown keys of ``meta`` are ignored, an unknown kind is a ProtocolError.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gtask.errors import ProtocolError

__all__ = [
    "DEFAULT_LIMIT",
    "OFFERS",
    "VERSION",
    "WORDS",
    "Done",
    "Extend",
    "Failure",
    "Greeting",
    "LastWords",
    "LogRecords",
    "Message",
    "Preamble",
    "Request",
    "RequestMeta",
    "Retire",
    "Skipped",
    "Value",
    "from_plain",
    "plain_request",
    "to_plain",
]

DEFAULT_LIMIT = 64 * 1024 * 1024
"""Bytes that a frame may have, its length prefix not counted."""

VERSION = 1
"""The version of the protocol, told in both greetings."""

OFFERS = ("pickle", "numpy")
"""The keys in a greeting by which a side offers kinds of values that both must want: it consents to pickles, both ways;
it has numpy."""

Plain = list[Any]
Fields = dict[str, Any]


@dataclass(slots=True)
class Greeting:
    """The greeting. From the client: who calls. From the worker: who serves, once ``setup`` has run."""

    version: int = VERSION
    name: str = ""
    pid: int = 0
    done: bool = False
    """Worker: there is a checkout_done hook, so the end of a checkout is answered."""
    exc: Fields | None = None
    """Worker: setup failed with this exception (section "exceptions" of the protocol)."""
    text: str = ""
    """Worker: the same for a peer that cannot rebuild it."""
    about: bool = False
    """Client: it asks about the server, and does not want the application."""
    timeout: float | None = None
    """Client: seconds that its calls may take, unless they say otherwise; None for no limit."""
    offers: frozenset[str] = frozenset()
    """The offers of :data:`OFFERS` that it makes."""


@dataclass(slots=True)
class Preamble:
    """From the client: what the worker must know before the next call."""

    levels: dict[str, int] | None = None
    """Which log records are wanted from now on: the level of each logger that differs from that of its parent, the root
    logger's under ""; an empty map for none at all. None: as before."""
    left: float | None = None
    """Seconds that the next call has left, if it has waited for the worker already."""


@dataclass(slots=True)
class RequestMeta:
    """What few calls have."""

    timeout: float | None = None
    """Seconds that it may take, if ``has_timeout``; None for no limit."""
    has_timeout: bool = False
    ld: bool = False
    """Whether what the worker writes into its deferred log is wanted."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of the request to which the call belongs, such as ``traceparent``."""
    context: dict[str, Any] = field(default_factory=dict)
    """The values of context variables, by ``module:name``."""
    others: dict[str, Any] = field(default_factory=dict)
    """The values of further aspects, by their keys."""

    def put(self, key: str, value: Any) -> None:
        """Set the value of an aspect."""
        if key in _OF_ASPECTS:
            setattr(self, key, value)
        else:
            self.others[key] = value


@dataclass(slots=True)
class Request:
    """A call. By convention the first of its arguments names the method."""

    args: Sequence[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    """Which of the client's queues it belongs to (see :mod:`gtask.wire.conversation`); 0 for none."""
    meta: RequestMeta | None = None
    used: frozenset[str] = frozenset()
    """The offers under which parts of the call have come that are to be opened before it runs."""


@dataclass(slots=True)
class Value:
    """The value of a call."""

    value: Any
    ld: Fields | None = None
    """What the worker has written into its deferred log, for a peer that knows no :class:`LogRecords`."""
    used: frozenset[str] = frozenset()
    """The offers under which parts of it have come that are to be opened before its caller gets it."""


@dataclass(slots=True)
class Failure:
    """The exception of a call: ``text`` for any peer, ``exc`` for one that can rebuild it."""

    text: str
    exc: Fields | None = None
    ld: Fields | None = None
    """As in :class:`Value`."""


@dataclass(slots=True)
class Skipped:
    """A call that was not executed, because an earlier one of its epoch failed."""


@dataclass(slots=True)
class LogRecords:
    """From the worker, before its reply: what the call has logged since the last."""

    records: Sequence[Any] = ()
    """As :mod:`gtask.aspects.logs.record` makes them."""
    ld: Fields | None = None
    """What it has written into its deferred log (:mod:`gtask.logdefer`)."""
    dropped: int = 0
    """How many records were left out, because the call had logged too much; ``size``, about how many bytes they had."""
    size: int = 0


@dataclass(slots=True)
class Extend:
    """From the worker, before its reply: the call wants so many more seconds, from now on."""

    seconds: float


@dataclass(slots=True)
class Done:
    """From the client: the checkout is over. From the worker: checkout_done has run."""


@dataclass(slots=True)
class Retire:
    """From the worker: retire me, for this reason."""

    why: str


@dataclass(slots=True)
class LastWords:
    """From the master: the last words for a worker that died."""

    pid: int = 0
    exitcode: int | None = None
    signal: str = ""
    method: str = ""
    elapsed: float = 0.0
    maxrss: int = 0
    """The most memory that it used, in KiB."""
    stacks: str = ""
    """Where its threads were, as faulthandler wrote it down."""
    why: str = ""
    """Why its master has ended it, if it has."""


Message = Greeting | Preamble | Request | Value | Failure | Skipped | LogRecords | Extend | Done | Retire | LastWords


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


def _typed(fields: Fields, key: str, kind: type, default: Any) -> Any:
    value = fields.get(key, default)
    if type(value) is not kind and value is not default:
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
        _typed(fields, "name", str, ""),
        _typed(fields, "pid", int, 0),
        _typed(fields, "done", bool, False),
        _typed(fields, "exc", dict, None),
        _typed(fields, "text", str, ""),
        _typed(fields, "about", bool, False),
        _seconds(fields, "t"),
        frozenset(offer for offer in OFFERS if _typed(fields, offer, bool, False)),
    )


def _seconds(fields: Fields, key: str) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not value >= 0:
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
    return Preamble(_map_of(fields, "levels", int) if "levels" in fields else None, _seconds(fields, "left"))


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
    elif type(kwargs) is not dict or not all(type(key) is str for key in kwargs):
        raise ProtocolError("'kw' in the meta of a call is a map with strings for its keys")
    return Request(args, kwargs, epoch, _read_request_meta(fields) if fields.keys() - _OF_ALL else None)


_OF_ALL = frozenset({"kw", "q"})
_OF_ASPECTS = frozenset({"ld", "headers", "context"})
_KNOWN = _OF_ALL | _OF_ASPECTS | {"t"}


def _read_request_meta(fields: Fields) -> RequestMeta:
    return RequestMeta(
        _seconds(fields, "t"),
        "t" in fields,
        _typed(fields, "ld", bool, False),
        _map_of(fields, "headers", str),
        _map_of(fields, "context", object),
        {key: value for key, value in fields.items() if key not in _KNOWN},
    )


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
    seconds = _seconds(fields, "t")
    if seconds is None:
        raise ProtocolError("an 'ex' without its seconds")
    return Extend(seconds)


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
        _typed(fields, "signal", str, ""),
        _typed(fields, "method", str, ""),
        _typed(fields, "elapsed", float, 0.0),
        _typed(fields, "maxrss", int, 0),
        _typed(fields, "stacks", str, ""),
        _typed(fields, "why", str, ""),
    )


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
    Retire: lambda bye: ["by", {"why": bye.why}],
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
    "by": lambda plain, fields: Retire(_typed(fields, "why", str, "")),
    "rip": _read_rip,
}
