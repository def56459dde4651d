"""A file with the daemon's process id, locked as long as the daemon lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

from gtask.errors import reason_of
from gtask.server import custody

__all__ = ["PidFile"]


class PidFile:
    """Claims the file; :meth:`write` fills it in.

    Args:
        path: of the file; "" for none.
        user: the user and the group whom the server is to run as; None for its own. In a directory of theirs the file
            is touched with their rights; see :mod:`gtask.server.custody`.

    Raises:
        ValueError: another process holds the file.
        OSError: the file cannot be made.
    """

    def __init__(self, path: str, user: custody.Ids | None = None) -> None:
        self._user = user
        self._path = os.path.abspath(path) if path else ""
        self._descriptor = -1
        if not path:
            return
        self._descriptor = self._claim(path)
        while not self._is_there():  # its owner has removed it just before
            os.close(self._descriptor)
            self._descriptor = self._claim(path)

    def _claim(self, path: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with custody.acting(self._path, self._user):
            descriptor = os.open(self._path, flags, 0o644)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ValueError(f"the pid file {path} is no regular file: remove it, or choose another one")
        try:
            custody.check_file(descriptor, self._path)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f", process {holder}" if holder else ", which is just starting"
            raise ValueError(
                f"the pid file {path} is held by another server{who}: stop it, or choose another file"
            ) from None
        except OSError as error:
            if not os.fstat(descriptor).st_size:
                self._unlink()
            os.close(descriptor)
            raise ValueError(
                f"the pid file {path} cannot be locked: {reason_of(error)}. Choose one on a file system that has "
                "locks, such as /run"
            ) from error
        return descriptor

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _unlink(self) -> None:
        with contextlib.suppress(OSError), custody.acting(self._path, self._user):
            os.unlink(self._path)

    def write(self) -> None:
        """Write this process's id into it. At no moment it is empty again, or has half a number."""
        if self._path:
            text = b"%d\n" % os.getpid()
            os.pwrite(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))

    def remove(self) -> None:
        """The daemon ends."""
        if self._path:
            if self._is_there():
                self._unlink()
            os.close(self._descriptor)
            self._path = ""
