"""The application's source files: finds those that have changed since the last look. For development."""

from __future__ import annotations

import os
import sys
import sysconfig

__all__ = ["Watch"]

_INSTALLED = tuple(
    os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


class Watch:
    """The source files of the modules that are loaded, but for Python's own and installed packages."""

    def __init__(self) -> None:
        self._seen = self._look()

    def changed(self) -> list[str]:
        """The files that have changed since the last look."""
        now = self._look()
        changed = [path for path, stamp in now.items() if self._seen.get(path, stamp) != stamp]
        self._seen = now
        return changed

    def _look(self) -> dict[str, int]:
        stamps: dict[str, int] = {}
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and not path.startswith(_INSTALLED):
                try:
                    stamps[path] = os.stat(path).st_mtime_ns
                except OSError:
                    stamps[path] = 0  # it is being replaced
        return stamps
