"""One method called with many items, in many workers at once: the values as they come, and a bound on what is ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from gtask.client.calls import Result
from gtask.client.checkout import lease_of
from gtask.client.lease import Lease
from gtask.client.loop import Event

if TYPE_CHECKING:
    from gtask.client.client import Client

__all__ = ["map_unordered"]


def map_unordered(client: Client, name: str, iterable: Iterable[Any], max_ahead: int) -> Generator[Any, None, None]:
    """See :meth:`gtask.Client.map_unordered`.

    Args:
        client: whose workers are called.
        name: the method.
        iterable: of the arguments.
        max_ahead: the most items that may have been taken from the iterable without their values having been taken.
    """
    ahead: dict[Result, Lease] = {}
    ended: deque[Result] = deque()
    news = Event()

    def end(result: Result) -> None:
        ended.append(result)
        news.set()

    items = iter(iterable)
    has_more = True
    try:
        while True:
            if has_more and len(ahead) < max_ahead:
                # One at a time: an iterable that is slow does not hold up the values that are there.
                try:
                    item = next(items)
                except StopIteration:
                    has_more = False
                else:
                    lease, result = _submit(client, name, item)
                    ahead[result] = lease
                    result.rawlink(end)
            elif not ahead:
                return
            elif not ended:
                news.clear()
                news.wait()
            if ended:
                result = ended.popleft()
                del ahead[result]
                yield result.get()
    finally:
        for result, lease in ahead.items():
            result.unlink(end)
            lease.lender.later(partial(lease.cancel, "map_unordered has ended"))  # this may be a finaliser


def _submit(client: Client, name: str, item: Any) -> tuple[Lease, Result]:
    checkout = client.checkout()
    try:
        lease = lease_of(checkout)
        lease.lender.announce_end(lease)
        return lease, lease.submit(name, (item,), {})
    finally:
        checkout.release()
