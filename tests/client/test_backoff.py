"""Pauses grow, have a bound, are spread by chance, and start over after a success."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gtask.client.pool.backoff import Backoff

CHANCES = st.floats(0, 1)


def test_pauses_double_up_to_the_longest():
    """With the chance at its end they are 1, 2, 4 times the first, and then the longest."""
    backoff = Backoff(first=0.1, longest=0.5)
    assert [round(backoff.failed(1.0), 9) for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert backoff.failures == 5


def test_a_success_starts_over():
    """The pause after it is the first again."""
    backoff = Backoff(first=0.1, longest=0.5)
    for _ in range(10):
        backoff.failed(1.0)
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.failed(1.0) == 0.1


@settings(deadline=None)
@given(st.floats(0.001, 10), st.floats(0.001, 100), st.lists(CHANCES, min_size=1, max_size=200))
def test_every_pause_lies_in_the_upper_half(first, longest, chances):
    """Whatever the chance, a pause is between half and all of its exponential, and never exceeds the longest."""
    backoff = Backoff(first, longest)
    for attempt, chance in enumerate(chances):
        whole = min(longest, first * 2.0**attempt)
        assert whole / 2 <= backoff.failed(chance) <= whole <= longest


def test_thousands_of_failures_are_no_overflow():
    """A server may be gone for days."""
    backoff = Backoff()
    pauses = {backoff.failed(1.0) for _ in range(5000)}
    assert max(pauses) == backoff.longest
