"""The process and the OS thread that a pool belongs to: those of its first use.

A hub belongs to one thread, and a socket that a fork has copied must be used by one process only. So another thread is
refused, a forked child finds the pool unused, and the end of the thread closes the pool.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from gtask import loading
from gtask.client.forks import after_fork
from gtask.client.loop import thread_ident
from gtask.client.pool import no_worker
from gtask.spawn import open_standard_descriptors

if TYPE_CHECKING:
    from gtask.client.loop import Loop
    from gtask.client.pool.pool import Pool

__all__ = ["Ownership"]


class Ownership:
    """Who may use a pool.

    Attributes:
        thread: the ident of the owning thread; 0 before the first use.
        is_orphaned: whether the owning thread has ended.
        forget_end: called when the pool has nothing open any more, so that the thread's end is no news to it.
    """

    def __init__(self) -> None:
        self.thread = 0
        self.is_orphaned = False
        self.forget_end: Callable[[], None] = _nothing
        self._pid = 0
        self._pool: Pool | None = None

    def take(self, pool: Pool, make_loop: Callable[[], Loop]) -> Loop:
        """Give a pool to this process and this thread, at the first use.

        Returns:
            the loop of this thread's hub.

        Raises:
            UsedWhileLoading: this process is a server's master.
        """
        loading.check("a client was used")
        open_standard_descriptors()  # before the hub and the connections open theirs
        loop = make_loop()
        self.thread = thread_ident()
        self._pid = os.getpid()
        self._pool = pool
        _taken.add(self)
        self.forget_end = loop.at_thread_end(self.thread_ended)
        return loop

    def after_fork(self) -> None:
        """In a forked child: have the pool forget all that is the parent's, without telling anybody."""
        if self._pool is None:
            return
        self.forget_end()
        # Kept for good: greenlets of the parent that wait in there would be ended, and run their finally blocks here.
        _inherited.extend(self._pool.begin_in_child(no_worker.inherited(self._pid, os.getpid())))

    def thread_ended(self) -> None:
        """Close the pool: its thread has ended, so that no hub turns for it, and no greenlet waits."""
        if self._pid != os.getpid() or self._pool is None:
            return  # a fork, in the child of which that thread does not exist; after_fork comes next
        pool, self._pool = self._pool, None
        self.is_orphaned = True
        pool.close_without_hub(no_worker.orphaned(self.thread))


def _nothing() -> None:
    pass


_taken: weakref.WeakSet[Ownership] = weakref.WeakSet()
"""Those of pools that have been used in this process."""

_inherited: list[object] = []


def _after_fork() -> None:
    for ownership in list(_taken):
        ownership.after_fork()


after_fork(_after_fork)
