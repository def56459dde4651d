"""The mark that begins a dead worker's last words, and how no frame of a server looks as if it had one.

A worker may die when it has sent part of a frame. Then the last words stand in the place of the frame's rest, and the
frame's length makes them a part of it. So the last words begin with a mark: sixteen bytes ``c1``. Frames of a server
have neither sixteen of these bytes in a row nor one at their end. The rare frame that would have them is stuffed: it
travels as bytes in another message, with a byte more behind each fifteen. So a client sees at once whether a frame is
whole. The cuts of the stream have no part in it.
"""

from __future__ import annotations

import mmap

__all__ = [
    "BYTE", "LONGEST", "MARK", "SIXTEEN", "STUFFED", "needs_stuffing", "reaches_into_last_words", "stuff", "unstuff",
]  # fmt: skip

BYTE = 0xC1
"""No value of msgpack begins with it."""
SIXTEEN = 16
MARK = bytes([BYTE]) * SIXTEEN

LONGEST = 128 * 1024
"""Bytes that the last words have at the most, with their mark."""

STUFFED = "st"
"""The kind of the other form: ``["st", bytes]``."""

MOST = MARK[:-1]
"""The most of these bytes that a frame has in a row."""


def needs_stuffing(frame: bytes) -> bool:
    """Whether a frame could pass for one that the last words have completed."""
    return frame[-1] == BYTE or MARK in frame


def stuff(body: bytes) -> bytes:
    """What stands in the other form for the body of a frame."""
    return body.replace(MOST, MOST + b"\0") + b"\0"


def unstuff(inner: bytes) -> bytearray:
    """The body for which this stands."""
    return bytearray(inner[:-1].replace(MOST + b"\0", MOST))


def reaches_into_last_words(data: bytearray | mmap.mmap, start: int, stop: int) -> bool:
    """Whether the frame between start and stop, whose length says that it is whole, has last words for its end."""
    return data[stop - 1] == BYTE or data.find(MARK, max(start, stop - LONGEST), stop) >= 0
