"""One method called with many items, in many workers at once: the values as they come, and a bound on what is ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from gtask.client.loop import Event
from gtask.client.many.lanes import Lanes
from gtask.errors import Error
from gtask.function_names import EACH

if TYPE_CHECKING:
    from gtask.client.calls import Result
    from gtask.client.client import Client

__all__ = ["map_unordered"]

Calls = Iterator[tuple[int, tuple[Any, ...]]]
"""The number of the first item of each call, and the arguments."""

NO_MORE = 0, None


def map_unordered(
    client: Client, name: str, iterable: Iterable[Any], chunksize: int, ahead: int, most: int
) -> Generator[Any, None, None]:
    """See :meth:`gtask.Client.map_unordered`.

    Args:
        client: whose workers are called.
        name: the method.
        iterable: of the items.
        chunksize: how many items are one call.
        ahead: the most calls whose items may have been taken from the iterable without their values having been.
        most: how many workers there may be.
    """
    called, calls = _calls(name, iterable) if chunksize == 1 else _chunks(name, iterable, chunksize)
    lanes = Lanes(client, most)
    firsts: dict[Result, int] = {}
    ended: deque[Result] = deque()
    news = Event()

    def end(result: Result) -> None:
        lanes.ended(result)
        ended.append(result)
        news.set()

    has_more = True
    try:
        while True:
            if has_more and len(firsts) < ahead:
                # One at a time: an iterable that is slow does not hold up the values that are there.
                first, args = next(calls, NO_MORE)
                has_more = args is not None
                if args is not None:
                    result = lanes.submit(called, args)
                    del args  # which the call has
                    firsts[result] = first
                    result.rawlink(end)
            elif not firsts:
                return
            elif not ended:
                news.clear()
                news.wait()
            if ended:
                result = ended.popleft()
                yield from _values(result, firsts.pop(result), chunksize)
    finally:
        for result in firsts:
            result.unlink(end)
        lanes.cancel("map_unordered has ended")


def _calls(name: str, iterable: Iterable[Any]) -> tuple[str, Calls]:
    return name, ((number, (item,)) for number, item in enumerate(iterable))


def _chunks(name: str, iterable: Iterable[Any], size: int) -> tuple[str, Calls]:
    """What is called, the number of each chunk's first item, and its arguments: see :data:`EACH`."""

    def chunks() -> Calls:
        items, first = iter(iterable), 0
        while chunk := [[item] for item in islice(items, size)]:
            yield first, (chunk, first)
            first += len(chunk)

    return f"{EACH}{name}", chunks()


def _values(result: Result, number: int, chunksize: int) -> Iterable[Any]:
    try:
        value = result.get()
    except Error as error:
        if chunksize == 1:
            error.add_note(f"item {number} raised this")
        raise
    return value if chunksize > 1 else (value,)
