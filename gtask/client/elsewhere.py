"""What is done in one OS thread and awaited in another: by greenlets of another hub, or by a plain thread.

A link of gevent's is called in one hub alone, and holds no loop. So a hub that has nothing else to do would end amid
the wait (LoopExit), and one that sleeps would hear late. A :class:`Link` has a watcher in the hub of the thread that
waits: the watcher holds that loop, and any thread may wake it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.event import AsyncResult

from gtask.client.loop import thread_ident
from gtask.errors import Error

if TYPE_CHECKING:
    _AsyncResult = AsyncResult[Any]
else:
    _AsyncResult = AsyncResult  # generic for type checkers only

__all__ = ["SharedResult", "link", "unlink", "wait", "wake"]

Callback = Callable[[Any], object]


class Link:
    """Calls a callback in the hub of the thread that has made the link, when something is done in another thread.

    Args:
        hub: that of this thread.
        subject: what is to be done; the callback's argument.
        callback: takes the subject.
    """

    __slots__ = ("_callback", "_subject", "_watcher")

    def __init__(self, hub: Any, subject: Any, callback: Callback) -> None:
        self._subject = subject
        self._callback = callback
        self._watcher = hub.loop.async_()
        self._watcher.start(self._call)

    def __call__(self, _: object = None) -> None:
        """It is done. May be called in any thread, and again."""
        try:
            self._watcher.send()
        except Exception:  # nobody waits any more, and the watcher or its hub has gone
            pass

    def _call(self) -> None:
        if _links.pop((self._subject, self._callback), None) is self:
            self.close()
            self._callback(self._subject)

    def close(self) -> None:
        """Hold the loop no more; in the thread of the link."""
        self._watcher.stop()
        self._watcher.close()


_links: dict[tuple[Any, Callback], Link] = {}
"""The links that were not called yet, by what they wait for and what they call."""


def link(subject: Any, callback: Callback, attach: Callable[[Link], object]) -> bool:
    """Have a callback called in the hub of this thread when something is done in another thread; soon if it is.

    Args:
        subject: what is to be done. It has a method ``ready``.
        callback: takes the subject.
        attach: has its argument called in the other thread when it is done.

    Returns:
        False if this thread has no hub, so that nothing was done.
    """
    hub = get_hub_if_exists()
    if hub is None:
        return False
    if (subject, callback) not in _links:
        _links[subject, callback] = made = Link(hub, subject, callback)
        if not subject.ready():
            attach(made)
        if subject.ready():  # also if it was done just before the other thread could know of the link
            made()
    return True


def unlink(subject: Any, callback: Callback) -> Link | None:
    """Do not call it any more; gives the link, if there is one that was not called."""
    found = _links.pop((subject, callback), None)
    if found is not None:
        found.close()
    return found


def wait(subject: Any, timeout: float | None, exception: Any = None) -> None:
    """Block this greenlet until something is done in another thread.

    Args:
        subject: what is to be done.
        timeout: seconds to wait; None for no limit.
        exception: False to return at the time-out; by default it raises gevent.Timeout.
    """
    had_hub = get_hub_if_exists() is not None
    try:
        with gevent.Timeout.start_new(timeout, exception):
            gevent.wait([subject])
    finally:
        if not had_hub:
            gevent.get_hub().destroy()  # a plain thread would leave its descriptors behind


def wake(subject: Any) -> None:
    """It is done, though the thread in which it was to be done has ended: let those know that wait for it."""
    for (awaited, _), found in list(_links.items()):
        if awaited is subject:
            found()


class SharedResult(_AsyncResult):
    """An AsyncResult that is set in one thread, and for which greenlets of any thread may wait.

    Args:
        thread: the ident of the thread in which it is set.

    Attributes:
        heir: called with it when it was set because that thread has ended; None for nobody.
    """

    __slots__ = ("_thread", "heir")

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread
        self.heir: Callable[[Any], object] | None = None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The value, as soon as it is there; or raises its exception, or gevent.Timeout."""
        if block and self._is_awaited_elsewhere:
            wait(self, timeout)
        return super().get(block, timeout)

    def wait(self, timeout: float | None = None) -> Any:
        """Block this greenlet until it is set, or for ``timeout`` seconds.

        Returns:
            the value; None if there is none, or none yet.
        """
        if self._is_awaited_elsewhere:
            wait(self, timeout, exception=False)
            return self.value
        return self.value if self.ready() else super().wait(timeout)

    def rawlink(self, callback: Callback) -> None:
        """Have a callback called with it when it is set: in the hub of this thread; where there is none, in that of the
        thread in which it is set."""
        attach = super().rawlink
        if thread_ident() == self._thread or not link(self, callback, attach):
            attach(callback)

    def unlink(self, callback: Callback) -> None:
        """Do not call it any more."""
        super().unlink(unlink(self, callback) or callback)

    @property
    def _is_awaited_elsewhere(self) -> bool:
        return thread_ident() != self._thread and not self.ready()

    def fail(self, error: Error) -> None:
        """Set the exception."""
        self.set_exception(error)

    def orphan(self, error: Error) -> None:
        """The thread has ended in which it was to be set: set this exception, and let other threads know."""
        if not self.ready():
            self.fail(error)
            wake(self)
            if self.heir is not None:
                self.heir(self)
