"""The bytes of a large array that has come in a frame, as memory of its own, without a second copy."""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["address_of", "at", "own"]

BYTES_HEAD = bytes.__basicsize__ - 1
"""Bytes of a bytes object before its content."""


def address_of(value: bytes) -> int:
    """Where the content of a bytes object lies in memory."""
    return id(value) + BYTES_HEAD


def at(address: int, size: int) -> Any:
    """Memory at an address, as an object to which a buffer, attributes and a finaliser can be attached."""
    return (ctypes.c_char * size).from_address(address)


def own(data: bytes, start: int) -> Any:
    """Memory that may be changed, with the bytes from a place on: that of the object itself, which nobody else knows.

    They are moved to its beginning, where numbers of any size may lie, and not copied.
    """
    size, address = len(data) - start, address_of(data)
    ctypes.memmove(address, address + start, size)
    memory = at(address, size)
    memory.owner = data  # which lives as long
    return memory
