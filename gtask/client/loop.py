"""What the pool needs of gevent: the time, timers, the hub's next turn, greenlets. A test of the pool gives it another.

A loop belongs to the OS thread in which it was made, as gevent's hub does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any
from weakref import ref

import gevent
import gevent.event
import gevent.monkey
from gevent import getcurrent

__all__ = ["SHORTEST", "Event", "Loop", "thread_ident"]

SHORTEST = 0.001
"""Seconds of the shortest timer that all of gevent's loops have: libuv would warn of others."""

Event = gevent.event.Event

thread_ident: Callable[[], int] = gevent.monkey.get_original("_thread", "get_ident")
"""Which OS thread this is, also under monkey-patching, where the usual one tells greenlets apart."""


class Loop:
    """The hub of this thread."""

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self.thread = thread_ident()

    clock = staticmethod(monotonic)

    def timer(self, seconds: float, function: Callable[[], object]) -> Callable[[], None]:
        """Call a function in so many seconds, unless the function given back is called before."""
        timer = self._hub.loop.timer(max(SHORTEST, seconds))
        timer.start(function, update=True)

        def stop() -> None:
            timer.stop()
            timer.close()

        return stop

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function in the hub's next turn."""
        self._hub.loop.run_callback(function)

    def from_anywhere(self, function: Callable[[], object]) -> None:
        """The same from any thread, and from a finaliser, which may run amid anything."""
        # At the very end of the interpreter the loop may be gone, and then so is what there was to do.
        with suppress(Exception):
            self._hub.loop.run_callback_threadsafe(function)

    def spawn(self, function: Callable[..., object], *args: Any) -> Any:
        """Run a function in a greenlet of its own."""
        return gevent.spawn(function, *args)

    @staticmethod
    def greenlet() -> Any:
        """The greenlet that runs."""
        return getcurrent()

    @staticmethod
    def greenlet_ref() -> Any:
        """A weak reference to it."""
        return ref(getcurrent())
