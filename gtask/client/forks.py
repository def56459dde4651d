"""Whether this process is a child that has been forked from the one that uses a client, also by C code.

A fork by ``os.fork`` is announced. A fork by C code, as uWSGI does it, is not: so everything that touches what a child
must not share looks at a page of memory first, which the kernel clears in a child. A look takes less time than a system
call.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Protocol

__all__ = ["HERE", "after_fork", "look"]

MADV_WIPEONFORK = 18


class Mark(Protocol):
    """Item 0 is true where the mark was set, and false in a child that was forked since."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class ProcessId:
    """A mark that compares process ids, for kernels without MADV_WIPEONFORK (before Linux 4.14, gVisor)."""

    def __init__(self) -> None:
        self[0] = 1

    def __getitem__(self, index: int, /) -> int:
        return self._pid == os.getpid()

    def __setitem__(self, index: int, value: int, /) -> None:
        self._pid = os.getpid()


def _mark() -> Mark:
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(MADV_WIPEONFORK)
    except OSError:
        return ProcessId()
    page[0] = 1
    return page


HERE = _mark()
"""``HERE[0]`` is false in a forked child that has not noticed it: :func:`look` is to be called then."""

_functions: list[Callable[[], object]] = []


def after_fork(function: Callable[[], object]) -> None:
    """Call a function in each forked child, at once or as soon as the fork is noticed."""
    _functions.append(function)


def look() -> None:
    """Notice a fork by C code."""
    if not HERE[0]:
        _in_child()


def _in_child() -> None:
    HERE[0] = 1
    for function in _functions:
        function()


os.register_at_fork(after_in_child=_in_child)
