"""Any value as plain data of a bounded size: for what is told of exceptions and log records, and may be too large."""

from __future__ import annotations

import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from gtask.wire.values.bases import BASES, ChangedError, as_base, base_of

__all__ = ["Room", "cut"]

_TEXTS = 16  # all texts together have this many times as much as one
_ATOM_LIMIT = 4096  # bytes of one int or Decimal
_VALUES = 2000  # values in all
_NESTING = 8  # containers within containers
_CONTAINERS: Any = (list, tuple, dict, set, frozenset)
_TYPES: Any = frozenset({str, bytes, float, int, complex, date, datetime, time, timedelta, Decimal, UUID, *_CONTAINERS})


def cut(value: str, limit: int) -> str:
    """The text, or its beginning and how much is missing."""
    head = str.__getitem__(value, slice(limit))
    missing = str.__len__(value) - len(head)
    return f"{head}... ({missing} more characters)" if missing else head


class _NotPlainError(Exception):
    """Not plain data, or too much of it."""


def _base_of(value: Any, base: type) -> Any:
    try:
        return as_base(value, base)
    except ChangedError:
        raise _NotPlainError from None
    except BaseException:  # of the value's own methods: what is beneath them is told
        return BASES[base](value)


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
        """The value as plain data: of a subclass's instance the value of its base that it equals, of tuples lists."""
        kind = type(value)
        self.values -= 1
        if self.values < 0:
            raise _NotPlainError
        if value is None or kind is bool:
            return value
        base: Any = kind if kind in _TYPES else base_of(kind)
        if base not in _TYPES or not (nesting or base not in _CONTAINERS):
            raise _NotPlainError
        if base in _CONTAINERS and base.__len__(value) > self.values:
            raise _NotPlainError
        if base is not kind:
            value = _base_of(value, base)
        if base is str:
            return self.cut(value)
        if base is bytes:
            return self.cut_bytes(value)
        if base is float:
            return value
        return self.container(base, value, nesting - 1) if base in _CONTAINERS else self.atom(value)

    def atom(self, value: Any) -> Any:
        if sys.getsizeof(value) > _ATOM_LIMIT:
            raise _NotPlainError
        if type(value) in (datetime, time) and type(value.tzinfo) not in (type(None), timezone):
            offset = value.utcoffset()  # now, because a zone's code can fail
            return value.replace(tzinfo=None if offset is None else timezone(offset))
        return value

    def container(self, base: type, value: Any, nesting: int) -> Any:
        if base is dict:
            plain = {self.plain(key, 0): self.plain(item, nesting) for key, item in value.items()}
            if len(plain) < len(value) or not {type(key) for key in plain} <= {str, int, bytes, bool}:
                raise _NotPlainError
            return plain
        if base in (set, frozenset):
            members = base(self.plain(item, 0) for item in value)
            if len(members) < len(value):
                raise _NotPlainError
            return members
        return [self.plain(item, nesting) for item in value]
