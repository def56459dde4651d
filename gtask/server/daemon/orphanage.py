"""A master that still loads its application, and whose starter has gone, ends at once.

It cannot look itself, for the application's code runs meanwhile. So the kernel tells it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterator

from gtask.server import process
from gtask.server.originals import POLLHUP, poll, set_handler

__all__ = ["watched"]


@contextlib.contextmanager
def watched(parent: int | None, pipe: int, kept: bool, tidy_up: Callable[[], object]) -> Iterator[None]:
    """End this process if its starter ends meanwhile.

    Args:
        parent: the starter's process id; None for none.
        pipe: a descriptor that reads the end of the file when the starter ends.
        kept: whether the starter is a keeper. It starts masters in its only thread, whose end is its own.
        tidy_up: called before that, unless the starter is a keeper.
    """
    if parent is None:
        yield
        return
    number = signal.SIGKILL if kept else signal.SIGIO

    def look(*_: object) -> None:
        if os.getppid() != parent or (not kept and _has_ended(pipe)):
            tidy_up()
            os._exit(1)

    if not kept:
        set_handler(number, look)
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    process.die_with(number)
    look()  # it may have ended before
    try:
        yield
    finally:
        process.die_with(0)
        if not kept:
            fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) & ~os.O_ASYNC)
            set_handler(number, signal.SIG_DFL)


def _has_ended(pipe: int) -> bool:
    look = poll()
    look.register(pipe, 0)
    return any(event & POLLHUP for _, event in look.poll(0))
