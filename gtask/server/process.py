"""What a server process does to itself: signals, descriptors, titles, and dying with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import stat
import sys
from collections.abc import Collection
from dataclasses import dataclass

try:
    from setproctitle import setproctitle
except ImportError:  # the extra "setproctitle" is not installed

    def setproctitle(title: str) -> None:
        pass


__all__ = [
    "Parent",
    "close_descriptors",
    "flush",
    "open_descriptors",
    "replace_inherited",
    "reset_signals",
    "setproctitle",
    "substitutes",
]

PR_SET_PDEATHSIG = 1


def substitutes() -> list[str]:
    """What this system lacks, and what is done instead, for the log."""
    lacking = []
    if not hasattr(select, "POLLRDHUP"):
        lacking.append(
            "no POLLRDHUP: a client that hangs up is noticed by POLLHUP, and half-closed ones only at the end"
        )
    if not hasattr(os, "memfd_create"):
        lacking.append("no memfd_create: the stacks of a dying worker go to a temporary file")
    if sys.platform != "linux":
        lacking.append("no prctl: the end of the parent is noticed by its pipe, or within a second")
    return lacking


def reset_signals() -> None:
    """Forget the parent's signal handlers, wake-up descriptor and mask."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        # SIGPIPE stays ignored, as in any Python program; handlers of libraries written in C stay, too.
        if callable(signal.getsignal(number)) and number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def open_descriptors() -> set[int]:
    """The descriptors that are open in this process."""
    directory = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    # The listing's own descriptor is in the listing, and closed again.
    return {int(name) for name in os.listdir(directory) if _is_open(int(name))}


def close_descriptors(keep: Collection[int]) -> None:
    """Close every descriptor but these."""
    for descriptor in open_descriptors() - set(keep):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def replace_inherited(keep: Collection[int]) -> None:
    """Let go of the sockets and pipes that a forked server inherited from its program.

    They would keep the program's ports busy and hide its ends of files. Objects that still know their numbers
    remain in memory, so the numbers are not freed for others to reuse: they lead to the null device. Files stay.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in open_descriptors() - set(keep) - {0, 1, 2, null}:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)


@dataclass(frozen=True)
class Parent:
    """The process whose end is the end of this server, too.

    Args:
        pid: its process id.
        pipe: a descriptor that reads the end of the file when it ends, unless a sibling holds the other end, too.
        forked: whether it has forked this process in its main thread, so that Linux can send SIGTERM at its end
            (the signal comes when the forking *thread* ends).
    """

    pid: int
    pipe: int
    forked: bool

    def watch(self) -> None:
        """Ask for that signal, where it exists. Call it when SIGTERM has its handler."""
        if self.forked and sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    @property
    def is_gone(self) -> bool:
        return os.getppid() != self.pid


def flush() -> None:
    """Write out what lies in Python's buffers; whoever closed them does not matter."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
