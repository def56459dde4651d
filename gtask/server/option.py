"""What a field of a server's configuration says of its option: the kind of its value, its bounds, its sentence."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Kind", "Option"]


class Kind(enum.Enum):
    """The kind of an option's value: the command line has a parser for each, :class:`Option` a check."""

    COUNT = enum.auto()
    SIZE = enum.auto()
    SECONDS = enum.auto()
    SECONDS_OR_NONE = enum.auto()
    MODE = enum.auto()
    CHOICE = enum.auto()
    SWITCH = enum.auto()
    TEXT = enum.auto()
    VARIABLE = enum.auto()
    ADDRESS = enum.auto()
    SOCKET = enum.auto()


@dataclass(frozen=True, slots=True)
class Option:
    """The option that a field of :class:`ServerConfig` carries, beside its default.

    Attributes:
        group: the heading of ``--help`` under which the option stands; "" if only gtask itself sets the field.
        kind: of the value.
        sentence: the meaning of the option, for ``--help``.
        metavar: the placeholder of the value in ``--help``.
        least, most: the bounds of a number.
        choices: the possible values of a choice.
        several: whether the option may be given several times.
        default_text: the default in words, where its value would not tell.
        flag: the option's name on the command line, where it is not that of the field.
    """

    group: str
    kind: Kind
    sentence: str
    metavar: str = ""
    least: int = 0
    most: float = math.inf
    choices: tuple[str, ...] = ()
    several: bool = False
    default_text: str = ""
    flag: str = ""

    def check(self, name: str, value: object) -> None:
        """Refuse a value that makes no sense.

        Raises:
            ValueError, TypeError: the message has the option, the value and the allowed values.
        """
        if self.kind in (Kind.COUNT, Kind.SIZE) and not self.several:
            bounds = f"from {self.least} to {self.most}" if self.most < math.inf else f"of at least {self.least}"
            _check(name, value, int, lambda number: self.least <= number <= self.most, f"a number {bounds}")
        elif self.kind in (Kind.SECONDS, Kind.SECONDS_OR_NONE):
            _check(name, value, (int, float), lambda seconds: seconds > 0, "a number of seconds over 0")
        elif self.kind is Kind.MODE:
            _check(name, value, int, lambda mode: 0 <= mode <= 0o777, "permissions such as 0o600", oct)
        elif self.kind is Kind.CHOICE:
            _check(name, value, str, lambda choice: choice in self.choices, f"one of {', '.join(self.choices)}")
        elif self.kind is Kind.SWITCH:
            _check(name, value, bool, lambda _: True, "True or False")

    def written(self, value: object) -> str:
        """A value as the command line has it."""
        if isinstance(value, int) and self.kind is Kind.MODE:
            return f"{value:o}"
        return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _check(
    name: str,
    value: Any,
    kind: type | tuple[type, ...],
    is_allowed: Callable[[Any], bool],
    advice: str,
    show: Callable[[Any], str] = repr,
) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}={value!r}: write {advice}")
    if not is_allowed(value):
        raise ValueError(f"{name}={show(value)}: write {advice}")
