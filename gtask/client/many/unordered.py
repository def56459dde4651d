"""One method called with many items, in many workers at once: the values as they come, and a bound on what is ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from gtask.client.loop import Event
from gtask.client.many.items import called_with, noting
from gtask.client.many.lanes import Lanes

if TYPE_CHECKING:
    from gtask.client.calls import Result
    from gtask.client.client import Client

__all__ = ["map_unordered"]

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
    called, calls = called_with(name, ((item,) for item in iterable), chunksize)
    numbered = enumerate(calls)
    lanes = Lanes(client, most)
    numbers: dict[Result, int] = {}
    ended: deque[Result] = deque()
    news = Event()

    def end(result: Result) -> None:
        lanes.ended(result)
        ended.append(result)
        news.set()

    has_more = True
    try:
        while True:
            if has_more and len(numbers) < ahead:
                # One at a time: an iterable that is slow does not hold up the values that are there.
                number, args = next(numbered, NO_MORE)
                has_more = args is not None
                if args is not None:
                    result = noting(partial(lanes.submit, called, args), number * chunksize, chunksize)
                    del args  # which the call has
                    numbers[result] = number
                    result.rawlink(end)
            elif not numbers:
                return
            elif not ended:
                news.clear()
                news.wait()
            if ended:
                result = ended.popleft()
                value = noting(result.get, numbers.pop(result) * chunksize, chunksize)
                yield from value if chunksize > 1 else (value,)
    finally:
        for result in numbers:
            result.unlink(end)
        lanes.cancel("map_unordered has ended")
