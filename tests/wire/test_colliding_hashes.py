"""Numbers of one hash, as members of a set or as keys of a map, are refused before they are compared with each other.

Python compares each with all before it. A peer can choose as many as it likes, for the hash of a number is no secret.
"""

from __future__ import annotations

import decimal
import sys
import uuid
from itertools import islice

import msgpack
import pytest

from gtask.errors import ProtocolError
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.messages import Request, Value
from gtask.wire.reading import CHUNK
from gtask.wire.values import kinds
from gtask.wire.values.agreement import PLAIN
from gtask.wire.values.collisions import MOST_COLLISIONS
from gtask.wire.values.kinds import FROZENSET, SET, Ext

MODULUS = sys.hash_info.modulus
MANY = 20_000
"""A set of as many takes half a minute."""


def of_one_hash(kind):
    """Values that differ and have one hash."""
    for number in range(1 << 60, 1 << 61):
        one = 7 + MODULUS * number
        if kind == "int":
            yield one + MODULUS * (1 << 10)
        elif kind == "decimal":
            yield decimal.Decimal(one)
        elif kind == "uuid":
            yield uuid.UUID(int=one)
        elif kind == "complex":
            count = number % (1 << 30)
            yield complex(7 - sys.hash_info.imag * count, count)
        elif kind == "frozenset":  # whose hash, as a tuple's, is made of its members' hashes
            yield frozenset({one})
        else:
            yield (1, one)


def ext(value):
    """A value in msgpack, tuples as arrays."""
    packing = kinds.Packing(PLAIN, 1 << 30)
    return msgpack.packb(value, default=packing.default)


def array(items):
    """An array of what is packed already."""
    return b"\xdd" + len(items).to_bytes(4, "big") + b"".join(items)


def mapping(keys):
    """A map with these keys, packed already."""
    return b"\xdf" + len(keys).to_bytes(4, "big") + b"".join(key + b"\x01" for key in keys)


def frames(packed):
    """Each frame in which a value may come: to a client, and to a worker."""
    bodies = {
        ReplyDecoder: [
            b"\x93\xa2ok\xc0" + packed,
            b"\x93\xa2ok\x80" + packed,
            b"\x93\xa2er\x81\xa3exc" + packed + b"\xa1x",
        ],
        Decoder: [
            b"\x94\xa2do\x81\xa1q\xce\0\x01\0\0\xa1f" + packed,
            b"\x94\xa2do\x82\xa2kw\x81\xa1a" + packed + b"\xa1q\xce\0\x01\0\0\xa1f\x01",
            b"\x92\xa2hi\x82\xa1v\x01\xa1?" + packed,
        ],
    }
    return [(decoder, body) for decoder, some in bodies.items() for body in some]


def read(decoder, body):
    data, messages = len(body).to_bytes(4, "big") + body, []
    for start in range(0, len(data), CHUNK):
        piece = data[start : start + CHUNK]
        decoder.space[: len(piece)] = piece
        messages += decoder.received(len(piece))
    return messages


@pytest.mark.parametrize("kind", ["int", "decimal", "uuid", "complex", "frozenset"])
def test_keys(kind):
    """In whatever message they come, the one that reads it refuses it."""
    packed = mapping([ext(value) for value in islice(of_one_hash(kind), MANY)])
    for decoder, body in frames(packed):
        with pytest.raises(ProtocolError, match=rf"of {MANY} members or keys have the hash of another; the limit is"):
            read(decoder(), body)


@pytest.mark.parametrize("code", [SET, FROZENSET])
@pytest.mark.parametrize("kind", ["int", "decimal", "uuid", "complex", "frozenset", "tuple"])
def test_members(kind, code):
    """Of a set, also of one that lies in others."""
    members = [ext(value) for value in islice(of_one_hash(kind), MANY)]
    packed = msgpack.packb(Ext(code, array(members)))
    for some in (packed, msgpack.packb(Ext(FROZENSET, array([packed])))):
        for decoder, body in frames(some):
            with pytest.raises(ProtocolError):
                read(decoder(), body)


def test_keys_behind_others():
    """As many other numbers in the same message, or in those before it, do not hide them."""
    others = array([ext(1 << (70 + number % 50)) for number in range(5 * MOST_COLLISIONS)])
    packed = mapping([ext(value) for value in islice(of_one_hash("int"), MANY)])
    decoder = ReplyDecoder()
    assert read(decoder, b"\x93\xa2ok\xc0" + others)
    with pytest.raises(ProtocolError):
        read(decoder, b"\x93\xa2ok\xc0" + array([others, packed]))


@pytest.mark.parametrize(
    "value",
    [
        {(1 << 70) + number: number for number in range(5000)},
        {uuid.UUID(int=(number << 64) + 5) for number in range(5000)},
        [decimal.Decimal(number % 7) for number in range(20_000)],
        [{(1 << 70) + number: [uuid.UUID(int=number)]} for number in range(5000)],
        {number / 8 for number in range(5000)} | {-1, -2},
        dict.fromkeys(range(1 << 70, (1 << 70) + 5000), "\ud800"),
        {"a": {frozenset({number, 1 << 80}) for number in range(3000)}},
        set(islice(of_one_hash("int"), MOST_COLLISIONS)),
        dict.fromkeys(islice(of_one_hash("int"), MOST_COLLISIONS)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_arrive(value):
    """Numbers that were not chosen for their hash, however many, and again and again on one connection."""
    decoder, encoder = ReplyDecoder(), Encoder()
    requests = Decoder()
    for _ in range(3):
        assert read(decoder, bytes(encoder.encode_value(value))[4:]) == [Value(value)]
        request = Request(["f", value], {"a": value}, 70_000)
        assert read(requests, bytes(Encoder().encode(request))[4:]) == [request]
