"""Which thread runs, and when the greenlet ends that runs."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakMethod

import gevent

__all__ = ["this_thread", "when_it_ends"]


def this_thread() -> object:
    """What stands for the thread that runs: its hub, for which no later thread's is taken."""
    return gevent.get_hub()


def when_it_ends(method: Callable[[], None]) -> None:
    """Call a method when the greenlet ends that runs, if the method's object is still there then.

    It is called in the hub, so it must not block. Greenlets that cannot tell of their end, such as the program's first,
    are passed over.
    """
    greenlet = gevent.getcurrent()
    if not isinstance(greenlet, gevent.Greenlet):
        return
    reference = WeakMethod(method)

    def ended(_: object) -> None:
        found = reference()
        if found is not None:
            found()

    greenlet.rawlink(ended)
