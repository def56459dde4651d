"""The agreement of a connection's two sides: which kinds of values may travel, and why others may not.

:mod:`gtask.wire.values.offers` makes agreements, from what both greetings say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from gtask.wire.values.kinds import NATIVE, Kinds

__all__ = ["PLAIN", "Agreement", "ConditionalFrame", "Fallback"]


_NATIVE = Kinds(NATIVE)


@dataclass(frozen=True, slots=True)
class Fallback:
    """What stands for values that are of no kind, or would lose something.

    Attributes:
        offer: the offer under which it travels.
        make: makes what stands for a value; raises any exception if there is no such thing.
    """

    offer: str
    make: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one connection.

    Attributes:
        kinds: the table of kinds, also of those whose offer is not agreed upon.
        agreed: the names of the offers that both sides want.
        reasons: why an offer is not agreed upon, by its name, for an error.
        fallback: what stands for a value that is of no kind, or would lose something; None if both sides have not
            agreed upon one.
        no_fallback: why there is none, for an error; "" if neither side wants one.
    """

    kinds: Kinds = _NATIVE
    agreed: frozenset[str] = frozenset()
    reasons: Mapping[str, str] = field(default_factory=dict)
    fallback: Fallback | None = None
    no_fallback: str = ""

    def without_fallback(self) -> Agreement:
        """The same for what travels without one, too."""
        offer = {self.fallback.offer} if self.fallback else ()
        return replace(self, agreed=self.agreed.difference(offer), fallback=None)


PLAIN = Agreement()
"""What every peer reads."""


@final
class ConditionalFrame:
    """The frame of a call that not every worker can read.

    Args:
        data: the frame.
        used: the offers that it uses, by name, and a phrase for the value that uses each.
        otherwise: the frame of the same call for a worker that has not agreed upon all of them; None if there is none.

    Attributes:
        data, used: as above, and those of the other frame once a worker was asked about that could not read this one.
    """

    __slots__ = ("_otherwise", "data", "used")

    def __init__(self, data: bytes, used: dict[str, str], otherwise: bytes | ConditionalFrame | None = None) -> None:
        self.data = data
        self.used = used
        self._otherwise = otherwise

    def refusal(self, agreement: Agreement) -> str:
        """Why it must not be sent where this was agreed upon, for an EncodeError; "" if it may be."""
        if self._otherwise is not None and not agreement.agreed.issuperset(self.used):
            other, self._otherwise = self._otherwise, None
            self.data, self.used = (other, {}) if isinstance(other, bytes) else (other.data, other.used)
        for name, phrase in self.used.items():
            if name not in agreement.agreed:
                why = agreement.reasons.get(name, "")
                return f"cannot travel: {phrase}. {why[:1].upper()}{why[1:]}"
        return ""
