"""What a client counts: times in buckets, causes with a bound, and snapshots that stay as they are."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.client.counters import CAUSES, Counters, Stopwatch, count
from gtask.stats import BOUNDS, ClientStats, Times

TIMES = st.lists(st.floats(0, 1000))


def test_nothing_has_been_counted_at_first():
    """All numbers are 0, the mean included, and two clients do not share them."""
    counters = Counters()
    assert counters.waits.snapshot() == counters.uses.snapshot() == Times()
    assert Times().mean == 0.0
    assert len(Times().buckets) == len(BOUNDS) + 1
    counters.waits.add(1.0)
    counters.deaths["SIGKILL"] = 1
    assert Counters() == Counters(calls=0, deaths={}, waits=Stopwatch())


def test_the_bounds_grow():
    """Each bucket has room for something."""
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert BOUNDS[0] > 0


@pytest.mark.parametrize("number", range(len(BOUNDS)))
def test_a_time_at_its_bound_belongs_to_the_bucket_below(number):
    """A bucket holds what took at most its bound; what took a little longer is in the next one."""
    watch = Stopwatch()
    watch.add(BOUNDS[number])
    watch.add(BOUNDS[number] * 1.001)
    assert watch.buckets[number : number + 2] == [1, 1]
    assert sum(watch.buckets) == 2


def test_no_time_at_all_is_counted_too():
    """Most checkouts do not wait."""
    watch = Stopwatch()
    watch.add(0.0)
    assert watch.snapshot() == Times(1, 0.0, 0.0, (1, *[0] * len(BOUNDS)))


@given(TIMES)
def test_a_stopwatch_adds_up(times):
    """Count, total, longest and buckets are those of a plain list."""
    watch = Stopwatch()
    for seconds in times:
        watch.add(seconds)
    seen = watch.snapshot()
    assert (seen.count, seen.longest) == (len(times), max(times, default=0.0))
    assert seen.total == pytest.approx(sum(times))
    assert seen.mean == pytest.approx(sum(times) / len(times) if times else 0.0)
    edges = [-1.0, *BOUNDS, float("inf")]
    expected = [sum(low < seconds <= high for seconds in times) for low, high in itertools.pairwise(edges)]
    assert list(seen.buckets) == expected


@given(TIMES, st.floats(0, 1000))
def test_what_was_added_last_can_be_taken_back(times, last):
    """The count, the total and the buckets are as before."""
    watch = Stopwatch()
    for seconds in times:
        watch.add(seconds)
    before = watch.snapshot()
    watch.add(last)
    watch.take_back(last)
    after = watch.snapshot()
    assert (after.count, after.buckets) == (before.count, before.buckets)
    assert after.total == pytest.approx(before.total, abs=1e-9)


def test_a_snapshot_does_not_change():
    """What is counted later is not in it, and nobody can write to it."""
    watch = Stopwatch()
    watch.add(0.3)
    seen = watch.snapshot()
    watch.add(0.3)
    assert seen == Times(1, 0.3, 0.3, seen.buckets)
    assert sum(seen.buckets) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.count = 5


def test_causes_are_counted_apart():
    """One number for each."""
    causes = {}
    for cause in ("SIGKILL", "exit 1", "SIGKILL"):
        count(causes, cause)
    assert causes == {"SIGKILL": 2, "exit 1": 1}


def test_there_is_a_bound_to_the_causes():
    """Workers may give any reason, a new one each time: what is too many is "other", and no count is lost."""
    causes = {}
    for number in range(3 * CAUSES):
        count(causes, f"reason {number}")
    count(causes, "reason 0")
    assert len(causes) == CAUSES + 1
    assert causes["reason 0"] == 2
    assert causes["other"] == 2 * CAUSES
    assert sum(causes.values()) == 3 * CAUSES + 1


def test_every_counter_is_in_the_statistics():
    """Under the same name; so nothing is counted that nobody can see."""
    shown = {field.name for field in dataclasses.fields(ClientStats)}
    assert {field.name for field in dataclasses.fields(Counters)} <= shown
