"""A file with the daemon's process id, locked as long as the daemon lives."""

from __future__ import annotations

import contextlib
import fcntl
import os

from gtask.errors import reason_of

__all__ = ["PidFile"]


class PidFile:
    """Claims the file; :meth:`write` fills it in.

    Args:
        path: of the file; "" for none.

    Raises:
        ValueError: another process holds the file.
        OSError: the file cannot be made.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path) if path else ""
        self._descriptor = -1
        if not path:
            return
        self._descriptor = self._claim(path)
        while not self._is_there():  # its owner has removed it just before
            os.close(self._descriptor)
            self._descriptor = self._claim(path)

    def _claim(self, path: str) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
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
                os.unlink(self._path)
            os.close(descriptor)
            raise ValueError(
                f"the pid file {path} cannot be locked: {reason_of(error)}. Choose one on a file system that has "
                "locks, such as /run"
            ) from error
        return descriptor

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def write(self) -> None:
        """Write this process's id into it."""
        if self._path:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def remove(self) -> None:
        """The daemon ends."""
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(self._descriptor)
            self._path = ""
