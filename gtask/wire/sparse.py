"""A message with large values: it is packed with a hole for each, which is filled when the peer's agreement is known.

A hole gets the bytes of its value, or, where both sides have agreed upon shared memory, a word that names some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gtask.wire.bodies import LENGTH
from gtask.wire.pieces import LargeFrame
from gtask.wire.values.kinds import too_large

if TYPE_CHECKING:
    from gtask.wire.values.agreement import Agreement
    from gtask.wire.values.holes import Part

__all__ = ["SparseFrame"]


class SparseFrame:
    """A frame with holes.

    Args:
        segments: the bytes of the packed message before, between and behind the holes.
        parts: the large values, in the order of their holes.
        limit: bytes that a frame may have.
    """

    __slots__ = ("_limit", "_parts", "_segments")

    def __init__(self, segments: Sequence[bytes], parts: Sequence[Part], limit: int) -> None:
        self._segments = segments
        self._parts = parts
        self._limit = limit

    def ready(self, agreement: Agreement, is_sent_at_once: bool = True) -> bytes | LargeFrame:
        """The frame for a peer with this agreement.

        Args:
            agreement: with the peer.
            is_sent_at_once: whether the values lie still until the frame is sent, and it is not asked for again.

        Raises:
            EncodeError: the frame is over the limit.
        """
        words = None if agreement.channel is None else agreement.channel.put(self._parts)
        if words is not None:
            return self._told(words)
        if not is_sent_at_once:
            for part in self._parts:
                part.keep()
        return self._whole(agreement)

    def wait(self) -> None:
        """No peer is known yet: from now on the application cannot change the values."""
        for part in self._parts:
            part.wait()

    def _told(self, words: Sequence[bytes]) -> bytes:
        body = b"".join(piece for pair in zip(self._segments, (*words, b""), strict=True) for piece in pair)
        return LENGTH.pack(len(body)) + body

    def _whole(self, agreement: Agreement) -> LargeFrame:
        pieces = [memoryview(self._segments[0])]
        for part, segment in zip(self._parts, self._segments[1:], strict=True):
            pieces += (memoryview(part.header), part.data, memoryview(segment))
        size = sum(piece.nbytes for piece in pieces)
        if size > self._limit:
            remark = "" if agreement.channel is None else agreement.channel.remark
            raise too_large(f"the message has {size} bytes", self._limit, remark)
        return LargeFrame((memoryview(LENGTH.pack(size)), *pieces))
