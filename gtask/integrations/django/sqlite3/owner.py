"""Who has opened a connection: the thread and the greenlet that run, and when the latter ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

import gevent

__all__ = ["Owner"]


class Owner:
    """The greenlet that runs, until it ends or is told that it is no owner any more.

    Args:
        bequeath: a method, which is called in the hub when the greenlet ends, if its object is still there then; so it
            must not block.
    """

    def __init__(self, bequeath: Callable[[], None]) -> None:
        method = WeakMethod(bequeath)

        def ended(_: object) -> None:
            found = method()
            if found is not None:
                found()

        self._hub = gevent.get_hub()
        self._ended = ended
        self._greenlet: Any = gevent.getcurrent()
        if isinstance(self._greenlet, gevent.Greenlet):  # others, such as the program's first, cannot tell
            self._greenlet.rawlink(ended)

    @property
    def is_of_this_thread(self) -> bool:
        """Whether it belongs to the thread that runs; no later thread is taken for an earlier one."""
        return self._hub is gevent.get_hub()

    def dismiss(self) -> None:
        """Do not call when it ends. From any greenlet, and from any thread."""
        if isinstance(self._greenlet, gevent.Greenlet):
            self._greenlet.unlink(self._ended)
