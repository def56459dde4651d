"""What the pool needs of gevent: the time, alarms, the hub's next turn, greenlets. A test of the pool gives it another.

A loop belongs to the OS thread in which it was made, as gevent's hub does, and ends with it.
"""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import gevent
import gevent.event
import gevent.monkey
from gevent import getcurrent

from gtask.client.forks import look

__all__ = [
    "SHORTEST", "Alarm", "Event", "Loop", "getcurrent", "refuse_bytes", "socket_watcher", "socket_writer",
    "thread_ident",
]  # fmt: skip

SHORTEST = 0.001
"""Seconds of the shortest timer that all of gevent's loops have: libuv would warn of others."""

AGAIN = 1.0
"""Seconds after which an alarm repeats a call that an interruption has struck."""

Event = gevent.event.Event

thread_ident: Callable[[], int] = gevent.monkey.get_original("_thread", "get_ident")
"""Which OS thread this is, also under monkey-patching, where the usual one tells greenlets apart."""

_ThreadLocal: Any = gevent.monkey.get_original("_thread", "_local")


class _End:
    """Lies in a thread's own storage, which is cleared at the end of the thread and in it."""

    def __init__(self) -> None:
        self.functions: dict[object, Callable[[], object]] = {}

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():  # or it is the main thread, and the process does the rest
            for function in self.functions.values():
                function()


_storage = _ThreadLocal()


class Alarm:
    """Calls a function in the hub when a deadline has come. Setting the alarm again can only bring the call forward.

    A deadline that is no longer wanted may stay: on a busy connection a timer is then made once per time-out, and not
    once per call. So the function sees for itself whether anything is due, and may set the alarm again. A call that an
    interruption has struck, at whatever line, is repeated :data:`AGAIN` seconds later.

    Args:
        loop: gevent's event loop, in which the function is called.
        function: takes no argument.
        holds: whether a greenlet may wait for the alarm, so that it holds the loop while it is set: ``gevent.wait()``
            and ``hub.join()`` wait for it, and a main greenlet that is blocked gets no LoopExit. By default the alarm
            is for housekeeping, for which nobody waits.

    Attributes:
        at: the deadline on the monotonic clock; infinite while none is set, and minus infinity after :meth:`close`.
    """

    __slots__ = ("_function", "_holds", "_loop", "_timer", "at")

    def __init__(self, loop: Any, function: Callable[[], object], holds: bool = False) -> None:
        self._loop = loop
        self._holds = holds
        self._function = function
        self._timer: Any = None
        self.at = math.inf

    def set(self, deadline: float, now: float) -> None:
        """Have the function called at the deadline, unless the alarm is set for that time or an earlier one already.

        Args:
            deadline, now: times of the monotonic clock. The call for a deadline that has passed comes at once, but from
                the hub.
        """
        if deadline >= self.at:
            return
        before = self._timer
        self._timer = timer = self._loop.timer(max(SHORTEST, deadline - now), AGAIN, self._holds)
        timer.start(self._fire, update=True)
        self.at = deadline  # behind the start: a kill between the two leaves a call too many, and not one too few
        _end_timer(before)

    def stop(self) -> None:
        """Forget the deadline: the function is not called until the alarm is set again."""
        if self._loop is not None:
            self.at = math.inf
        timer, self._timer = self._timer, None
        _end_timer(timer)

    def close(self) -> None:
        """Stop for good, and let go of the function: :meth:`set` does nothing from now on."""
        self._loop, self._function, self.at = None, _nothing, -math.inf
        self.stop()

    def _fire(self) -> None:
        look()  # which may close it
        if self._loop is not None:
            self.at = math.inf
            self._function()
        if self.at == math.inf:
            self.stop()


def _nothing() -> None:
    pass


def _end_timer(timer: Any) -> None:
    if timer is not None:
        with suppress(ValueError):  # the hub was destroyed, and all its watchers with it
            timer.stop()
            timer.close()


def socket_watcher(loop: Any, descriptor: int, events: int) -> Any:
    """A watcher of a socket that does not hold the loop, which so may end while it is active.

    Args:
        loop: gevent's event loop.
        descriptor: of the socket.
        events: 1 to read, 2 to write.
    """
    watcher = loop.io(descriptor, events, False)
    shared = getattr(watcher, "_watcher_ref", None)  # under libuv, which does not heed the argument
    if shared is not None:
        shared.ref = False
    return watcher


def socket_writer(sock: Any) -> Callable[[bytes | memoryview], int]:
    """A function that sends bytes in less time than the socket's own ``send``. Never call it once the socket is closed:
    its descriptor may belong to another file."""
    return partial(os.write, sock.fileno())


def refuse_bytes(data: bytes | memoryview) -> int:
    """Take the place of a socket's writer when the socket is closed; raises OSError."""
    raise OSError(errno.EBADF, "the connection is closed")


class Loop:
    """The hub of this thread."""

    def __init__(self) -> None:
        self.hub = gevent.get_hub()
        self.thread = thread_ident()

    clock = staticmethod(monotonic)

    def alarm(self, function: Callable[[], object], holds: bool = False) -> Alarm:
        """An alarm that calls this function, and that may hold the loop; it is not set yet."""
        return Alarm(self.hub.loop, function, holds)

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function in the hub's next turn."""
        self.hub.loop.run_callback(function)

    def from_anywhere(self, function: Callable[[], object]) -> None:
        """The same from any thread, and from a finaliser, which may run amid anything."""
        try:
            self.hub.loop.run_callback_threadsafe(function)
        except Exception:  # at the very end of the interpreter the loop may be gone, and so may this module's names
            pass

    def at_thread_end(self, function: Callable[[], object]) -> Callable[[], None]:
        """Call a function when this OS thread has ended and the hub never turns again, unless the function given back
        is called before. It is not called in the main thread."""
        if not hasattr(_storage, "end"):
            _storage.end = _End()
        functions, key = _storage.end.functions, object()
        functions[key] = function

        def forget() -> None:
            functions.pop(key, None)

        return forget

    def spawn(self, function: Callable[..., object], *args: Any) -> Any:
        """Run a function in a new greenlet."""
        return gevent.spawn(function, *args)

    @staticmethod
    def greenlet() -> Any:
        """The greenlet that runs."""
        return getcurrent()
