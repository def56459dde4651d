"""The items of a map: how several become one call, and which of them an error is about."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from gtask.errors import Error
from gtask.function_names import EACH, named

__all__ = ["called_with", "noting"]


def called_with(name: str, calls: Iterator[tuple[Any, ...]], chunksize: int) -> tuple[str, Iterator[tuple[Any, ...]]]:
    """What is called for a map, and the arguments of each call.

    Args:
        name: of the function.
        calls: its arguments for each item.
        chunksize: how many items are one call.
    """
    return (name, calls) if chunksize == 1 else (f"{EACH}{name}", _in_chunks(calls, chunksize))


def _in_chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[tuple[Any, ...]]:
    """The arguments that :data:`gtask.function_names.EACH` takes: those of each item, and the first item's number."""
    first = 0
    while chunk := list(itertools.islice(calls, size)):
        yield chunk, first
        first += len(chunk)


def noting(act: Callable[[], Any], first: int, chunksize: int) -> Any:
    """What an act of a call gives, or its error, with a note that says which items the call is for.

    Args:
        act: sends the call, or gives its value.
        first: the number of its first item.
        chunksize: how many items it has at the most.
    """
    try:
        return act()
    except Error as error:
        error.add_note(named(first) if chunksize == 1 else f"in the chunk that begins with item {first}")
        raise
