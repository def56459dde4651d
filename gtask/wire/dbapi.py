"""What :mod:`gtask.dbapi` and :mod:`gtask.server.dbapi` must agree on: a few words, and how tuples travel.

To a database driver ``(1, 2)`` and ``[1, 2]`` mean different things, at any depth, so a tuple that lies in a value is
marked; and so is what is neither of a plain type nor one of those that travel by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["METHOD", "NO_SUCH", "SCALARS", "TOLD", "VALUE", "Verbatim", "mark", "plain_size", "unmark"]

NO_SUCH, VALUE, METHOD = range(3)
"""What a name is to a connection or a cursor, for a client that asks."""

TOLD = "gtask_dbapi"
"""The attribute in which the worker tells of an error what its class keeps in C: ``{"classes": [full names of it and
its bases], "attributes": {name: plain value}}``."""

SCALARS = frozenset({type(None), bool, int, float, str, bytes})
"""What travels as it is, at no cost of looking closer."""

_TEXTS = frozenset({str, bytes})

_TUPLE, _VIEW, _VERBATIM = b"tuple", b"memoryview", b"verbatim"


class Verbatim(str):
    """A parameter that stands in the statement as it is, not quoted; for a driver that knows such ones."""

    __slots__ = ()


def plain_size(rows: Sequence[Any]) -> int | None:
    """The characters and bytes in rows of plain values; None if some are not plain, or rows differ in length."""
    size = 0
    try:
        for column in zip(*rows, strict=True):
            kinds = {*map(type, column)}
            if kinds <= _TEXTS:
                size += sum(map(len, column))
            elif not kinds <= SCALARS:
                return None
            elif kinds & _TEXTS:
                size += sum([len(value) for value in column if type(value) in _TEXTS])
    except (TypeError, ValueError):
        return None
    return size


def mark(value: Any) -> Any:
    """The value with each tuple, memoryview and :class:`Verbatim` in it, or it itself, marked; what it is made of is
    left as it is."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if issubclass(kind, tuple):
        return {_TUPLE: [mark(item) for item in value]}
    if issubclass(kind, list):
        return [mark(item) for item in value]
    if issubclass(kind, dict):
        return {key: mark(item) for key, item in value.items()}
    if kind is memoryview:
        return {_VIEW: bytes(value)}
    if kind is Verbatim:
        return {_VERBATIM: str(value)}
    return value


def unmark(value: Any) -> Any:
    """What :func:`mark` was given; subclasses of tuple, list and dict are plain ones now."""
    kind = type(value)
    if kind is list:
        return [unmark(item) for item in value]
    if kind is dict:
        if len(value) == 1:
            [(key, item)] = value.items()
            if key in _MAKERS:
                return _MAKERS[key](item)
        return {key: unmark(item) for key, item in value.items()}
    return value


def _tuple(items: Any) -> tuple[Any, ...]:
    return tuple(map(unmark, items))


_MAKERS: dict[Any, Callable[[Any], Any]] = {_TUPLE: _tuple, _VIEW: memoryview, _VERBATIM: Verbatim}
