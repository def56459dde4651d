"""A frame in several pieces: small ones that were packed, and large values that are sent from where they lie."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from gtask.wire.mark import BYTE, MARK, SIXTEEN

if TYPE_CHECKING:
    from gtask.wire.values.agreement import Agreement, ConditionalFrame

__all__ = ["LargeFrame", "joined", "write"]

WINDOW = 1024 * 1024
"""Bytes that are searched for the mark at a time."""


@final
class LargeFrame:
    """A frame in several pieces. Bytes may be put before and behind it with ``+``.

    Args:
        pieces: its bytes in order.

    Attributes:
        conditional: what makes the frame of the same call for another worker; at a client only.
    """

    __slots__ = ("conditional", "pieces")

    conditional: ConditionalFrame

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self.pieces = tuple(pieces)

    def __len__(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)

    def __add__(self, tail: bytes) -> LargeFrame:
        return LargeFrame((*self.pieces, memoryview(tail)))

    def __radd__(self, head: bytes) -> LargeFrame:
        return LargeFrame((memoryview(head), *self.pieces))

    def refusal(self, agreement: Agreement) -> str:
        """As :meth:`gtask.wire.values.agreement.ConditionalFrame.refusal`, for another worker."""
        return self.conditional.refusal(agreement)

    def ready(self, agreement: Agreement) -> bytes | LargeFrame:
        """The frame for that worker; raises as :meth:`gtask.wire.values.agreement.ConditionalFrame.ready`."""
        return self.conditional.ready(agreement)

    def joined(self) -> bytes:
        """All bytes in one."""
        return b"".join(self.pieces)

    @property
    def needs_stuffing(self) -> bool:
        """As :func:`gtask.wire.mark.needs_stuffing`."""
        window = b""
        for piece in self.pieces:
            for start in range(0, piece.nbytes, WINDOW):
                window = window[1 - SIXTEEN :] + piece[start : start + WINDOW].tobytes()
                if MARK in window:
                    return True
        return window[-1] == BYTE


def joined(frame: bytes | LargeFrame) -> bytes:
    """The bytes of a frame in one piece."""
    return frame.joined() if isinstance(frame, LargeFrame) else frame


def write(unsent: deque[memoryview], frame: bytes | LargeFrame, send: Callable[[memoryview], int]) -> None:
    """Send a frame behind what is unsent, as far as there is room; what is left of it is then unsent, too.

    Args:
        unsent: what waits for room.
        frame: the frame.
        send: sends bytes and gives how many it has sent; raises BlockingIOError where there is no room.

    Raises:
        OSError: the connection is broken.
    """
    pieces = frame.pieces if isinstance(frame, LargeFrame) else (memoryview(frame),)
    for piece in pieces:
        sent = 0
        try:
            while not unsent and sent < piece.nbytes:
                sent += send(piece[sent:])
        except BlockingIOError:
            pass
        if sent < piece.nbytes:
            unsent.append(piece[sent:])
