"""What only a pickle can carry, where both sides have consented: made here, and nowhere else loaded.

A pickle stands for a part of a message (:mod:`gtask.wire.values.copies`). What has come is kept :class:`Sealed` until
the whole frame was read and its call is about to run, or its caller about to get the value: to load it is to run code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from gtask.errors import EncodeError
from gtask.wire.values.kinds import PICKLE, Ext
from gtask.wire.values.unpacking import Unpacking

__all__ = ["PROTOCOL", "Sealed", "load", "seal", "stand_in", "unseal"]

PROTOCOL = 5


def stand_in(value: Any) -> Any:
    """The pickle of a value; raises whatever pickle, or a method of the value's, raises."""
    return Ext(PICKLE, pickle.dumps(value, PROTOCOL))


def load(data: bytes) -> Any:
    """The value of a pickle that :func:`stand_in` has made. This runs code that the peer has chosen."""
    return pickle.loads(data)


class Sealed:
    """A pickled value that has come, and is not yet loaded."""

    __slots__ = ("data",)
    __hash__ = None  # type: ignore[assignment]  # it is no key, and no member of a set

    def __init__(self, data: bytes) -> None:
        self.data = data


def seal(data: bytes, unpacking: Unpacking) -> Sealed:
    """A pickle that has come; the decoder notes that it is yet to be opened."""
    unpacking.used.add("pickle")
    return Sealed(data)


def unseal(whole: Any, name: Callable[[Any], str]) -> None:
    """Load what is sealed in a list or map, in its place. This runs code that the peer has chosen.

    Args:
        whole: as it was read.
        name: what to call its items in an error, by their keys or indexes.

    Raises:
        EncodeError: a part could not be loaded; the message says which, and why.
    """
    for first, part in _items(whole):
        holders = [(whole, first, part)]
        while holders:
            holder, key, part = holders.pop()
            if type(part) is Sealed:
                holder[key] = _load(part, name(first))
            elif type(part) in (list, dict):
                holders += [(part, inner_key, inner) for inner_key, inner in _items(part)]


def _items(holder: Any) -> list[tuple[Any, Any]]:
    return list(holder.items() if type(holder) is dict else enumerate(holder))


def _load(sealed: Sealed, place: str) -> Any:
    try:
        return load(sealed.data)
    except Exception as error:  # of pickle, or of the code that it runs
        raise EncodeError(
            f"{place} could not be unpickled: {_show(error)}; what it is made of must be importable on both sides"
        ) from error


def _show(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error!s:.300}"
    except Exception:  # whatever its class does
        return type(error).__name__
