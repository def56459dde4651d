"""What the command ``gtask`` prints: durations, sizes, the order of workers, bars and tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.tool import tables


def worker(pid, state="idle", **others):
    return {
        "pid": pid, "state": state, "method": "", "for": 1.0, "age": 10.0, "busy": 0.0, "calls": 0, "memory": 0,
        **others,
    }  # fmt: skip


def said(*workers, **others):
    states = {}
    for one in workers:
        states[one["state"]] = states.get(one["state"], 0) + 1
    return {
        "name": "hasher",
        "master": 77,
        "addresses": ["unix:/run/a.sock", "tcp://127.0.0.1:7000"],
        "uptime": 3725.0,
        "reloads": 2,
        "max_workers": None,
        "states": states,
        "workers": list(workers),
        "totals": {"forked": 12, "ended": 10, "refused": 1, "calls": 345, "setup_failures": 2},
        "deaths": [],
        **others,
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.000s"), (0.0123, "0.012s"), (0.9994, "0.999s"), (1, "1.0s"), (4.25, "4.2s"), (59.9, "59.9s"),
        (60, "1m0s"), (200, "3m20s"), (3599.9, "59m59s"), (3600, "1h0m"), (18720, "5h12m"), (86400, "1d0h"),
        (183600, "2d3h"), (99 * 86400, "99d0h"), (101 * 86400, "101d"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    """Short, in two units at the most."""
    assert tables.duration(seconds) == text


@given(st.floats(0, 1e8))
def test_a_duration_is_short(seconds):
    """It fits into its column, however long it took."""
    assert len(tables.duration(seconds)) <= 6


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0M"), (16 << 20, "16M"), (1023 << 20, "1023M"), (1 << 30, "1.0G"), (5 << 29, "2.5G")]
)
def test_size(count, text):
    """In MiB, or GiB."""
    assert tables.size(count) == text


def test_those_first_that_need_a_look():
    """Busy workers before idle ones, and the longest call before others; a state that is not known comes last."""
    workers = [
        worker(1),
        worker(2, "call", **{"for": 1}),
        worker(3, "lent"),
        worker(4, "call", **{"for": 9}),
        worker(5, "a new one"),
        worker(6, "setup"),
        worker(7, "interrupted"),
        worker(8, "hooks"),
    ]
    assert [one["pid"] for one in tables.by_need(workers)] == [4, 2, 8, 6, 7, 3, 1, 5]


@pytest.mark.parametrize(
    ("now", "before", "seconds", "share"),
    [
        ({"busy": 4.0}, None, 0.0, 0.4),  # of 10 s of life
        ({"busy": 4.0}, {"busy": 3.5}, 1.0, 0.5),
        ({"busy": 4.0}, {"busy": 4.0}, 1.0, 0.0),
        ({"busy": 4.2}, {"busy": 3.0}, 1.0, 1.0),  # the looks are not quite at the same moment
        ({"busy": 1.0}, {"busy": 2.0}, 1.0, 0.0),  # another process with the same pid
        ({"busy": 4.0}, {"busy": 3.5}, 0.0, 0.0),
        ({"busy": 0.0, "age": 0.0}, None, 1.0, 0.0),
    ],
)
def test_share(now, before, seconds, share):
    """Since the look before, or in all its life, and never less than nothing or more than all."""
    earlier = None if before is None else worker(1, **before)
    assert tables.share(worker(1, **now), earlier, seconds) == pytest.approx(share)


def test_the_busiest_first():
    """Among equals the one that has been busy for longest, then by pid, so that rows do not jump about."""
    workers = [
        worker(1),
        worker(2, "lent", **{"for": 50}),
        worker(3, "call", **{"for": 1}),
        worker(4, "call", **{"for": 9}),
        worker(5, "lent"),
    ]
    order = tables.by_share(workers, {3: 0.98, 4: 1.0, 5: 0.6, 2: 0.01})
    assert [one["pid"] for one in order] == [4, 3, 5, 1, 2]


@given(st.floats(0, 1))
def test_a_bar_is_as_wide_as_it_should_be(part):
    """Whatever it shows; something is seen of what is over 0."""
    text = tables.bar(part, 10)
    assert len(text) == 10
    assert bool(text.strip()) == (part > 0)


def test_bars():
    """In eighths."""
    assert tables.bar(0, 4) == "    "
    assert tables.bar(0.5, 4) == "██  "
    assert tables.bar(0.53125, 4) == "██▏ "
    assert tables.bar(1, 4) == "████"
    assert tables.bar(1e-9, 4) == "▏   "


def test_status():
    """All that an operator asks first, each worker in a line of at most 80 columns, and the recent deaths."""
    hung = worker(4194304, "interrupted", method="m" * 42, calls=12345678, memory=15 << 30, age=90000, **{"for": 7.5})
    deaths = [{"ago": 61.0, "line": "worker 99 was ended by SIGSEGV in hash after 1 s, at File x"}]
    text = tables.status(said(worker(101), hung, max_workers=9, deaths=deaths))
    lines = text.splitlines()
    assert lines[:4] == [
        "hasher at unix:/run/a.sock, tcp://127.0.0.1:7000",
        "master 77, up 1h2m, 2 reloads",
        "2 workers of at most 9: 1 idle, 1 interrupted",
        "totals: 345 calls, 12 workers forked, 10 ended, 1 connections refused",
    ]
    assert lines[4] == "2 setups failed; the log has the reason"
    assert lines[6].split() == ["PID", "STATE", "FOR", "METHOD", "CALLS", "MEMORY", "AGE"]
    assert lines[7].split() == ["4194304", "interrupted", "7.5s", "m" * 21, "12345678", "15.0G", "1d1h"]
    assert lines[8].split() == ["101", "idle", "1.0s", "0", "0M", "10.0s"]
    assert all(len(line) <= 80 for line in lines[:9])
    assert lines[-2:] == ["recent deaths:", "  1m1s ago: worker 99 was ended by SIGSEGV in hash after 1 s, at File x"]


def test_the_status_of_an_idle_server():
    """No workers and no deaths: no empty table."""
    assert tables.status(said()).splitlines()[2:] == [
        "0 workers: none",
        "totals: 345 calls, 12 workers forked, 10 ended, 1 connections refused",
        "2 setups failed; the log has the reason",
    ]


def test_methods():
    """Each with its signature, and its docstring below."""
    told = [
        {"name": "hash", "signature": "(password, *, rounds=1)", "doc": "Hash it.\n\n  Slowly."},
        {"name": "ping", "signature": "()", "doc": ""},
    ]
    assert tables.methods(told) == "hash(password, *, rounds=1)\n    Hash it.\n\n      Slowly.\nping()"
    assert tables.methods([]) == ""
