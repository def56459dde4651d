"""What a full server does while connections wait: it takes idle workers back from the clients that do not use them.

A client keeps the workers of its busiest moment for a while. Without this attendant another client of a full server
could get none all that time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable

from gtask.server.master.attendants import Attendant
from gtask.server.master.children import Children
from gtask.server.master.workers import Workers
from gtask.server.scoreboard import IDLE, View

__all__ = ["Crowding", "longest_idle"]

LOOK = 0.2
"""Seconds between looks whether connections wait, and so between requests to give a worker back."""


class Crowding(Attendant):
    """Asks the longest idle worker to be retired, one each LOOK seconds, while the server is full and connections wait.

    The worker asks its client in turn, who lets go of it. What the client needs it connects anew, behind those that
    wait already.

    Args:
        most: how many workers there may be.
        somebody_waits: tells whether a connection waits for a worker.
        children, workers: the living ones, and their handles.
    """

    def __init__(self, most: float, somebody_waits: Callable[[], bool], children: Children, workers: Workers) -> None:
        self._most = most
        self._somebody_waits = somebody_waits
        self._children = children
        self._workers = workers
        self._asked: set[int] = set()
        self._look_at = math.inf

    def next_due(self, now: float) -> float:
        return self._look_at

    def turn(self, now: float, ready: Collection[int]) -> None:
        if len(self._children) < self._most:
            self._look_at = math.inf
            self._asked.clear()
        elif self._look_at == math.inf:
            self._look_at = now + LOOK
        elif now >= self._look_at:
            self._look_at = now + LOOK
            pid = longest_idle(self._children.living(), self._asked) if self._somebody_waits() else None
            if pid is not None:
                self._asked.add(pid)
                self._workers.want_back(pid)

    def drain(self, now: float) -> None:
        self._most = math.inf


def longest_idle(living: Iterable[tuple[int, float, str, View]], asked: Collection[int]) -> int | None:
    """The process id of the worker that has been idle for longest and is in no checkout, but for those asked already.

    Args:
        living: as :meth:`gtask.server.master.children.Children.living` gives them.
        asked: process ids.
    """
    idle = [
        (view.since, pid)
        for pid, _, rung, view in living
        if not rung and view.phase == IDLE and not view.lent and pid not in asked
    ]
    return min(idle)[1] if idle else None
