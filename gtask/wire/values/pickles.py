"""What only a pickle can carry, where both sides have consented: made here, and nowhere else loaded.

A pickle stands for the smallest part of a message that needs it. What has come is kept :class:`Sealed` until the
whole frame was read and its call is about to run, or its caller about to get the value: to load it is to run code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from gtask.errors import EncodeError
from gtask.wire.values.culprit import places
from gtask.wire.values.kinds import PICKLE, Ext, NotTransferable, Packing, Unpacking

__all__ = ["PROTOCOL", "Sealed", "seal", "stand_in", "unseal"]

PROTOCOL = 5

_NATIVE = (type(None), bool, int, float, str, bytes, bytearray, memoryview)
_KEYS = (str, int, bytes)

Place = tuple[Any, Any]
"""Where in a message: the place of the whole, as a text or again a tuple, and the key or index in it."""


def stand_in(plain: list[Any], packing: Packing) -> list[Any]:
    """A copy of a message in which pickles stand for values that cannot travel otherwise.

    Args:
        packing: notes that pickles are used.

    Raises:
        EncodeError: a value cannot be pickled either.
    """
    pickling = _Pickling(packing)
    copy = list(plain)
    if copy[1] is not None:
        copy[1] = {key: dict(part) if type(part) is dict else part for key, part in copy[1].items()}
    for place, whole, key in places(copy):
        whole[key] = pickling.copy(whole[key], place)
    return copy


class _Pickling:
    """Puts pickles into copies of values."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._above: set[int] = set()

    def copy(self, value: Any, place: str | Place) -> Any:
        """The value as it can travel.

        Args:
            place: where it is, for the text of an error.

        Raises:
            EncodeError: a part of it cannot be pickled either.
        """
        kind = type(value)
        if issubclass(kind, _NATIVE):
            return value
        is_map = issubclass(kind, dict)
        if is_map and not all(issubclass(type(key), _KEYS) for key in value):
            return self._pickle(value, place)
        if not is_map and (not issubclass(kind, (list, tuple)) or kind is Ext):
            return self._atom(value, place)
        if id(value) in self._above:
            raise _CircleError(value)
        self._above.add(id(value))
        try:
            if is_map:
                return {key: self.copy(part, (place, key)) for key, part in value.items()}
            return [self.copy(part, (place, index)) for index, part in enumerate(value)]
        except _CircleError as circle:
            if circle.value is not value:
                raise
        finally:
            self._above.discard(id(value))
        return self._pickle(value, place)

    def _atom(self, value: Any, place: str | Place) -> Any:
        try:
            return self._packing.default(value)
        except NotTransferable as error:
            raise EncodeError(f"cannot travel: {_phrase(value, place)}: {error}") from None
        except EncodeError:
            raise
        except Exception:  # whatever its methods raise, pickle may ask others
            return self._pickle(value, place)

    def _pickle(self, value: Any, place: str | Place) -> Any:
        try:
            data = pickle.dumps(value, PROTOCOL)
        except Exception as error:  # of pickle, or of the value's own methods
            raise EncodeError(
                f"cannot travel: {_phrase(value, place)}, which cannot be pickled either: {_show(error)}"
            ) from None
        self._packing.used.setdefault("pickle", _phrase(value, place))
        return Ext(PICKLE, data)


class _CircleError(Exception):
    """A value contains itself."""

    def __init__(self, value: Any) -> None:
        self.value = value


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
        return pickle.loads(sealed.data)
    except Exception as error:  # of pickle, or of the code that it runs
        raise EncodeError(
            f"{place} could not be unpickled: {_show(error)}; what it is made of must be importable on both sides"
        ) from error


def _phrase(value: Any, place: str | Place) -> str:
    kind = type(value)
    return f"{_spelled(place)} is of type {f'{kind.__module__}.{kind.__qualname__}'.removeprefix('builtins.')}"


def _spelled(place: str | Place) -> str:
    keys: list[str] = []
    while isinstance(place, tuple):
        place, key = place
        try:
            keys.append(f"[{key!r:.40}]")
        except Exception:  # whatever its class does, or an int of too many digits
            keys.append("[?]")
    return place + "".join(reversed(keys))


def _show(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error!s:.300}"
    except Exception:  # whatever its class does
        return type(error).__name__
