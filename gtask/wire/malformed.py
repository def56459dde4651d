"""What a decoder gives of one read in which messages come first, and then bytes that are no message.

An error at once would take those messages with it, and so the cuts of a stream would decide about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Malformed", "or_malformed"]


class Malformed(list[Any]):
    """Messages, and an error behind them: who iterates over them gets each, and then it is raised.

    Args:
        messages: those before the error.
        error: what is wrong with the bytes behind them.
    """

    def __init__(self, messages: list[Any], error: Exception) -> None:
        super().__init__(messages)
        self._error = error

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        raise self._error


def or_malformed(messages: list[Any], error: Exception) -> list[Any]:
    """The messages that were read before an error, and the error.

    Raises:
        Exception: the error, if nothing was read before it.
    """
    if not messages:
        raise error
    return Malformed(messages, error)
