"""The descriptors of a server process: which are open, which are left, and files that are opened for good."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
import tempfile
from collections.abc import Callable, Collection

from gtask.server import custody
from gtask.server.originals import close, dup2, open_file

__all__ = [
    "close_descriptors",
    "few_are_left",
    "open_descriptors",
    "reopen",
    "replace_inherited",
    "stacks_file",
    "to_null",
]

RESERVE = 8
"""Descriptors that no connection gets, or an eighth of all: a log file and a helper for metrics want some, too."""

MANY = 65536
"""Descriptors that are looked at one by one where the system does not tell which are open."""

_TEMPORARY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def to_null(*descriptors: int) -> None:
    """Let these descriptors lead to the null device."""
    null = open_file(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        dup2(null, descriptor)
    close(null)


def open_descriptors() -> set[int]:
    """The descriptors that are open in this process."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(FileNotFoundError):
            # The listing's own descriptor is in the listing, and closed again.
            return {int(name) for name in os.listdir(directory) if _is_open(int(name))}
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return {number for number in range(MANY if limit < 0 else min(limit, MANY)) if _is_open(number)}


def few_are_left() -> bool:
    """Whether this process has hardly any descriptors left."""
    try:
        lowest = os.dup(0)
    except OSError as error:
        return error.errno == errno.EMFILE
    close(lowest)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit != resource.RLIM_INFINITY and lowest + min(RESERVE, limit // RESERVE) >= limit


def close_descriptors(keep: Collection[int]) -> None:
    """Close every descriptor but these."""
    for descriptor in open_descriptors() - set(keep):
        with contextlib.suppress(OSError):
            close(descriptor)


def replace_inherited(keep: Collection[int]) -> None:
    """Let go of the sockets and pipes that a forked server inherited from its program.

    They would keep the program's ports busy and hide its ends of files. Objects that still know their numbers
    remain in memory, so the numbers are not freed for others to reuse: they lead to the null device. Files stay.
    """
    null = open_file(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in open_descriptors() - set(keep) - {0, 1, 2, null}:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            dup2(null, descriptor, False)
    close(null)


def reopen(path: str, owner: tuple[int, int] | None = None) -> None:
    """Let stderr go to the end of this file, which is made if it does not exist.

    Args:
        owner: user and group of the file, if it is made here, so that they can reopen it, too. In a directory of theirs
            it is opened with their rights; see :mod:`gtask.server.custody`.

    Raises:
        OSError: it cannot be opened.
    """
    # Neither a pipe without a reader nor a terminal is waited for, and no terminal is to control this process.
    flags = os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        with custody.acting(path, owner) as user:  # O_EXCL follows no link
            descriptor, is_new = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o640), True
    except FileExistsError:
        with custody.acting(path, owner) as user:  # asked anew, for somebody may have put it there just before
            descriptor, is_new = _open_log(path, flags, may_follow=user is None), False
    try:
        custody.check_file(descriptor, path)
        if owner is not None and is_new and user is None:
            os.fchown(descriptor, *owner)
        dup2(descriptor, 2)
    finally:
        close(descriptor)


def _open_log(path: str, flags: int, may_follow: bool) -> int:
    """Open a log that is there; it is never made here, for a link may lead nowhere yet."""
    try:
        if may_follow:
            return custody.open_checked(path, os.O_WRONLY | flags, open_file)
        flags |= os.O_NOFOLLOW
        return open_file(path, os.O_WRONLY | flags)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return open_file(path, os.O_RDWR | flags)  # a pipe that nobody reads yet: it may be filled


def stacks_file() -> tuple[Callable[[], int], str]:
    """The way to make a file for the stacks of a worker: in memory, else on a disk, else none.

    Returns:
        a function that gives the descriptor of a new file, and what the system lacks, for the log, or "".
    """
    try:
        close(_in_memory())
        return _in_memory, ""
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _TEMPORARY:
            return _in_memory, ""
    try:
        close(_on_disk())
    except OSError:
        return _nowhere, "neither memfd_create nor a directory for temporary files: a dying worker leaves no stacks"
    return _on_disk, "no memfd_create: the stacks of a dying worker go to a temporary file"


def _in_memory() -> int:
    return os.memfd_create("gtask-stacks")


def _on_disk() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _nowhere() -> int:
    return open_file(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
