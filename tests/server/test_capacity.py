"""How many workers there may be by default: as many as the scarcest thing bears."""

from __future__ import annotations

import math

import pytest

from gtask.server.capacity import LEAST, bounds, most_workers

NOTHING = {"descriptors": math.inf, "processes": math.inf, "memory": math.inf}


@pytest.mark.parametrize(
    ("limits", "most", "why"),
    [
        ({"descriptors": 1024.0}, 320, "1024 descriptors"),
        ({"processes": 400.0}, 300, "400 processes"),
        ({"memory": 4.0 * 2**30}, 1536, "4096 MiB of memory"),
        ({"descriptors": 1024.0, "memory": 64.0 * 2**20}, 24, "64 MiB of memory"),
        ({"descriptors": 40.0}, LEAST, "40 descriptors"),
        ({}, 100_000, "nothing else"),
    ],
)
def test_the_scarcest_decides(limits, most, why):
    """And is told."""
    number, reason = most_workers({**NOTHING, **limits})
    assert number == most
    assert why in reason


def test_this_machine():
    """It has such limits, or none, and they are numbers over 0."""
    assert set(bounds()) == set(NOTHING)
    assert all(limit > 0 for limit in bounds().values())
    assert most_workers(bounds())[0] >= LEAST
