"""Which modules are the application's own: not Python's, not those of installed packages, not gtask's."""

from __future__ import annotations

import os
import site
import sysconfig
from typing import TypeGuard

__all__ = ["is_of_application", "is_own_file"]

_INSTALLED = tuple(
    os.path.join(path, "")
    for path in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        site.getusersitepackages(),
    )
)


def is_own_file(path: object) -> TypeGuard[str]:
    """Whether a path, perhaps that of a module's file, is one of the application's source files."""
    return isinstance(path, str) and not path.startswith(_INSTALLED)


def is_of_application(name: str, path: object) -> bool:
    """Whether a module is the application's.

    Args:
        name: of the module.
        path: its ``__file__``, or anything else if it has none.
    """
    return name.partition(".")[0] != "gtask" and is_own_file(path)
