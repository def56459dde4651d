"""Tuples in values arrive as tuples, at any depth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gtask.wire.dbapi import mark, unmark
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.messages import Value

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


def across(value):
    """The value as it comes out at the other end of the wire."""
    frame = Encoder().encode(Value(value))
    decoder = Decoder()
    messages = []
    for start in range(0, len(frame), len(decoder.space)):
        part = frame[start : start + len(decoder.space)]
        decoder.space[: len(part)] = part
        messages += decoder.received(len(part))
    [ok] = messages
    return ok.value


def shape(value):
    """The value with the types of all its parts."""
    if isinstance(value, (list, tuple)):
        return type(value), [shape(each) for each in value]
    if isinstance(value, dict):
        return dict, [(key, shape(each)) for key, each in value.items()]
    return type(value), value


@given(VALUES)
def test_tuples_arrive(value):
    """Marked, sent and unmarked, a value is what it was."""
    assert shape(unmark(across(mark(value)))) == shape(value)


def test_subclasses_are_plain():
    """They arrive as what they are derived from."""

    class Pair(tuple):
        __slots__ = ()

    class Many(list):
        pass

    assert shape(unmark(mark([Pair((1, 2)), Many([3])]))) == shape([(1, 2), [3]])


@given(VALUES)
def test_marking_leaves_the_value(value):
    """What is marked is a copy."""
    before = shape(value)
    mark(value)
    assert shape(value) == before
