"""A kind of values is one row of a table: this file adds one, and touches no other."""

from __future__ import annotations

from fractions import Fraction

import pytest

from gtask.errors import EncodeError, ProtocolError
from gtask.wire import messages
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.messages import Value
from gtask.wire.values.agreement import Agreement
from gtask.wire.values.kinds import NATIVE, Kind, Kinds
from gtask.wire.values.offers import OFFERS

FRACTION = Kind(
    100, (Fraction,), lambda value, _: str(value).encode("ascii"), lambda data, _: Fraction(data.decode("ascii"))
)
KNOWN = Agreement(Kinds((*NATIVE, FRACTION)))


def read(frame, decoder):
    decoder.space[: len(frame)] = frame
    return decoder.received(len(frame))


def test_a_kind_is_one_row():
    """Between peers that have it in their tables a value travels, at any depth; for other peers it cannot."""
    value = [Fraction(1, 3), {"k": Fraction(-2, 7)}, {Fraction(5)}]
    frame = Encoder(agreement=KNOWN).encode(Value(value))
    decoder = Decoder()
    decoder.agree(KNOWN)
    assert read(frame, decoder) == [Value(value)]
    with pytest.raises(ProtocolError, match="unknown extension type 100"):
        read(frame, Decoder())
    with pytest.raises(EncodeError, match=r"the result\[0\] is of type fractions.Fraction. What can: "):
        Encoder().encode(Value(value))


def test_codes_and_names_stand_once():
    """No two kinds share a code, and a kind under an offer names that offer."""
    rows = (*NATIVE, *(row for offer in OFFERS for row in offer.rows))
    assert sorted(row.code for row in rows) == list(range(1, len(rows) + 1))
    assert {offer.name for offer in OFFERS} == set(messages.OFFERS)
    assert all(row.offer == offer.name and row.noun for offer in OFFERS for row in offer.rows)
    assert not any(row.offer or row.noun for row in NATIVE)


def test_a_value_is_of_the_first_kind_that_fits():
    """A datetime is a date, too; an instance of a subclass is of its base's kind."""
    kinds = Kinds(NATIVE)
    for row in NATIVE:
        (cls,) = row.types
        assert kinds.of(cls.__new__(cls, *{"date": (1, 1, 1), "datetime": (1, 1, 1)}.get(cls.__name__, ()))) is row
    assert kinds.of(type("Sub", (Fraction,), {})(1)) is None
    assert kinds.of(type("Sub", (set,), {})()).types == (set,)
