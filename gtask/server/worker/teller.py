"""What a worker tells its client while a call runs, before the reply: log records, say, or that it wants more time.

Any thread may tell something. None does when the call is over, nor in a process that the application has forked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtask.server.worker.interruption import Interruption
    from gtask.server.worker.replies import ReplyBuffer

__all__ = ["Teller"]


class Teller:
    """Lets any thread write messages before the reply while a call runs, and none when the call is over.

    Args:
        replies: where the messages go.
        interruption: SIGALRM must not come amid a message.
        is_open: whether a call runs.

    Attributes:
        is_busy: whether a thread is writing, so that :meth:`wait` is to be called at the end of a call.
    """

    __slots__ = ("_interruption", "_is_open", "_main", "_pid", "_replies", "is_busy")

    def __init__(self, replies: ReplyBuffer, interruption: Interruption, is_open: Callable[[], bool]) -> None:
        self._replies = replies
        self._interruption = interruption
        self._is_open = is_open
        self._main = threading.get_ident()
        self._pid = os.getpid()
        self.is_busy = False

    def tell(self, act: Callable[[], object]) -> None:
        """Run a function that writes by :meth:`ReplyBuffer.tell`, if a call runs.

        Nothing happens in a process that the application has forked, nor while this thread is writing already.
        """
        if os.getpid() != self._pid:
            return
        is_main = threading.get_ident() == self._main
        if is_main and not self._interruption.hold_back():
            return
        try:
            with self._replies.lock:
                # First busy, then the look: a call that ends meanwhile either is seen here, or sees this and waits.
                outer, self.is_busy = self.is_busy, True
                try:
                    if self._is_open():
                        act()
                finally:
                    self.is_busy = outer
        except (ConnectionError, TimeoutError):
            pass  # the client is gone: the next read from the connection finds out
        finally:
            if is_main:
                self._interruption.let_go()

    def wait(self) -> None:
        """Until no thread is writing."""
        with self._replies.lock:
            pass
