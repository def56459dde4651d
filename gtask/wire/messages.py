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
    "VERSION",
    "Bye",
    "Do",
    "Done",
    "Er",
    "Hi",
    "Message",
    "Ok",
    "Rip",
    "Sk",
    "from_plain",
    "plain_do",
    "to_plain",
]

DEFAULT_LIMIT = 64 * 1024 * 1024
"""Bytes that a frame may have, its length prefix not counted."""

VERSION = 1
"""The version of the protocol, told in both greetings."""

Plain = list[Any]
Meta = dict[str, Any]


@dataclass(slots=True)
class Hi:
    """The greeting. From the client: who calls. From the worker: who serves, once ``setup`` has run."""

    version: int = VERSION
    name: str = ""
    pid: int = 0
    done: bool = False
    """Worker: there is a checkout_done hook, so the end of a checkout is answered."""
    exc: Meta | None = None
    """Worker: setup failed with this exception (section "exceptions" of the protocol)."""
    text: str = ""
    """Worker: the same for a peer that cannot rebuild it."""
    about: bool = False
    """Client: it asks about the server, and does not want the application."""


@dataclass(slots=True)
class Do:
    """A call. By convention the first of its arguments names the method."""

    args: Sequence[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    """Which of the client's queues it belongs to (see :mod:`gtask.wire.exchange`); 0 for none."""


@dataclass(slots=True)
class Ok:
    """The value of a call."""

    value: Any


@dataclass(slots=True)
class Er:
    """The exception of a call: ``text`` for any peer, ``exc`` for one that can rebuild it."""

    text: str
    exc: Meta | None = None


@dataclass(slots=True)
class Sk:
    """A call that was not executed, because an earlier one of its epoch failed."""


@dataclass(slots=True)
class Done:
    """From the client: the checkout is over. From the worker: checkout_done has run."""


@dataclass(slots=True)
class Bye:
    """From the worker: retire me, for this reason."""

    why: str


@dataclass(slots=True)
class Rip:
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


Message = Hi | Do | Ok | Er | Sk | Done | Bye | Rip


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
    kind, meta = plain[0], plain[1]
    if kind == "ok" and meta is None and len(plain) == 3:
        return Ok(plain[2])  # the hot path
    reader = _READERS.get(kind) if type(kind) is str else None
    if reader is None:
        raise ProtocolError(f"unknown kind of message: {_show(kind)}")
    if meta is None:
        meta = _NO_META
    elif type(meta) is not dict:
        raise ProtocolError("the second item of a message is a map or nil")
    return reader(plain, meta)


_NO_META: Meta = {}


def _typed(meta: Meta, key: str, kind: type, default: Any) -> Any:
    value = meta.get(key, default)
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


def _write_hi(hi: Hi) -> Plain:
    meta: Meta = {"v": hi.version}
    for key, value in (("name", hi.name), ("pid", hi.pid), ("done", hi.done), ("text", hi.text), ("about", hi.about)):
        if value:
            meta[key] = value
    if hi.exc is not None:
        meta["exc"] = hi.exc
    return ["hi", meta]


def _read_hi(plain: Plain, meta: Meta) -> Hi:
    version = _typed(meta, "v", int, 0)
    if version != VERSION:
        raise ProtocolError(f"the peer speaks version {_show(version)} of the protocol, this side version {VERSION}")
    return Hi(
        version,
        _typed(meta, "name", str, ""),
        _typed(meta, "pid", int, 0),
        _typed(meta, "done", bool, False),
        _typed(meta, "exc", dict, None),
        _typed(meta, "text", str, ""),
        _typed(meta, "about", bool, False),
    )


def plain_do(args: Sequence[Any], kwargs: dict[str, Any], epoch: int) -> Plain:
    """The plain form of a :class:`Do` with these fields, made without one: this is the hot path."""
    if kwargs:
        return ["do", {"kw": kwargs, "q": epoch} if epoch else {"kw": kwargs}, *args]
    return ["do", {"q": epoch} if epoch else None, *args]


def _read_do(plain: Plain, meta: Meta) -> Do:
    args = plain[2:]
    epoch = meta.get("q", 0)
    if type(epoch) is not int:
        raise ProtocolError("'q' in the meta of a call is an int")
    kwargs = meta.get("kw")
    if kwargs is None:
        return Do(args, {}, epoch)
    if type(kwargs) is not dict or not all(type(key) is str for key in kwargs):
        raise ProtocolError("'kw' in the meta of a call is a map with strings for its keys")
    return Do(args, kwargs, epoch)


def _write_er(er: Er) -> Plain:
    return ["er", None if er.exc is None else {"exc": er.exc}, er.text]


def _read_ok(plain: Plain, meta: Meta) -> Ok:
    if len(plain) < 3:
        raise ProtocolError("an 'ok' without its value")
    return Ok(plain[2])


def _write_rip(rip: Rip) -> Plain:
    meta: Meta = {"pid": rip.pid, "method": rip.method, "elapsed": rip.elapsed, "maxrss": rip.maxrss}
    if rip.exitcode is not None:
        meta["exitcode"] = rip.exitcode
    if rip.signal:
        meta["signal"] = rip.signal
    if rip.stacks:
        meta["stacks"] = rip.stacks
    if rip.why:
        meta["why"] = rip.why
    return ["rip", meta]


def _read_rip(plain: Plain, meta: Meta) -> Rip:
    return Rip(
        _typed(meta, "pid", int, 0),
        _typed(meta, "exitcode", int, None),
        _typed(meta, "signal", str, ""),
        _typed(meta, "method", str, ""),
        _typed(meta, "elapsed", float, 0.0),
        _typed(meta, "maxrss", int, 0),
        _typed(meta, "stacks", str, ""),
        _typed(meta, "why", str, ""),
    )


_WRITERS: dict[type, Callable[[Any], Plain]] = {
    Hi: _write_hi,
    Do: lambda do: plain_do(do.args, do.kwargs, do.epoch),
    Ok: lambda ok: ["ok", None, ok.value],
    Er: _write_er,
    Sk: lambda sk: ["sk", None],
    Done: lambda done: ["dn", None],
    Bye: lambda bye: ["by", {"why": bye.why}],
    Rip: _write_rip,
}

_READERS: dict[str, Callable[[Plain, Meta], Message]] = {
    "hi": _read_hi,
    "do": _read_do,
    "ok": _read_ok,
    "er": lambda plain, meta: Er(_item(plain, str), _typed(meta, "exc", dict, None)),
    "sk": lambda plain, meta: Sk(),
    "dn": lambda plain, meta: Done(),
    "by": lambda plain, meta: Bye(_typed(meta, "why", str, "")),
    "rip": _read_rip,
}
