"""Memory that an application fills in place, to send it without any copy; see :mod:`gtask.shared`.

The memory is a file, which is sealed when it is sent for the first time. From then on the views of this process show
private pages: a later write is seen only here, and the memory is copied like any other when it is sent again.
"""

from __future__ import annotations

import mmap
import os
import weakref
from contextlib import suppress
from typing import Any

from gtask.wire.shared import memory
from gtask.wire.values.in_place import at

__all__ = ["Born", "new_memory"]

PAGEMAP = "/proc/self/pagemap"
ENTRY = 8
"""Bytes that it has for a page; in the last are flags."""
PRESENT, SWAPPED, OF_FILE = 1 << 7, 1 << 6, 1 << 5


class Born:
    """A shared file that is mapped here.

    Args:
        descriptor: of the file.
        address, size: where it is mapped, and its bytes.
    """

    def __init__(self, descriptor: int, address: int, size: int) -> None:
        self._descriptor = descriptor
        self._address = address
        self._size = size
        self._pid = os.getpid()
        self._is_sealed = False

    def frozen(self, view: Any) -> int | None:
        """The descriptor, once nobody can change the file; the views of it count as read-only then.

        Args:
            view: the array that is sent.

        Returns:
            None if the array must be copied: something was written since the file was sealed, or the file is mapped in
            another process, too, since a fork.
        """
        if os.getpid() != self._pid or (self._is_sealed and self._is_written()) or not self._sealed():
            return None
        while hasattr(view, "flags"):
            view.flags.writeable = False
            view = view.base
        return self._descriptor

    def _sealed(self) -> bool:
        if not self._is_sealed:
            memory.map_at(self._address, self._descriptor, self._size, mmap.MAP_PRIVATE)
            try:
                memory.seal(self._descriptor)
                self._is_sealed = True
            except OSError:  # a forked process could still change it
                memory.map_at(self._address, self._descriptor, self._size, mmap.MAP_SHARED)
        return self._is_sealed

    def _is_written(self) -> bool:
        """Whether a page here differs from that of the file."""
        first, last = self._address // mmap.PAGESIZE, (self._address + self._size - 1) // mmap.PAGESIZE
        try:
            with open(PAGEMAP, "rb") as pagemap:
                pagemap.seek(first * ENTRY)
                entries = pagemap.read((last - first + 1) * ENTRY)
        except OSError:
            return True
        return any(flags & SWAPPED or (flags & PRESENT and not flags & OF_FILE) for flags in {*entries[7::8]})

    def offset_of(self, data: memoryview) -> int:
        """Where bytes of it begin."""
        return int(data.obj.__array_interface__["data"][0]) - self._address  # type: ignore[attr-defined]


def new_memory(size: int) -> Any:
    """New memory of zeros that can be shared, at least 1 byte. Its attribute ``born`` is the :class:`Born`; the file is
    closed when nobody refers to the memory any more.

    Raises:
        OSError: there is no memory, no descriptor, or no such file on this system.
    """
    descriptor = -1
    try:
        descriptor = os.memfd_create("gtask", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        address = memory.map_at(None, descriptor, size, mmap.MAP_SHARED)
    except BaseException:  # an interruption, too
        if descriptor >= 0:
            os.close(descriptor)
        raise
    mapped = at(address, size)
    mapped.born = Born(descriptor, address, size)  # which does not know it: a circle would stay until it is collected
    weakref.finalize(mapped, _free, address, size, descriptor, os.fstat(descriptor)).atexit = False
    return mapped


def _free(address: int, size: int, descriptor: int, status: os.stat_result) -> None:
    memory.unmap(address, size)
    with suppress(OSError):
        if os.path.samestat(os.fstat(descriptor), status):  # or a forked process has closed it, and opened another
            os.close(descriptor)
