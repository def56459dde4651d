"""Calls of a map, several of them on each worker while they are quick: to send each by itself would cost more.

A lane is a checkout with the calls that are under way on it. It is given back when they have ended, or when it has had
its turn, so that it holds no worker for which there is nothing to do.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from gtask.client.checkout import lease_of

if TYPE_CHECKING:
    from types import EllipsisType

    from gtask.client.calls import Result
    from gtask.client.checkout import Checkout
    from gtask.client.client import Client

__all__ = ["Lanes"]

TURN = 200
"""Calls after which a lane is given back: others may wait in line for its worker."""

SHARE = 20e-6
"""Seconds that this process has to do for one call. While calls take no longer two workers keep it busy."""

SLOW = 1e-3
"""Seconds after which no other call is sent behind one that runs."""

FORGET = 1.25
"""By how much longer a call may seem to take than the quickest of late."""


class _Lane:
    """A checkout and its calls.

    Attributes:
        checkout: keeps the worker.
        made: how many calls were made on it.
        since: when the first of those that are under way can have begun.
        under_way: how many have not ended.
    """

    __slots__ = ("checkout", "made", "since", "under_way")

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.made = self.under_way = 0
        self.since = 0.0


class Lanes:
    """The lanes of one map.

    Args:
        client: whose workers are called.
        most: how many lanes quick calls are spread over at the most.
        timeout: of each call, in seconds.
    """

    def __init__(self, client: Client, most: int, timeout: float | EllipsisType | None = ...) -> None:
        self._client = client
        self._most = most
        self._timeout = timeout
        self._open: list[_Lane] = []
        self._of: dict[Result, _Lane] = {}
        self._line: deque[_Lane] = deque()  # those that had no worker yet when they were opened
        self._took = math.inf

    def submit(self, name: str, args: tuple[Any, ...]) -> Result:
        """Make a call; never blocks. Its end is to be told to :meth:`ended`.

        Raises:
            Error: as the submit of a checkout.
        """
        now = monotonic()
        is_quick = self._took <= SLOW
        lane = (self._best(now) if is_quick else None) or self._opened()
        lease = lease_of(lane.checkout)
        try:
            if not is_quick:
                lease.lender.announce_end(lease)
            if not lane.under_way:
                lane.since = now
            result = lease.submit(name, args, {})
            self._of[result] = lane
            lane.under_way += 1
            lane.made += 1
        finally:
            if not is_quick or lane.made >= TURN or not lane.under_way:
                self._give_back(lane)
        return result

    def ended(self, result: Result) -> None:
        """A call has ended."""
        lane = self._of.pop(result, None)
        if lane is None:
            return  # it was cancelled
        now = monotonic()
        self._took = min(now - lane.since, self._took * FORGET)
        lane.since = now
        lane.under_way -= 1
        if not lane.under_way:
            self._give_back(lane)
        if self._line:
            self._line.popleft().since = now  # it has waited for this

    def cancel(self, reason: str) -> None:
        """End the calls that are under way, soon: this may be called by a finaliser."""
        for lane in {*self._of.values()}:
            lease = lease_of(lane.checkout)
            lease.lender.later(partial(lease.cancel, reason))
        self._of.clear()
        self._open.clear()
        self._line.clear()

    def _best(self, now: float) -> _Lane | None:
        """The lane that is to have the next quick call; None if there should be another."""
        best, least = None, (True, math.inf)
        for lane in self._open:
            load = (lease_of(lane.checkout).connection is None, lane.under_way)
            if load < least and now - lane.since < SLOW:
                best, least = lane, load
        if best is None or len(self._open) < min(self._most, max(2, self._took / SHARE)):
            return None
        return best

    def _opened(self) -> _Lane:
        lane = _Lane(self._client.checkout(timeout=self._timeout))
        if lease_of(lane.checkout).connection is None:
            self._line.append(lane)
        self._open.append(lane)
        return lane

    def _give_back(self, lane: _Lane) -> None:
        if lane in self._open:
            self._open.remove(lane)
            lane.checkout.release()
