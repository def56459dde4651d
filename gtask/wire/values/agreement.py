"""The agreement of a connection's two sides: which kinds of values may travel, and why others may not.

:mod:`gtask.wire.values.offers` makes agreements, from what both greetings say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, final

from gtask.errors import EncodeError
from gtask.wire.pieces import LargeFrame
from gtask.wire.values.kinds import NATIVE, Kinds

if TYPE_CHECKING:
    from gtask.wire.shared.channel import Channel
    from gtask.wire.sparse import SparseFrame

__all__ = ["PLAIN", "Agreement", "ConditionalFrame", "Fallback", "Frame", "PreparedFrame", "close_channel", "prepared"]


_NATIVE = Kinds(NATIVE)


@dataclass(frozen=True, slots=True)
class Fallback:
    """What stands for values that are of no kind, or would lose something.

    Attributes:
        offer: the offer under which it travels.
        make: makes what stands for a value; raises any exception if there is no such thing.
    """

    offer: str
    make: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one connection.

    Attributes:
        kinds: the table of kinds, also of those whose offer is not agreed upon.
        agreed: the names of the offers that both sides want.
        reasons: why an offer is not agreed upon, by its name, for an error.
        fallback: what stands for a value that is of no kind, or would lose something; None if both sides have not
            agreed upon one.
        no_fallback: why there is none, for an error; "" if neither side wants one.
        channel: by which shared memory goes to the peer and comes from it; None if none does.
    """

    kinds: Kinds = _NATIVE
    agreed: frozenset[str] = frozenset()
    reasons: Mapping[str, str] = field(default_factory=dict)
    fallback: Fallback | None = None
    no_fallback: str = ""
    channel: Channel | None = None

    def without_fallback(self) -> Agreement:
        """The same for what travels without one, too."""
        offer = {self.fallback.offer} if self.fallback else ()
        return replace(self, agreed=self.agreed.difference(offer), fallback=None)


PLAIN = Agreement()
"""What every peer reads."""


@final
class ConditionalFrame:
    """The frame of a call that not every worker can read, or that depends on the worker.

    Args:
        data: the frame; one with holes is filled for each worker.
        used: the offers that it uses, by name, and a phrase for the value that uses each.
        otherwise: the frame of the same call for a worker that has not agreed upon all of them; None if there is none.

    Attributes:
        used: as above, or of the other frame once a worker was asked about that could not read this one. What is sent
            can be asked for the next worker, if this one turns out to be dead.
    """

    __slots__ = ("_data", "_otherwise", "used")

    def __init__(
        self, data: bytes | SparseFrame, used: dict[str, str], otherwise: bytes | ConditionalFrame | None = None
    ) -> None:
        self._data = data
        self.used = used
        self._otherwise = otherwise

    def ready(self, agreement: Agreement) -> bytes | LargeFrame:
        """The frame for a worker that was asked about; raises as :meth:`gtask.wire.sparse.SparseFrame.ready`."""
        data: bytes | LargeFrame = self._data if isinstance(self._data, bytes) else self._data.ready(agreement, False)
        prepared = data if isinstance(data, LargeFrame) else PreparedFrame(data)
        prepared.conditional = self  # not the other way round as well: a circle would stay until it is collected
        return prepared

    def wait(self) -> None:
        """As :meth:`gtask.wire.sparse.SparseFrame.wait`."""
        if not isinstance(self._data, bytes):
            self._data.wait()

    def refusal(self, agreement: Agreement) -> str:
        """Why it must not be sent where this was agreed upon, for an EncodeError; "" if it may be."""
        if self._otherwise is not None and not agreement.agreed.issuperset(self.used):
            other, self._otherwise = self._otherwise, None
            self._data, self.used = (other, {}) if isinstance(other, bytes) else (other._data, other.used)
        for name, phrase in self.used.items():
            if name not in agreement.agreed:
                why = agreement.reasons.get(name, "")
                return f"cannot travel: {phrase}. {why[:1].upper()}{why[1:]}"
        return ""


@final
class PreparedFrame(bytes):
    """The bytes of a frame that not every worker can read, when they are about to be sent to one that can."""

    conditional: ConditionalFrame

    def refusal(self, agreement: Agreement) -> str:
        """As :meth:`ConditionalFrame.refusal`, for another worker."""
        return self.conditional.refusal(agreement)

    def ready(self, agreement: Agreement) -> bytes | LargeFrame:
        """The frame for that worker; raises as :meth:`ConditionalFrame.ready`."""
        return self.conditional.ready(agreement)


Frame = bytes | LargeFrame | ConditionalFrame
"""The request of a call: as it is sent, or as it is known before its worker is."""


def prepared(frame: Frame, agreement: Agreement) -> tuple[Frame, str]:
    """The frame that goes to a worker with this agreement, and "" or why it must not be sent, for an EncodeError."""
    if type(frame) is bytes:
        return frame, ""
    assert isinstance(frame, (ConditionalFrame, PreparedFrame, LargeFrame))
    refusal = frame.refusal(agreement)
    if refusal:
        return frame, refusal
    try:
        return frame.ready(agreement), ""
    except EncodeError as error:
        return frame, str(error)


def close_channel(channel: Channel | None) -> None:
    """The connection is closed, and its channel with it."""
    if channel is not None:
        channel.close()
