"""Takes workers back from clients that keep them outside of checkouts for longer than ``idle_timeout``."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection

from gtask.server.master.attendants import Attendant
from gtask.server.master.children import Children
from gtask.server.master.workers import Workers
from gtask.server.scoreboard import IDLE
from gtask.server.seldom import Seldom

__all__ = ["IdleClients"]

log = logging.getLogger("gtask.server")

LOOK = 1.0
"""Seconds between looks, and so between a request to let go and the hanging up."""


class IdleClients(Attendant):
    """Asks such a client to let go of its worker, and hangs up on it if it does not.

    Args:
        timeout: seconds that a worker may be idle, in no checkout; None for any time.
        children, workers: the living ones, and their handles.
    """

    def __init__(self, timeout: float | None, children: Children, workers: Workers) -> None:
        self._timeout = math.inf if timeout is None else timeout
        self._children = children
        self._workers = workers
        self._asked: dict[int, float] = {}  # by process id, since when it was idle
        self._look_at = -math.inf
        self._seldom = Seldom()

    def next_due(self, now: float) -> float:
        return math.inf if self._timeout == math.inf else max(now, self._look_at)

    def drain(self, now: float) -> None:
        self._timeout = math.inf  # who is idle is told to leave now

    def turn(self, now: float, ready: Collection[int]) -> None:
        if self._timeout == math.inf or now < self._look_at:
            return
        self._look_at = now + min(LOOK, self._timeout)
        idle = {
            pid: view.since
            for pid, _, rung, view in self._children.living()
            if not rung and view.phase == IDLE and not view.lent and now >= view.since + self._timeout
        }
        for pid, since in idle.items():
            if self._asked.get(pid) != since:
                self._workers.want_back(pid)
            else:
                self._hang_up(pid, now - since, now)
        self._asked = idle

    def _hang_up(self, pid: int, seconds: float, now: float) -> None:
        self._workers[pid].shut_reading()  # the worker tells its client that it has begun nothing more
        more = self._seldom.more(now)
        if more is not None:
            log.warning("the client of worker %d was idle for %.3g s (idle_timeout): hung up%s", pid, seconds, more)
