"""Requests with arguments by name, or with a time-out: their short way to bytes and back.

They are ``["do", {"kw": map, "q": epoch}, *items]`` and ``["do", {"q": epoch, "t": seconds}, *items]``. The fields that
have no one form are packed and read as one array with the items.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from gtask.wire.bodies import FIRST_EPOCH, HEADERS, LAST_EPOCH, Data, decode_body, heads, request_of, unpackb
from gtask.wire.forms import are_names, seconds
from gtask.wire.messages import Message, RequestMeta
from gtask.wire.values.culprit import check
from gtask.wire.values.kinds import SCALARS, Unpacking

__all__ = [
    "NAMED_FIELDS", "NAMED_HEADS", "TIMED_FIELDS", "TIMED_HEADS", "TIMEOUT_KEY", "frame_of", "read_named", "read_timed",
]  # fmt: skip

NAMED, NAMED_HEADS = struct.Struct("!I8s"), heads(b"\xa2do\x82\xa2kw")
TIMED, TIMED_HEADS = struct.Struct("!I8sI2s"), heads(b"\xa2do\x82\xa1q\xce")
TIMEOUT_KEY = b"\xa1t"
NAMED_FIELDS, TIMED_FIELDS = 3, 1
"""How many fields, or keys, are in one array with the items."""


def frame_of(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    epoch: int,
    meta: RequestMeta | None,
    pack: Callable[[Any], bytes],
    is_lossless: bool,
) -> bytes:
    """The frame of a request with these fields.

    Args:
        args, kwargs, epoch, meta: of the request.
        pack: packs a value.
        is_lossless: as of :class:`gtask.wire.values.kinds.Packing`.

    Raises:
        Exception: the request is of another form, or cannot travel; the general way finds out which.
    """
    if not FIRST_EPOCH <= epoch <= LAST_EPOCH:
        raise ValueError(epoch)
    for value in args:
        if type(value) not in SCALARS:
            check(value, is_lossless)
    count = len(args)
    if meta is None:
        for key, value in kwargs.items():
            if type(key) is not str or type(value) not in SCALARS:
                check({key: value}, is_lossless)
        items = pack((kwargs, "q", epoch, *args))
        return items.replace(HEADERS[count + NAMED_FIELDS], NAMED.pack(len(items) + 7, NAMED_HEADS[count]), 1)
    if kwargs or meta.concerns_aspects or not meta.has_timeout:
        raise ValueError(meta)
    items = pack((meta.timeout, *args))
    head = TIMED.pack(len(items) + 13, TIMED_HEADS[count], epoch, TIMEOUT_KEY)
    return items.replace(HEADERS[count + TIMED_FIELDS], head, 1)


_of_timeout = lru_cache(maxsize=100, typed=True)(lambda timeout: RequestMeta(timeout, True))


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
    at = start + 17
    if stop > at and data[at] == TIMEOUT_KEY[1] and data[at - 1] == TIMEOUT_KEY[0]:
        data[at] = header
        try:
            args = unpackb(data[at:stop], ext_hook=unpacking.hook, strict_map_key=False, timestamp=3)
            timeout = seconds("t", args.pop(0))
        except Exception:  # the general way finds out what is wrong
            data[at] = TIMEOUT_KEY[1]
        else:
            return request_of(args, {}, epoch, _of_timeout(timeout), unpacking)
    return decode_body(data[start + 4 : stop], unpacking)
