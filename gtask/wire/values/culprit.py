"""Why a message cannot travel: what is refused before it is packed, and which part of a message is at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gtask.errors import EncodeError
from gtask.wire.values.kinds import Ext, NotTransferable, type_name
from gtask.wire.values.remedies import remedy

__all__ = ["SCALARS", "check_keys", "places", "refusal"]

SCALARS = frozenset({type(None), bool, int, float, str, bytes})
"""Classes whose instances need no check."""

_KEYS = frozenset({str, int, bytes})


class _KeysError(TypeError):
    """There is a dict whose keys cannot travel, or a value that would break the frame."""


def check_keys(value: Any) -> None:
    """Refuse what msgpack would write but nobody could read: maps whose keys are not str, int or bytes."""
    if isinstance(value, dict):
        if not _KEYS.issuperset(map(type, value)):
            for key in value:
                if not isinstance(key, (str, int, bytes)):
                    raise _KeysError(f"a dict with the key {key!r:.60} cannot travel: keys may be str, int or bytes")
        parts: Any = value.values()
    elif isinstance(value, (list, tuple)):
        if type(value) is Ext:
            raise _KeysError("a msgpack.ExtType cannot travel")
        parts = value
    else:
        return
    if not SCALARS.issuperset(map(type, parts)):
        for part in parts:
            if type(part) not in SCALARS:
                check_keys(part)


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


def refusal(plain: list[Any], error: Exception, pack: Callable[[Any], bytes], no_fallback: str) -> EncodeError:
    """The error of a message that cannot travel.

    Args:
        plain: the message.
        error: what the packer said about it.
        pack: packs one value.
        no_fallback: why no pickle stands for the value at fault; "" for no word about it.
    """
    if isinstance(error, EncodeError):
        return error
    if isinstance(error, RecursionError) or "recursion limit" in _text(error):
        return EncodeError("a value that is nested too deeply (or contains itself) cannot travel")
    advice = f". {no_fallback}" if no_fallback and not isinstance(error, NotTransferable) else ""
    if isinstance(error, _KeysError):
        return EncodeError(f"{error}{advice}")
    for place, whole, key in places(plain):
        try:
            found = _culprit(pack, whole[key], place)
        except Exception:  # its methods raise even when it is only looked at
            found = (f"{place} is or holds something that cannot be looked at", "")
        if found is not None:
            phrase, remedied = found
            advice = f". {remedied}" if remedied else advice
            return EncodeError(
                f"cannot travel: {phrase}. What can: None, bool, int, float, str, bytes, list, tuple, dict, "
                f"set, datetime and its kin, Decimal, UUID, complex, numpy's arrays and scalars{advice}"
            )
    return EncodeError(f"cannot travel: {_text(error)}")


def _culprit(pack: Callable[[Any], bytes], value: Any, place: str) -> tuple[str, str] | None:
    """The part of a value that could not be packed, for the error's text, and its remedy; None if it can be packed."""
    try:
        pack(value)
    except Exception as error:  # whatever the packer said about the whole, ask for each part
        if isinstance(value, dict):
            parts: Any = ((f"{place}[{key!r:.40}]", part) for key, part in value.items())
        elif isinstance(value, (list, tuple)):
            parts = ((f"{place}[{index}]", part) for index, part in enumerate(value))
        else:
            parts = ()
        for inner_place, part in parts:
            found = _culprit(pack, part, inner_place)
            if found is not None:
                return found
        reason = "" if str(error) == f"a {type(value).__name__}" else f": {error}"
        return f"{place} is of type {type_name(value)}{reason}", remedy(value, place)
    return None


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # whatever its class does
        return type(error).__name__
