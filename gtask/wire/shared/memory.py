"""Memory that two processes have: a file without a name (memfd), sealed so that nobody can change or cut it.

A peer's file is looked at before it is read: a peer that could still truncate it could kill its reader by SIGBUS.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import weakref
from functools import cache
from io import FileIO
from typing import Any

from gtask.wire.values.in_place import address_of, at

__all__ = ["check", "is_here", "make", "map_at", "map_private", "new_bytes", "read", "seal", "unmap"]

SEALS = getattr(fcntl, "F_SEAL_SHRINK", 0) | getattr(fcntl, "F_SEAL_GROW", 0) | getattr(fcntl, "F_SEAL_WRITE", 0)
"""What a file must have before its reader looks at it."""

MAP_FIXED = 0x10  # which the module mmap does not know
MADV_HUGEPAGE = 14
PAGE = mmap.PAGESIZE
HUGE = 2 * 1024 * 1024
FAILED = ctypes.c_void_p(-1).value


@cache
def is_here() -> bool:
    """Whether this system has such files, and lets them be mapped."""
    try:
        return hasattr(os, "memfd_create") and bool(SEALS and _libc() and _new_bytes())
    except (AttributeError, TypeError, OSError):
        return False


@cache
def _libc() -> Any:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


@cache
def _new_bytes() -> Any:
    make: Any = ctypes.pythonapi.PyBytes_FromStringAndSize
    make.restype = ctypes.py_object
    make.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
    return make


def make(data: memoryview) -> FileIO:
    """A sealed file with these bytes; raises OSError.

    It is an object, which closes its descriptor at the latest when it is dropped: an interruption may strike anywhere.
    """
    file, sent = FileIO(os.memfd_create("gtask", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+"), 0
    while sent < data.nbytes:
        sent += os.write(file.fileno(), data[sent:])
    seal(file.fileno())
    return file


def seal(descriptor: int) -> None:
    """Nobody can change the file from now on; raises OSError while it is mapped so that it can be changed there."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS | fcntl.F_SEAL_SEAL)


def check(descriptor: int, size: int) -> None:
    """Refuse a peer's file that is none, that somebody could still change, or that has fewer bytes than a frame names.

    Raises:
        ValueError: the message says which.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise ValueError("shared memory that is none: its descriptor is that of something else") from None
    if seals & SEALS != SEALS:
        raise ValueError("shared memory that its sender could still change: it is not sealed")
    found = os.fstat(descriptor).st_size
    if found < size:
        raise ValueError(f"shared memory of {found} bytes, of which a frame names {size}")


def read(descriptor: int, size: int, offset: int) -> bytes:
    """The bytes of a sealed file, in memory of this process.

    They are read straight into a new bytes object, in large pages where there are any: to fetch them page by page takes
    twice as long.

    Raises:
        OSError, MemoryError: it could not be read.
    """
    value, done = new_bytes(size), 0
    with memoryview(at(address_of(value), size)).cast("B") as room:
        while done < size:
            count = os.preadv(descriptor, [room[done:]], offset + done)
            if not count:
                raise OSError("shared memory ended early")
            done += count
    return value


def new_bytes(size: int) -> bytes:
    """A new bytes object of any content, which nobody else knows yet; raises MemoryError."""
    value: bytes = _new_bytes()(None, size)
    begin = address_of(value)
    start, end = -(-begin // PAGE) * PAGE, (begin + size) // PAGE * PAGE
    if end - start >= HUGE:
        _libc().madvise(start, end - start, MADV_HUGEPAGE)  # only advice: whether it is taken does not matter
    return value


def map_private(descriptor: int, offset: int, size: int) -> Any:
    """Part of a sealed file as memory of this process, without a copy. Pages that are changed here become this
    process's own; raises as :func:`map_at`.

    Args:
        descriptor: of the file; it may be closed afterwards.
        offset, size: where the part begins, and its bytes.
    """
    address = map_at(None, descriptor, offset + size, mmap.MAP_PRIVATE)
    memory = at(address + offset, size)
    weakref.finalize(memory, unmap, address, offset + size).atexit = False
    return memory


def map_at(address: int | None, descriptor: int, size: int, flags: int) -> int:
    """Map a file as memory that may be changed; gives its address.

    Args:
        address: where; what is mapped there is replaced in one step. None for anywhere.
        flags: MAP_SHARED or MAP_PRIVATE.

    Raises:
        OSError: there is no room for it.
    """
    where = 0 if address is None else MAP_FIXED
    mapped = _libc().mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags | where, descriptor, 0)
    if mapped == FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(mapped)


def unmap(address: int, size: int) -> None:
    """Give mapped memory back."""
    _libc().munmap(address, size)
