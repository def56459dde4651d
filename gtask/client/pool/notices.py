"""What a client logs of itself: that no worker can be had, when that changes, and that it is used under asyncio.

All goes to the logger ``gtask.client``. The handlers run in greenlets, for they may block, and this is the hub.
"""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtask.client.loop import Loop

__all__ = ["Notices"]

log = logging.getLogger("gtask.client")

PATIENCE = 1.0
"""Seconds of trouble before the first word about it, and at least between two."""

_IN_VAIN = (
    "%s: no worker can be had for %.3g s now: %s. Calls wait for one until their time-out, and the attempts go on"
)
_AGAIN = "%s: workers can be had again, after %.3g s"
_ASYNCIO = (
    "%s is used in a thread in which an event loop of asyncio runs: each call stops that loop until its value is "
    "there. Give gtask a separate thread with a client; docs/howto/asyncio.rst shows it"
)


class Notices:
    """The notices of one pool.

    Args:
        loop: of the thread that owns the pool.
        subject: names the client and the address of its server.
    """

    def __init__(self, loop: Loop, subject: Callable[[], str]) -> None:
        self._loop = loop
        self._subject = subject
        self._alarm = loop.alarm(self._tell)
        self._since = math.inf  # the beginning of the trouble, infinite while there is none
        self._reason = ""
        self._told = ""  # without its numbers, some of which differ each time
        self._has_seen_asyncio = False
        self.look()

    def trouble(self, reason: str) -> None:
        """An attempt to get a worker has failed, for this reason."""
        now = self._loop.clock()
        self._since = min(self._since, now)
        self._reason = reason
        if self._told != _without_numbers(reason):
            self._alarm.set(now + PATIENCE, now)

    def over(self) -> None:
        """A worker has come."""
        self._alarm.stop()
        since, told = self._since, self._told
        self._since, self._reason, self._told = math.inf, "", ""
        if told:
            self._loop.spawn(log.warning, _AGAIN, self._subject(), self._loop.clock() - since)

    def look(self) -> None:
        """See whether asyncio's loop runs in this thread, and say so once."""
        events = sys.modules.get("asyncio.events")
        if self._has_seen_asyncio or events is None:
            return
        running = events._get_running_loop()
        # One that is made of gevent's stops only its own greenlet.
        if running is not None and "gevent" not in type(running).__module__:
            self._has_seen_asyncio = True
            self._loop.spawn(log.warning, _ASYNCIO, self._subject())

    def close(self) -> None:
        """There is nothing to be said any more."""
        self._alarm.close()

    def _tell(self) -> None:
        if self._since < math.inf and self._told != _without_numbers(self._reason):
            self._told = _without_numbers(self._reason)
            self._loop.spawn(log.warning, _IN_VAIN, self._subject(), self._loop.clock() - self._since, self._reason)


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "N", text)
