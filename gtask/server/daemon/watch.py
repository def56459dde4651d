"""The application's source files: finds those that have changed since the last look. For development."""

from __future__ import annotations

import hashlib
import os
import sys

from gtask.installed import is_own_file

__all__ = ["Watch"]


class Watch:
    """The source files of the modules that are loaded, but for Python's own and installed packages."""

    def __init__(self) -> None:
        self._stamps = _look()
        self._contents = {path: _digest(path) for path in self._stamps}

    def changed(self) -> list[str]:
        """The files whose contents have changed since the last look."""
        now = _look()
        touched = [path for path, stamp in now.items() if self._stamps.get(path, stamp) != stamp]
        self._stamps = now
        before = self._contents
        self._contents = {
            path: _digest(path) if path in touched or path not in before else before[path] for path in now
        }
        return [path for path in touched if self._contents[path] != before.get(path)]


def _look() -> dict[str, int]:
    stamps: dict[str, int] = {}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if is_own_file(path):
            try:
                stamps[path] = os.stat(path).st_mtime_ns
            except OSError:
                stamps[path] = 0  # it is being replaced
    return stamps


def _digest(path: str) -> bytes:
    """What stands for the contents of a file; b"" while it is being replaced."""
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read()).digest()
    except OSError:
        return b""
