"""Any value as plain data of a bounded size: for what is told of exceptions and log records, and may be too large."""

from __future__ import annotations

import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["Room", "cut"]

_TEXTS = 16  # all texts together have this many times as much as one
_ATOM_LIMIT = 4096  # bytes of one int or Decimal
_VALUES = 2000  # values in all
_NESTING = 8  # containers within containers
_ATOMS = (complex, date, datetime, time, timedelta, Decimal, UUID)  # what the codec has types for


def cut(value: str, limit: int) -> str:
    """The text, or its beginning and how much is missing."""
    head = str.__getitem__(value, slice(limit))
    missing = str.__len__(value) - len(head)
    return f"{head}... ({missing} more characters)" if missing else head


class _NotPlainError(Exception):
    """Not plain data, or too much of it."""


class Room:
    """What is left of the bounds of one description.

    Args:
        text_limit: characters of one text, and bytes of one bytes.
    """

    def __init__(self, text_limit: int) -> None:
        self.text_limit = text_limit
        self.chars = _TEXTS * text_limit
        self.values = _VALUES

    def cut(self, value: str) -> str:
        limit = min(self.text_limit, self.chars)
        self.chars -= min(str.__len__(value), limit)
        return cut(value, limit)

    def cut_bytes(self, value: bytes) -> bytes:
        limit = min(self.text_limit, self.chars)
        head = bytes.__getitem__(value, slice(limit))
        self.chars -= len(head)
        missing = bytes.__len__(value) - len(head)
        return b"%b... (%d more bytes)" % (head, missing) if missing else head

    def plain_or_none(self, value: object) -> Any:
        try:
            return self.plain(value, _NESTING)
        except Exception:  # not plain, or another thread changes it meanwhile
            return None

    def plain(self, value: Any, nesting: int) -> Any:
        """The value as plain data: of subclasses what they are derived from, of tuples lists."""
        kind = type(value)
        self.values -= 1
        if self.values < 0:
            raise _NotPlainError
        if value is None or kind is bool:
            return value
        if issubclass(kind, str):
            return self.cut(value)
        if issubclass(kind, bytes):
            return self.cut_bytes(value)
        if issubclass(kind, float):
            return float.__float__(value)
        if issubclass(kind, int) or kind in _ATOMS:
            return self.atom(int.__index__(value) if issubclass(kind, int) else value)
        if nesting and issubclass(kind, (list, tuple, dict, set, frozenset)):
            return self.container(kind, value, nesting - 1)
        raise _NotPlainError

    def atom(self, value: Any) -> Any:
        if sys.getsizeof(value) > _ATOM_LIMIT:
            raise _NotPlainError
        if type(value) in (datetime, time) and type(value.tzinfo) not in (type(None), timezone):
            offset = value.utcoffset()  # now, because a zone's code can fail
            return value.replace(tzinfo=None if offset is None else timezone(offset))
        return value

    def container(self, kind: type, value: Any, nesting: int) -> Any:
        base: Any = next(base for base in (list, tuple, dict, set, frozenset) if issubclass(kind, base))
        if base.__len__(value) > self.values:
            raise _NotPlainError
        if base is dict:
            plain = {self.plain(key, 0): self.plain(item, nesting) for key, item in dict.items(value)}
            if not {type(key) for key in plain} <= {str, int, bytes}:
                raise _NotPlainError
            return plain
        if base in (set, frozenset):
            return base(self.plain(item, 0) for item in base.__iter__(value))
        return [self.plain(item, nesting) for item in base.__iter__(value)]
