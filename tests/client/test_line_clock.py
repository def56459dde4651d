"""The deadlines of those who wait in line: the earliest comes first, and what is taken out takes no memory."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gtask.client.pool.line_clock import SLACK, Deadlines


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.floats(0, 100)), max_size=200), st.floats(0, 100))
def test_all_that_are_due_and_no_other(history, now):
    """Whatever was set, set anew and discarded before."""
    deadlines, model = Deadlines(), {}
    for thing, deadline in history:
        if deadline is None:
            deadlines.discard(thing)
            model.pop(thing, None)
        else:
            deadlines.set(thing, deadline)
            model[thing] = deadline
    assert len(deadlines) == len(model)
    assert deadlines.first <= min(model.values(), default=math.inf)
    due = []
    while (thing := deadlines.due(now)) is not None:
        due.append(model[thing])
        deadlines.discard(thing)
    assert due == sorted(deadline for deadline in model.values() if deadline <= now)


def test_the_memory_is_bounded():
    """Also if nothing ever comes up, because everything is discarded before."""
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.set(number, 60.0)
        if number >= 10:
            deadlines.discard(number - 10)
    assert len(deadlines) == 10
    assert len(deadlines._heap) <= 2 * 10 + SLACK + 1


def test_what_an_interruption_kept_from_the_heap_is_found():
    """A rebuild knows each thing that has a deadline."""
    deadlines = Deadlines()
    deadlines.set("a", 1.0)
    deadlines._heap.clear()
    deadlines.rebuild()
    assert deadlines.first == 1.0
    assert deadlines.due(1.0) == "a"
