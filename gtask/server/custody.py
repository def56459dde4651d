"""As whom a root server touches a path: nobody else can make it follow, create, truncate or give away another file.

Root acts as root only where root alone decides what a path leads to: each directory on the way is root's, and others
may not write into it, or may not replace what is there (``/tmp``). Elsewhere the server takes on a user's rights for
the moment: those of ``--user``, or else of the user whose directory it is. So a link that this user has put there opens
nothing that the user could not open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
import sys
from collections.abc import Callable, Iterator

__all__ = ["Ids", "acting", "check_file", "foreigner", "give", "open_checked"]

Ids = tuple[int, int]
"""A user and a group."""

NOBODY: Ids = (65534, 65534)
"""Stands for any user, where a directory is open to all."""

LINKS = 40
"""Symbolic links that a path may lead through, as for the kernel."""

OTHERS_WRITE = stat.S_IWOTH


@contextlib.contextmanager
def acting(path: str, user: Ids | None) -> Iterator[Ids | None]:
    """Have the rights of the right user while a path is touched; gives that user, or None for this process's own.

    Only for processes with one thread: the rights are the whole process's.

    Args:
        path: of the file.
        user: the user and the group whom the server is to run as; None for none.
    """
    other = foreigner(path) if os.geteuid() == 0 else None
    ids = user or other if other is not None else None
    if ids is None or ids[0] == 0:
        yield None
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups(_groups_of(ids))
    os.setegid(ids[1])
    os.seteuid(ids[0])
    try:
        yield ids
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def foreigner(path: str) -> Ids | None:
    """A user beside root who can change what a path leads to; None if there is none.

    A directory of root's may be open to all. With the sticky bit, as ``/tmp`` has it, an entry can be replaced only by
    the entry's owner, who is the user then. Without it any user can replace the entry: a link or a directory on the way
    counts as any user's. A file at the end counts as its owner's, for the file is opened without following a link.
    """
    names = [name for name in os.path.abspath(path).split("/") if name]
    place, links = "/", 0
    while names:
        name = names.pop(0)
        if name == "..":
            place = os.path.dirname(place)
            continue
        entry = _status(os.path.join(place, name))
        other = _who_can_replace(os.stat(place), entry, is_last=not names)
        if other is not None:
            return other
        if entry is None:
            return None  # to be made, or missing: the opening will tell
        if stat.S_ISLNK(entry.st_mode) and not place.startswith("/proc/"):
            links += 1
            if links > LINKS:
                return NOBODY
            target = os.readlink(os.path.join(place, name))
            names[:0] = [part for part in target.split("/") if part and part != "."]
            place = "/" if target.startswith("/") else place
        else:
            place = os.path.join(place, name)
    return None


def check_file(descriptor: int, path: str) -> None:
    """Refuse a file that may be another's, though it has just been opened.

    Raises:
        OSError: it is a regular file with several names: one of them may lie where its owner would not have it.
    """
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise OSError(1, "it has several names (hard links), and may be another's file", path)


def _who_can_replace(directory: os.stat_result, entry: os.stat_result | None, is_last: bool) -> Ids | None:
    if directory.st_uid:
        return directory.st_uid, directory.st_gid
    if not directory.st_mode & OTHERS_WRITE or entry is None:
        return None
    if entry.st_uid:
        return entry.st_uid, entry.st_gid
    is_kept = directory.st_mode & stat.S_ISVTX or (is_last and not stat.S_ISLNK(entry.st_mode))
    return None if is_kept else NOBODY


def open_checked(path: str, flags: int, open_file: Callable[[str, int], int]) -> int:
    """Open a file that is there, through a link only if that is root's, or this user's, own; raises OSError."""
    try:
        return open_file(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.ELOOP or (os.geteuid() == 0 and foreigner(path) is not None):
            raise
    real = os.path.realpath(path)
    return open_file(path, flags) if real.startswith("/proc/") else open_file(real, flags | os.O_NOFOLLOW)


def give(path: str, inode: tuple[int, int] | None, ids: Ids) -> None:
    """Let a user own what is at a path, if it is still the file with this device and inode; raises OSError."""
    if sys.platform != "linux" or not os.path.isdir("/proc/self/fd"):
        os.chown(path, *ids, follow_symlinks=False)
        return
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) == inode:
            os.chown(f"/proc/self/fd/{descriptor}", *ids)
    finally:
        os.close(descriptor)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _groups_of(ids: Ids) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(ids[0]).pw_name, ids[1])
    except KeyError:  # a number without an entry
        return [ids[1]]
