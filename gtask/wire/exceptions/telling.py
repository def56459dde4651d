"""Tells any exception as plain data of a bounded size: itself, its chains, and the parts that stay here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from types import TracebackType
from typing import Any

from gtask.wire.exceptions.anatomy import (
    BASE_GROUP,
    DEPTH,
    EXCEPTIONS,
    MANY,
    NESTING,
    NOTHING,
    RESERVED,
    SEALED,
    SLOTS,
    TEXT_LIMIT,
    bases,
    class_name,
    full_name,
    headline,
    notes,
    own_dict,
    parts,
)
from gtask.wire.exceptions.stayed import Stayed
from gtask.wire.exceptions.tracebacks import to_frames
from gtask.wire.plain import Room, cut

__all__ = ["Data", "brief", "describe", "text"]

Data = dict[str, Any]
Pickle = Callable[[Any], bytes]

_FRAMES = 1000  # frames of all tracebacks of a description
_FRAMES_EACH = 100  # frames of one traceback
_PICKLED = 1 << 20  # bytes of all pickles of a description
_NAME = 200  # characters of the name of a class that stays


def describe(exc: BaseException, *, text_limit: int = TEXT_LIMIT, pickle: Pickle | None = None) -> Data:
    """Tell an exception as plain data. Never raises.

    Args:
        exc: any exception, however ill-behaved.
        text_limit: characters after which a text is cut; a mark then says how many are missing. All
            texts together have 16 times as many.
        pickle: makes a pickle of an attribute that is not plain data; None where pickles are not agreed upon.

    Returns:
        ``{type, module, args, attrs, text, frames, cause, context, suppress, notes, group}``. ``type``
        is the qualified name of the class, ``text`` the ``str()``. ``args`` is a list, or None if one
        of them is not plain data or they are too many; of a group it is the message only. ``attrs`` is
        what is plain in the ``__dict__`` and in slots, and a few fields of builtins such as ``OSError.filename``.
        ``frames`` is as :func:`~gtask.wire.exceptions.tracebacks.to_frames` tells it. ``cause``, ``context`` and
        the members of ``group`` are the same again, or None; what occurs twice is told once. There may also be
        ``bases``, ``parts`` in place of ``args``, ``others`` beside ``attrs``, and ``id``: ``docs/protocol.rst`` tells
        their form.
    """
    try:
        data = _Telling(text_limit, pickle).exception(exc, DEPTH)
    except BaseException:  # out of memory or stack, or interrupted: that it failed must be told all the same
        data = None
    return data or _blank(*class_name(type(exc)), "<exception could not be described>")


def brief(exc: BaseException) -> Data:
    """Tell no more of an exception than its type and its ``str()``, in the form of :func:`describe`. Never raises."""
    try:
        module, name, message, _, _ = parts(exc)
        return _blank(module[:_NAME], name[:_NAME], cut(message, TEXT_LIMIT))
    except BaseException:  # as in describe
        return _blank(*class_name(type(exc)), "<exception could not be described>")


def text(exc: BaseException) -> str:
    """Tell an exception in one text for any peer, as the end of its traceback would.

    Args:
        exc: any exception, however ill-behaved.

    Returns:
        Its name, with the module unless that is ``builtins`` or ``__main__``, a colon and its ``str()``,
        cut after 65536 characters.
    """
    try:
        module, name, message, _, _ = parts(exc)
        return cut(headline("" if module == "__main__" else module, name, message), TEXT_LIMIT)
    except BaseException:  # as in describe
        return class_name(type(exc))[1]


def _blank(module: str, name: str, message: str) -> Data:
    return {
        "type": name,
        "module": module,
        "args": None,
        "attrs": {},
        "text": message,
        "frames": [],
        "cause": None,
        "context": None,
        "suppress": False,
        "notes": [],
        "group": None,
    }


class _Telling(Room):
    """One description, and what is left of its bounds."""

    def __init__(self, text_limit: int, pickle: Pickle | None) -> None:
        super().__init__(text_limit)
        self._pickle = pickle
        self._frames = _FRAMES
        self._pickled = _PICKLED
        self._told: dict[int, Data] = {}  # by the ids of the exceptions
        self._numbered = 0

    def exception(self, exc: BaseException | None, depth: int) -> Data | None:
        if exc is None or depth == 0 or id(exc) in self._told or len(self._told) >= EXCEPTIONS:
            return None
        module, name, message, args, attrs = parts(exc)
        data = self._told[id(exc)] = _blank(self.cut(module), self.cut(name), self.cut(message))
        data["frames"] = self._frames_of(SLOTS["__traceback__"].__get__(exc))
        data["notes"] = [self.cut(note) for note in notes(exc)]
        named = bases(exc)
        if named:
            data["bases"] = [self.cut(base) for base in named]
        data["args"] = self.plain_or_none(args)
        others = self._attributes(data, attrs)
        if BASE_GROUP and issubclass(type(exc), BASE_GROUP):
            self._members(data, vars(BASE_GROUP)["exceptions"].__get__(exc), depth)
        data["cause"] = self.exception(SLOTS["__cause__"].__get__(exc), depth - 1)
        data["context"] = self.exception(SLOTS["__context__"].__get__(exc), depth - 1)
        data["suppress"] = SLOTS["__suppress_context__"].__get__(exc)
        # An exception that is a cause as well is told there, for peers that know of no other place.
        if data["args"] is None and args is not None and len(args) <= MANY:
            data["parts"] = [self._part(value, depth, NESTING) for value in args]
        told = {self.cut(key): self._attribute(value, depth) for key, value in others.items()}
        told.update(self._sealed(exc))
        if told:
            data["others"] = told
        return data

    def _attributes(self, data: Data, attrs: dict[str, Any]) -> dict[str, Any]:
        """Tell those that are plain; returns the others."""
        others = {}
        for key, value in islice(attrs.items(), MANY):
            if type(key) is str and key not in RESERVED:
                plain = self.plain_or_none(value)
                if plain is not None or value is None:
                    data["attrs"][self.cut(key)] = plain
                else:
                    others[key] = value
        if len(attrs) > MANY:
            data["notes"].append(f"({len(attrs) - MANY} more attributes stayed in the worker)")
        return others

    def _members(self, data: Data, members: tuple[BaseException, ...], depth: int) -> None:
        told = (self.exception(member, depth - 1) for member in members[:EXCEPTIONS])
        data["group"] = [member for member in told if member]
        if missing := len(members) - len(data["group"]):
            data["notes"].append(f"({missing} more exceptions in this group)")

    def _frames_of(self, tb: TracebackType | None) -> list[list[Any]]:
        frames = to_frames(tb, min(self._frames, _FRAMES_EACH))
        self._frames = max(0, self._frames - len(frames))
        return frames

    # --- parts that are not plain -----------------------------------------------------------------------

    def _attribute(self, value: Any, depth: int) -> Data:
        """As :meth:`_part`, or as a pickle, which the receiver can load when it is asked for."""
        if self._pickle is not None and not _holds_exception(value, NESTING):
            try:
                pickled = self._pickle(value)
            except Exception:  # of pickle, or of the value's own methods
                pickled = b""
            if 0 < len(pickled) <= self._pickled:
                self._pickled -= len(pickled)
                return {**self._stays(value), "pickle": pickled}
        return self._part(value, depth, NESTING)

    def _part(self, value: Any, depth: int, nesting: int) -> Data:
        self.values -= 1
        plain = self.plain_or_none(value)
        if plain is not None or value is None:
            return {"value": plain}
        kind = type(value)
        if issubclass(kind, BaseException):
            return self._nested(value, depth) or self._stays(value)
        if self.values > 0 and nesting and kind in (list, tuple, dict) and len(value) <= MANY:
            if kind is not dict:
                return {"list": [self._part(item, depth, nesting - 1) for item in value]}
            if all(type(key) is str for key in value):
                items = ((self.cut(key), item) for key, item in value.items())
                return {"map": {key: self._part(item, depth, nesting - 1) for key, item in items}}
        return self._stays(value)

    def _nested(self, exc: BaseException, depth: int) -> Data | None:
        known = self._told.get(id(exc))
        if known is None:
            told = self.exception(exc, depth - 1)
            return None if told is None else {"exc": told}
        if "id" not in known:
            self._numbered += 1
            known["id"] = self._numbered
        return {"same": known["id"]}

    def _sealed(self, exc: BaseException) -> Data:
        """Attributes that came pickled, and that nobody has asked for."""
        sealed: dict[str, tuple[str, bytes]] = own_dict(exc).get(SEALED, NOTHING)
        return {
            key: {"type": kind} if self._pickle is None else {"type": kind, "pickle": data}
            for key, (kind, data, *_) in sealed.items()
        }

    def _stays(self, value: Any) -> Data:
        kind = type(value)
        return {"type": self.cut(value.gtask_type if kind is Stayed else full_name(kind)[:_NAME])}


def _holds_exception(value: Any, nesting: int) -> bool:
    """Whether it is an exception, or one is among the first parts of a container."""
    kind = type(value)
    if kind in (list, tuple, dict) and nesting:
        items = islice(value.values() if kind is dict else value, MANY)
        return any(_holds_exception(item, nesting - 1) for item in items)
    return issubclass(kind, (BaseException, Stayed))
