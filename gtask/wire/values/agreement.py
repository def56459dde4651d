"""The agreement of a connection's two sides: which kinds of values may travel, and why others may not.

:mod:`gtask.wire.values.offers` makes agreements, from what both greetings say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from gtask.wire.values.kinds import NATIVE, Kinds, Packing

__all__ = ["PLAIN", "Agreement", "ConditionalFrame"]


_NATIVE = Kinds(NATIVE)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one connection.

    Attributes:
        kinds: the table of kinds, also of those whose offer is not agreed upon.
        agreed: the names of the offers that both sides want.
        reasons: why an offer is not agreed upon, by its name, for an error.
        fallback: makes a copy of a plain message that can travel although a value in it is of no kind; None if both
            sides have not agreed upon one.
        no_fallback: why there is none, for an error; "" if neither side wants one.
    """

    kinds: Kinds = _NATIVE
    agreed: frozenset[str] = frozenset()
    reasons: Mapping[str, str] = field(default_factory=dict)
    fallback: Callable[[list[Any], Packing], list[Any]] | None = None
    no_fallback: str = ""


PLAIN = Agreement()
"""What every peer reads."""


@final
class ConditionalFrame:
    """The frame of a call that not every worker can read.

    Attributes:
        data: the frame.
        used: the offers that it uses, by name, and a phrase for the value that uses each.
    """

    __slots__ = ("data", "used")

    def __init__(self, data: bytes, used: dict[str, str]) -> None:
        self.data = data
        self.used = used

    def refusal(self, agreement: Agreement) -> str:
        """Why it must not be sent where this was agreed upon, for an EncodeError; "" if it may be."""
        for name, phrase in self.used.items():
            if name not in agreement.agreed:
                why = agreement.reasons.get(name, "")
                return f"cannot travel: {phrase}. {why[:1].upper()}{why[1:]}"
        return ""
