"""An instance of a subclass as the value of the builtin type that it equals: what travels where no class is told.

What an object is to its users may be more than what its base keeps: a mapping that shows one value of several, a date
that is no date at all. So the base's content is read without the class's own methods, and then compared with what these
say. Where the two differ the value would arrive changed, and is refused.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any

__all__ = ["BASES", "ChangedError", "as_base", "base_of", "cut", "type_name"]


class ChangedError(TypeError):
    """A value would arrive as one that it does not equal."""


_DATE: Any = vars(datetime.date)
_TIME: Any = vars(datetime.time)
_DELTA: Any = vars(datetime.timedelta)
_COMPLEX: Any = vars(complex)


def _fields(slots: Any, value: Any, *names: str) -> list[Any]:
    return [slots[name].__get__(value) for name in names]


def _datetime(value: Any) -> datetime.datetime:
    return datetime.datetime.combine(datetime.datetime.date(value), datetime.datetime.timetz(value))


def _date(value: Any) -> datetime.date:
    return datetime.date(*_fields(_DATE, value, "year", "month", "day"))


def _time(value: Any) -> datetime.time:
    *when, fold = _fields(_TIME, value, "hour", "minute", "second", "microsecond", "tzinfo", "fold")
    return datetime.time(*when, fold=fold)


def _timedelta(value: Any) -> datetime.timedelta:
    return datetime.timedelta(*_fields(_DELTA, value, "days", "seconds", "microseconds"))


def _complex(value: Any) -> complex:
    return complex(*_fields(_COMPLEX, value, "real", "imag"))


BASES: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__index__,
    float: float.__float__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    bytearray: lambda value: bytearray.__getitem__(value, slice(None)),
    memoryview: bytes,
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    datetime.datetime: _datetime,
    datetime.date: _date,
    datetime.time: _time,
    datetime.timedelta: _timedelta,
    decimal.Decimal: decimal.Decimal,
    uuid.UUID: lambda value: uuid.UUID(int=value.int),
    complex: _complex,
}
"""The types that travel, each with what makes a plain value of an instance of a subclass. A datetime is a date, too."""

_ALL = tuple(BASES)


def base_of(kind: type) -> type | None:
    """The type of :data:`BASES` that a class derives from; None if it derives from none."""
    if not issubclass(kind, _ALL):
        return None
    return next(base for base in BASES if issubclass(kind, base))


def as_base(value: Any, base: type) -> Any:
    """The value of the base that an instance of a subclass equals; a memoryview is one of bytes.

    Args:
        value: the instance; of a container the parts are left as they are.
        base: its :func:`base_of`.

    Raises:
        ChangedError: it equals no such value.
        Exception: whatever its methods raise.
    """
    plain = BASES[base](value)
    if not (_is_same(plain, value) and _looks_same(plain, value, base)):
        raise ChangedError(f"as a plain {type(plain).__name__} it would arrive changed")
    return plain


def _is_same(plain: Any, value: Any) -> bool:
    if plain == value:
        return True
    return bool(plain != plain and value != value)  # it is not a number, here and there


def _looks_same(plain: Any, value: Any, base: type) -> bool:
    """Whether a container shows what it contains, and a date the day that it is."""
    if base is dict:
        return (
            list(value) == list(plain)
            and list(value.items()) == list(plain.items())
            and (type(value).__getitem__ is dict.__getitem__ or all(value[key] is plain[key] for key in plain))
        )
    if base is list or base is tuple:
        return list(value) == list(plain)
    if base is set or base is frozenset:
        return len(list(value)) == len(plain)
    return base is not datetime.date or bool(value.isoformat() == plain.isoformat())


def type_name(value: Any) -> str:
    """The full name of a value's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def cut(value: Any, size: int) -> str:
    """The beginning of a value's repr."""
    try:
        return f"{value!r:.{size}}"
    except Exception:  # whatever its class does, or an int of too many digits
        return "?"
