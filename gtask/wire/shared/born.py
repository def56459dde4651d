"""Memory that an application fills in place, to send it without any copy; see :mod:`gtask.shared`.

Once it was sent nobody can change it. This process's own views of it then are of private pages: what is still written
there is seen only here, and the next time such memory is copied like any other.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Any

from gtask.wire.shared import memory

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
        self._is_sealed = False

    @property
    def is_unchanged(self) -> bool:
        """Whether the file has what its views here show: nothing was written since it was sealed."""
        if not self._is_sealed:
            return True
        first, last = self._address // mmap.PAGESIZE, (self._address + self._size - 1) // mmap.PAGESIZE
        try:
            with open(PAGEMAP, "rb") as pagemap:
                pagemap.seek(first * ENTRY)
                entries = pagemap.read((last - first + 1) * ENTRY)
        except OSError:
            return False
        return all(not flags & SWAPPED and (flags & OF_FILE or not flags & PRESENT) for flags in {*entries[7::8]})

    def sealed(self, view: Any) -> int:
        """The descriptor, once nobody can change the file; views of it count as read-only.

        Args:
            view: the array that is sent.
        """
        if not self._is_sealed:
            memory.map_at(self._address, self._descriptor, self._size, mmap.MAP_PRIVATE)
            memory.seal(self._descriptor)
            self._is_sealed = True
        while hasattr(view, "flags"):
            view.flags.writeable = False
            view = view.base
        return self._descriptor

    def offset_of(self, data: memoryview) -> int:
        """Where bytes of it begin."""
        return int(data.obj.__array_interface__["data"][0]) - self._address  # type: ignore[attr-defined]


def new_memory(size: int) -> Any:
    """New memory of zeros that can be shared, at least 1 byte. It knows what it was born as; the file is closed when
    nobody refers to the memory any more.

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
    mapped = memory.at(address, size)
    mapped.born = Born(descriptor, address, size)  # which does not know it: a circle would stay until it is collected
    weakref.finalize(mapped, _free, address, size, descriptor).atexit = False
    return mapped


def _free(address: int, size: int, descriptor: int) -> None:
    memory.unmap(address, size)
    os.close(descriptor)
