"""The time that the next call has left, which is said before it: ``["be", {"left": seconds}]``, in a short way.

A call that has waited in line has its time cut by that. So this is said at each hand-over of a worker.
"""

from __future__ import annotations

import struct

from gtask.wire.bodies import Data, decode_body
from gtask.wire.messages import Message, Preamble
from gtask.wire.values.unpacking import Unpacking

__all__ = ["LEFT_HEAD", "frame_of_left", "read_left"]

LEFT, BEGIN = struct.Struct("!I11sd"), b"\x92\xa2be\x81\xa4left\xcb"
LEFT_HEAD = BEGIN[:8]


def frame_of_left(left: float) -> bytes:
    """The frame of a preamble that says no more than these seconds."""
    return LEFT.pack(LEFT.size - 4, BEGIN, left)


def read_left(data: Data, start: int, stop: int, header: int, epoch: int, unpacking: Unpacking) -> Message:
    """The frame between start and stop: such a preamble, or what else begins in this way."""
    if stop - start == LEFT.size:
        _, begin, left = LEFT.unpack_from(data, start)
        if begin == BEGIN and left >= 0:
            return Preamble(None, left)
    return decode_body(data[start + 4 : stop], unpacking)
