"""From messages to bytes, in the general way, which finds out what cannot travel, or what can in another form.

A value comes out as it went in, but for tuples (lists), instances of subclasses (the values of the base that they
equal) and time zones (their offset); what cannot travel is an EncodeError before a byte of it is sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from gtask.errors import EncodeError
from gtask.wire.bodies import LENGTH
from gtask.wire.forms import plain_request, to_plain
from gtask.wire.left import frame_of_left
from gtask.wire.limits import DEFAULTS
from gtask.wire.mark import STUFFED, needs_stuffing, stuff
from gtask.wire.messages import NOTHING, Message, Preamble, RequestMeta, Value
from gtask.wire.pieces import LargeFrame, joined
from gtask.wire.sparse import SparseFrame
from gtask.wire.values.agreement import PLAIN, Agreement, ConditionalFrame
from gtask.wire.values.copies import body_of_copy
from gtask.wire.values.culprit import check
from gtask.wire.values.holes import Holes
from gtask.wire.values.kinds import LIGHT, Packing, too_large

__all__ = ["KEEP", "FrameWriter", "Names"]

KEEP = 1024 * 1024
"""Bytes that a packer's buffer may grow to and be kept."""

MOST_NAMES = 1000
"""The most names that an encoder remembers."""


class Names(dict[str | None, bytes]):
    """The bytes of names; none at all for None."""

    def __missing__(self, name: str | None) -> bytes:
        packed: bytes = b"" if name is None else msgpack.packb(name)
        if (name is None or type(name) is str) and len(self) < MOST_NAMES:
            self[name] = packed
        return packed


class FrameWriter:
    """Writes the messages of one connection.

    Args:
        limit: bytes that a frame may have; the same as the reader's.
        agreement: the kinds of values that may be in them.
    """

    __slots__ = ("_agreement", "_is_lossless", "_is_replaceable", "_keep", "_limit", "_pack", "_packing", "_used")

    def __init__(self, limit: int = DEFAULTS.message, agreement: Agreement = PLAIN) -> None:
        self._limit = limit
        self._keep = min(limit, KEEP)
        self.agree(agreement)

    def agree(self, agreement: Agreement) -> None:
        """The kinds of values that may be in messages from now on."""
        self._agreement = agreement
        self._is_lossless = agreement.fallback is not None
        self._packing = Packing(agreement, self._limit, self._is_lossless)
        self._used = self._packing.used
        self._pack: Callable[[Any], bytes] = msgpack.Packer(default=self._packing.default).pack

    def encode(self, message: Message) -> bytes:
        """The frame of a message; raises as :meth:`frame`."""
        if type(message) is Preamble and message.levels is None and type(message.left) is float:
            return frame_of_left(message.left)
        return self.frame(to_plain(message), (message.value,) if type(message) is Value else ())

    def reply(self, plain: list[Any], value: Any) -> bytes | LargeFrame:
        """The frame of a :class:`gtask.wire.messages.Value` in its plain form, which last words cannot complete; raises
        as :meth:`frame`."""
        sparse = self._sparse(plain, (value,))
        if sparse is None:
            return self.stuffed_if_needed(self.frame(plain, (value,)))
        frame = sparse.ready(self._agreement)
        if isinstance(frame, LargeFrame) and not frame.needs_stuffing:
            return frame
        return self.stuffed_if_needed(joined(frame))

    def stuffed_if_needed(self, frame: bytes) -> bytes:
        """The frame of a server, in the other form if it could pass for one that last words have completed."""
        return self.stuffed(frame) if needs_stuffing(frame) else frame

    def stuffed(self, frame: bytes) -> bytes:
        """The frame in the other form; see :mod:`gtask.wire.mark`."""
        body: bytes = msgpack.packb([STUFFED, stuff(frame[LENGTH.size :])])
        if len(body) > self._keep:
            self._check_size(len(body))
        return LENGTH.pack(len(body)) + body

    def request(
        self, args: Sequence[Any], kwargs: dict[str, Any], epoch: int, meta: RequestMeta | None
    ) -> bytes | ConditionalFrame:
        """The frame of a :class:`gtask.wire.messages.Request` with these fields; raises as :meth:`frame`."""
        self._used.clear()
        values = args if meta is None else (*args, meta.context, meta.others)
        plain = plain_request(args, kwargs, epoch, meta)
        sparse = self._sparse(plain, values, kwargs)
        if sparse is not None:
            return self._conditional(sparse, args, kwargs, epoch, meta)
        frame = self.frame(plain, values, kwargs)
        return self._conditional(frame, args, kwargs, epoch, meta) if self._used else frame

    def _conditional(
        self,
        frame: bytes | SparseFrame,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        epoch: int,
        meta: RequestMeta | None,
    ) -> ConditionalFrame:
        """The frame with what a worker must have agreed upon, and what another worker gets."""
        used, fallback, otherwise = dict(self._used), self._packing.agreement.fallback, None
        if fallback is not None and fallback.offer in used and self._is_replaceable:
            other = FrameWriter(self._limit, self._packing.agreement.without_fallback())
            with contextlib.suppress(EncodeError):
                otherwise = other.request(args, kwargs, epoch, meta)
        return ConditionalFrame(frame, used, otherwise)

    def frame(self, plain: list[Any], values: Sequence[Any] = (), named_values: dict[str, Any] = NOTHING) -> bytes:
        """The frame of a message.

        Args:
            plain: its plain form.
            values, named_values: the values in it that are the application's.

        Raises:
            EncodeError: a value in it cannot travel, or the frame would be over the limit.
        """
        try:
            for value in values:
                if type(value) not in LIGHT:
                    check(value, self._is_lossless)
            if named_values:
                check(named_values, self._is_lossless)
            body = self._pack(plain)
        except UnicodeEncodeError:
            body = self._body(plain)
        except Exception as error:  # also what the methods of a value's class raise
            body = self._other_body(plain, error)
        size = len(body)
        if size > self._keep:
            self._check_size(size)
        return LENGTH.pack(size) + body

    def _sparse(
        self, plain: list[Any], values: Sequence[Any], named_values: dict[str, Any] = NOTHING
    ) -> SparseFrame | None:
        """The frame of a message with large values; None if it has none, or is to be packed like others."""
        holes = Holes(self._packing)
        try:
            found = [check(value, self._is_lossless) for value in (*values, named_values)]
            if not any(found):
                return None
            sparse = holes.without(plain)
            segments = holes.split(self._packing.body(sparse)) if holes.parts else []
        except Exception:  # frame() finds out what is wrong
            segments = []
        if not segments:
            self._used.clear()
            return None
        return SparseFrame(segments, holes.parts, self._limit)

    def _check_size(self, size: int) -> None:
        """Drop the packer, or its buffer would stay as large; and refuse what is over the limit."""
        self._pack = msgpack.Packer(default=self._packing.default).pack
        if size > self._limit:
            raise too_large(f"the message has {size} bytes", self._limit)

    def _body(self, plain: list[Any]) -> bytes:
        """With text that UTF-8 has no bytes for."""
        try:
            return self._packing.body(plain)
        except Exception as error:  # as in frame
            return self._other_body(plain, error)

    def _other_body(self, plain: list[Any], error: Exception) -> bytes:
        """That of a copy in which everything can travel; or the error that says what cannot, and why."""
        self._used.clear()
        # With a separate packing: a copy may run code of the application, which may have another message written by
        # this encoder.
        packing = Packing(self._packing.agreement, self._limit)
        body = body_of_copy(plain, error, packing)
        self._used.update(packing.used)
        self._is_replaceable = not packing.needs_fallback  # by a frame without the fallback
        return body
