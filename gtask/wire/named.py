"""Requests with arguments by name, or with a time-out: how they begin, and their short way from bytes and to them.

They are ``["do", {"kw": map, "q": epoch}, *items]`` and ``["do", {"q": epoch, "t": seconds}, *items]``. The map and the
epoch behind it have no one form, so they are packed and read as one array with the items. A client says the same
time-out again and again, so its bytes are remembered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from gtask.wire.bodies import (
    FIRST_EPOCH,
    HEADERS,
    LAST_EPOCH,
    REQUEST_HEADS,
    Data,
    decode_body,
    heads,
    packb,
    request_of,
    unpackb,
)
from gtask.wire.forms import are_names, seconds
from gtask.wire.messages import Message, RequestMeta
from gtask.wire.values.culprit import check
from gtask.wire.values.kinds import LIGHT, UnusualError
from gtask.wire.values.unpacking import Unpacking

__all__ = [
    "NAMED_FIELDS", "NAMED_HEADS", "TIMED", "TIMED_HEADS", "TIMEOUT_KEY", "frame_of", "packed_timeout", "read_named",
    "read_timed",
]  # fmt: skip

NAMED, NAMED_HEADS = struct.Struct("!I8s"), heads(b"\xa2do\x82\xa2kw")
TIMED_HEADS = heads(b"\xa2do\x82\xa1q\xce")
"""How requests with a time-out begin; the epoch follows, as in the usual one, then the time-out behind its key."""
TIMED = dict(zip(REQUEST_HEADS, TIMED_HEADS, strict=True))
"""The same by the usual request's."""
TIMEOUT_KEY = b"\xa1t"
NAMED_FIELDS = 3
"""How many fields, or keys, are in one array with the items."""
FIRST, SECOND = TIMEOUT_KEY
SIZES = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xC0: 1, **dict.fromkeys(range(0x80), 1)}
"""How many bytes a time-out has, by the first of them."""
TIMEOUTS = {first: (struct.Struct(f"{size}s").unpack_from, size - 1) for first, size in SIZES.items()}
"""What takes these bytes, which is quicker than a slice, and how far the last is from the first."""


def frame_of(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    epoch: int,
    meta: RequestMeta | None,
    pack: Callable[[Any], bytes],
    is_lossless: bool,
) -> bytes:
    """The frame of a request with arguments by name.

    Args:
        args, kwargs, epoch, meta: of the request.
        pack: packs a value.
        is_lossless: as of :class:`gtask.wire.values.kinds.Packing`.

    Raises:
        Exception: the request is of another form, or cannot travel; the general way finds out which.
    """
    if meta is not None or not FIRST_EPOCH <= epoch <= LAST_EPOCH:
        raise ValueError(meta, epoch)
    for value in args:
        if type(value) not in LIGHT and check(value, is_lossless):
            raise UnusualError("a large value")
    count = len(args)
    for key, value in kwargs.items():
        if (type(key) is not str or type(value) not in LIGHT) and check({key: value}, is_lossless):
            raise UnusualError("a large value")
    items = pack((kwargs, "q", epoch, *args))
    return items.replace(HEADERS[count + NAMED_FIELDS], NAMED.pack(len(items) + 7, NAMED_HEADS[count]), 1)


def packed_timeout(meta: RequestMeta) -> bytes:
    """A time-out behind its key, which the meta knows from now on."""
    packed: bytes = packb(meta.timeout)
    meta.packed = TIMEOUT_KEY + packed
    return meta.packed


class Metas(dict[bytes, RequestMeta]):
    """What says no more than a time-out, by the bytes of that."""

    def __missing__(self, packed: bytes) -> RequestMeta:
        meta = RequestMeta(seconds("t", unpackb(packed)), True)
        if len(self) < MOST_METAS:
            self[packed] = meta
        return meta


MOST_METAS = 100
"""The most of them that are kept."""
_metas = Metas()


def read_named(data: Data, start: int, stop: int, header: int, epoch: int, unpacking: Unpacking) -> Message:
    """The frame between start and stop: a request with arguments by name, or what else begins in this way."""
    if stop > start + 12:
        data[start + 11] = header
        try:
            plain = unpackb(data[start + 11 : stop], ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
        except Exception:  # the general way finds out what is wrong
            plain = None
        if plain and type(plain[1]) is str and plain[1] == "q" and type(plain[2]) is int and are_names(plain[0]):
            return request_of(plain[3:], plain[0], plain[2], None, unpacking)
        data[start + 11] = NAMED_HEADS[0][-1]
    return decode_body(data[start + 4 : stop], unpacking)


def read_timed(data: Data, start: int, stop: int, header: int, epoch: int, unpacking: Unpacking) -> Message:
    """The frame between start and stop: a request with a time-out, or what else begins in this way."""
    begin = start + 18
    timeout = None
    if begin < stop and data[begin - 1] == SECOND and data[begin - 2] == FIRST:
        timeout = TIMEOUTS.get(data[begin])
    if timeout is not None and begin + timeout[1] < stop:
        take, more = timeout
        items = begin + more  # their header stands in the place of the time-out's last byte
        last = data[items]
        try:
            meta = _metas[take(data, begin)[0]]
            data[items] = header
            args = unpackb(data[items:stop], ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
        except Exception:  # the general way finds out what is wrong
            data[items] = last
        else:
            return request_of(args, {}, epoch, meta, unpacking)
    return decode_body(data[start + 4 : stop], unpacking)
