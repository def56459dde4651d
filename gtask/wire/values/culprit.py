"""Where in a message a value stands, and whether it is one that the packer would change or nobody could read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from gtask.errors import EncodeError
from gtask.wire.limits import DEFAULTS
from gtask.wire.values.bases import BASES, cut, faithful_base, type_name
from gtask.wire.values.kinds import LIGHT, UNKNOWN, Ext, NotTransferable, Timestamp, UnusualError, is_large

__all__ = [
    "KEYS", "LEVELS", "OWN", "Place", "check", "phrase", "places", "refusal", "shallow", "shown",
    "spelled",
]  # fmt: skip

KEYS = frozenset({str, int, bytes, bool})
"""The classes that keys may be of."""

OWN = (str, int, float, bytes, bytearray, memoryview, list, tuple, dict, Timestamp)
"""What the packer writes by itself, instances of subclasses as well, without asking."""

_RAW = frozenset({bytes, bytearray})
_PLAIN = frozenset({*BASES}.difference({str, int, float, memoryview, list, tuple, dict}, _RAW))
"""Of these classes themselves there is nothing to be found out, nor do their instances hold what the packer writes."""

LEVELS = DEFAULTS.nesting - 24
"""How deep a value may be nested, so that its reader, who also reads what is around it, does not refuse it. Python's
own limit would strike before, but an application may have raised it."""

_ROWS = frozenset({list, tuple})

MANY = 10
"""Values in a container for which it is worth while to look at all their types at once."""

Place = tuple[Any, Any]
"""Where in a message: the place of the whole, as a text or again a tuple, and the key or index in it."""


def check(value: Any, is_lossless: bool, levels: int = LEVELS) -> bool:
    """Find what msgpack would write as something else, or so that nobody could read it: keys of other types than str,
    int and bytes, and instances of subclasses that differ from their base.

    Args:
        value: the value.
        is_lossless: whether other instances of subclasses count, too, for they would lose their class.
        levels: how deep lists and maps may lie in it.

    Returns:
        whether the value, or one in it, is large.

    Raises:
        UnusualError: there is such a value; the message needs a copy.
        RecursionError: it is nested too deeply, or contains itself.
    """
    cls: Any = type(value)
    if cls is not dict and cls is not list and cls is not tuple:
        if cls in _RAW:
            return is_large(value)
        if cls in _PLAIN:
            return False
        if cls is memoryview and value.c_contiguous and is_large(value):
            return True
        cls = _packed_as(cls, is_lossless)
    if cls is dict:
        if not KEYS.issuperset(map(type, value)):
            raise UnusualError("a key of another type")
        parts: Any = value.values()
    elif cls is list or cls is tuple:
        parts = value
    else:
        return cls is None and is_large(value)
    if not levels:
        raise RecursionError
    if len(parts) >= MANY and _is_table(parts):
        return False
    found = False
    for part in parts:
        if type(part) not in LIGHT and check(part, is_lossless, levels - 1):
            found = True
    return found


def _is_table(parts: Any) -> bool:
    """Whether all of many values, or of rows of values, are of the plainest types. That is found out at once."""
    kinds = {*map(type, parts)}
    return kinds <= LIGHT or (kinds <= _ROWS and LIGHT.issuperset(map(type, chain.from_iterable(parts))))


def _packed_as(cls: Any, is_lossless: bool) -> type | None:
    """The type as of which the packer writes the instances of another class; None if it asks for each.

    Raises:
        UnusualError: it must not.
    """
    if not issubclass(cls, OWN):
        return None
    is_scalar = cls.__module__ == "numpy"  # which arrive as Python's, whatever is agreed upon
    base = faithful_base(cls) if cls is not Ext and (is_scalar or not is_lossless) else None
    if base is None or base is memoryview:
        raise UnusualError("an instance of a subclass")
    return base


def places(plain: list[Any]) -> Iterator[tuple[str, Any, Any]]:
    """The values in a message: the name of each in an error, its container, and its key or index there."""
    kind, fields = plain[0], plain[1]
    if kind == "ok":
        yield "the result", plain, 2
    if kind == "do":
        for index in range(2, len(plain)):
            yield f"argument {index - 2}", plain, index
        for key, what in (("kw", "argument"), ("context", "the context variable")):
            for name in fields[key] if fields and key in fields else ():
                yield f"{what} {name}", fields[key], name


def shallow(plain: list[Any]) -> list[Any]:
    """A copy of a message in which each of the :func:`places` can be given another value."""
    copy = list(plain)
    if copy[1] is not None:
        copy[1] = {key: dict(part) if type(part) is dict else part for key, part in copy[1].items()}
    return copy


def phrase(value: Any, place: str | Place) -> str:
    """A value, for an error: where it stands, and its class."""
    return f"{spelled(place)} is of type {type_name(value)}"


def spelled(place: str | Place) -> str:
    """A place in words, such as ``argument 1['key']``."""
    keys: list[str] = []
    while isinstance(place, tuple):
        place, key = place
        keys.append(f"[{cut(key, 40)}]")
    return place + "".join(reversed(keys))


def refusal(found: str, error: Exception | None, advice: str) -> EncodeError:
    """The error of a value that cannot travel.

    Args:
        found: its :func:`phrase`.
        error: what the packing said about it; None for nothing.
        advice: what would let it travel; "" for no word about that.
    """
    reason = "" if error is None or shown(error) == UNKNOWN else f": {shown(error)}"
    if isinstance(error, NotTransferable):
        return EncodeError(f"cannot travel: {found}{reason}")
    return EncodeError(
        f"cannot travel: {found}{reason}. What can: None, bool, int, float, str, bytes, list, tuple, dict, "
        f"set, datetime and its kin, Decimal, UUID, complex, numpy's arrays and scalars{advice and f'. {advice}'}"
    )


def shown(error: Exception) -> str:
    """What an error says, in an error's text."""
    try:
        return f"{error!s:.300}" or type(error).__name__
    except Exception:  # whatever its class does
        return type(error).__name__
