"""A copy of a message in which everything can travel, for a message that cannot be packed as it stands.

An instance of a subclass becomes the value of its base that it equals. Where both sides have agreed upon pickles, what
would lose something in that way, and what is of no kind, becomes a pickle. Of what can do neither the place is told.
"""

from __future__ import annotations

from typing import Any

from gtask.errors import EncodeError
from gtask.wire.values.bases import ChangedError, base_of, cut
from gtask.wire.values.culprit import KEYS, LEVELS, OWN, Place, phrase, places, refusal, shallow, shown, spelled
from gtask.wire.values.kinds import SCALARS, Ext, NotTransferable, Packing, Timestamp, UnusualError
from gtask.wire.values.remedies import remedy

__all__ = ["body_of_copy"]

_OF_THE_WIRE = (Ext, Timestamp)


def body_of_copy(plain: list[Any], error: Exception, packing: Packing) -> bytes:
    """The bytes of a copy of a message; what is in the message is left as it is.

    Args:
        plain: the message.
        error: why it cannot be packed itself.
        packing: what is agreed upon; it notes what the copy uses.

    Raises:
        EncodeError: a value cannot travel; the text says where it stands, and its class.
    """
    if isinstance(error, EncodeError):
        raise error
    try:
        return packing.body(_copy_of(plain, packing))
    except EncodeError:
        raise
    except Exception as later:  # also what the methods of a value's class raise
        if isinstance(later, RecursionError) or "recursion limit" in shown(later):
            raise EncodeError("a value that is nested too deeply (or contains itself) cannot travel") from None
        raise EncodeError(f"cannot travel: {shown(later)}") from None


def _copy_of(plain: list[Any], packing: Packing) -> list[Any]:
    copying = _Copying(packing)
    copy = shallow(plain)
    for place, whole, key in places(copy):
        whole[key] = copying.copy(whole[key], place)
    return copy


class _CircleError(RecursionError):
    """A value contains itself."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Copying:
    """Makes the copies of one message's values."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._fallback = packing.agreement.fallback
        self._lossless = Packing(packing.agreement, packing.limit, self._fallback is not None)
        self._lossless.used = packing.used
        self._above: set[int] = set()

    def copy(self, value: Any, place: str | Place) -> Any:
        """The value as it can travel.

        Args:
            place: where it is, for the text of an error.

        Raises:
            EncodeError: a part of it cannot travel.
        """
        if type(value) in SCALARS or type(value) is bytearray:
            return value
        if id(value) in self._above:
            raise _CircleError(value)
        if len(self._above) > LEVELS:
            raise RecursionError
        self._above.add(id(value))
        try:
            plain, keys = self._content(value, place)
            if type(plain) is list or type(plain) is tuple:
                parts = []
                for index, part in enumerate(plain):  # a comprehension would take a frame for itself
                    parts.append(self.copy(part, (place, index)))
                return parts
            if type(plain) is dict:
                items = {}
                for key, part in zip(keys, plain.values(), strict=True):
                    items[key] = self.copy(part, (place, key))
                return items
            return plain
        except _CircleError as circle:
            if self._fallback is None or circle.value is not value:
                raise
        finally:
            self._above.discard(id(value))
        return self._stand_in(value, place, None)

    def _content(self, value: Any, place: str | Place) -> tuple[Any, list[Any]]:
        """A value without its class: a list, tuple or dict with the same parts, and the keys of a dict as they travel;
        or what can be packed at once."""
        try:
            try:
                return _plain(value, self._lossless)
            except UnusualError:
                stand_in = self._pickled(value, place)
            return _plain(value, self._packing) if stand_in is None else (stand_in, [])
        except (EncodeError, RecursionError):
            raise
        except NotTransferable as error:
            raise refusal(phrase(value, place), error, "") from None
        except Exception as error:  # whatever its methods raise, pickle may ask others
            return self._stand_in(value, place, error), []

    def _pickled(self, value: Any, place: str | Place) -> Any:
        """The pickle of a value that can travel without one, too; None if it cannot be pickled."""
        try:
            return self._made(value, place)
        except Exception:  # of pickle, or of the value's own methods
            return None

    def _stand_in(self, value: Any, place: str | Place, error: Exception | None) -> Any:
        """The pickle of a value that cannot travel without one, because of this error."""
        if self._fallback is None:
            advice = remedy(value, spelled(place)) or self._packing.agreement.no_fallback
            raise refusal(phrase(value, place), error, advice)
        try:
            self._packing.needs_fallback = True
            return self._made(value, place)
        except Exception as cause:  # of pickle, or of the value's own methods
            advice = remedy(value, spelled(place))
            raise EncodeError(
                f"cannot travel: {phrase(value, place)}, which cannot be pickled either: {_named(cause)}"
                f"{advice and f'. {advice}'}"
            ) from None

    def _made(self, value: Any, place: str | Place) -> Any:
        assert self._fallback is not None
        made = self._fallback.make(value)
        self._packing.used.setdefault(self._fallback.offer, phrase(value, place))
        return made


def _plain(value: Any, packing: Packing) -> tuple[Any, list[Any]]:
    """As :meth:`_Copying._content`, by the rules of one packing; raises as :meth:`Packing.plain`."""
    cls = type(value)
    if cls is list or cls is tuple:
        return value, []
    if cls is dict:
        plain = value
    elif issubclass(cls, OWN) and cls not in _OF_THE_WIRE:
        plain = packing.plain(value)
    else:
        return packing.default(value), []
    return plain, _keys(plain, packing) if type(plain) is dict else []


def _keys(plain: dict[Any, Any], packing: Packing) -> list[Any]:
    if KEYS.issuperset(map(type, plain)):
        return list(plain)
    keys = []
    for key in plain:
        if base_of(type(key)) not in KEYS:
            raise TypeError(f"its key {cut(key, 60)} is none that can travel: keys may be str, int or bytes")
        keys.append(key if type(key) in KEYS else packing.hashed(key))
    if len({*keys}) < len(keys):
        raise ChangedError("some of its keys would arrive as one")
    return keys


def _named(error: Exception) -> str:
    name = type(error).__name__
    return name if shown(error) == name else f"{name}: {shown(error)}"
