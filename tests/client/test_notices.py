"""The first word about trouble comes when it has lasted for a second; two that were shorter are not one that lasted."""

from __future__ import annotations

import math

import pytest

from gtask.client.pool.notices import PATIENCE, Notices


class Alarm:
    """Fires when the test moves the time."""

    def __init__(self, function):
        self.function, self.at = function, math.inf

    def set(self, deadline, now):
        self.at = min(self.at, deadline)

    def stop(self):
        self.at = math.inf


class Loop:
    """A loop whose time the test sets."""

    def __init__(self):
        self.now, self.said = 100.0, []

    def clock(self):
        return self.now

    def alarm(self, function):
        self.only = Alarm(function)
        return self.only

    def spawn(self, log, text, *args):
        self.said.append(text % args)

    def go_on(self, seconds):
        self.now += seconds
        if self.only.at <= self.now:
            self.only.stop()
            self.only.function()


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def notices(loop):
    return Notices(loop, lambda: "it")


def test_trouble_that_lasts(loop, notices):
    """One word when it has lasted, whatever attempts fail meanwhile, and one when it is over."""
    for _ in range(3):
        notices.trouble("no route")
        loop.go_on(PATIENCE / 2)
    (first,) = loop.said
    assert first.startswith(f"it: no worker can be had for {PATIENCE:g} s now: no route.")
    notices.over()
    assert loop.said == [first, "it: workers can be had again, after 1.5 s"]


def test_two_short_ones(loop, notices):
    """The second begins before the first, had it lasted, would have been told."""
    for _ in range(2):
        notices.trouble("no route")
        loop.go_on(PATIENCE * 0.6)
        notices.over()
    loop.go_on(PATIENCE)
    assert loop.said == []


def test_another_reason(loop, notices):
    """It is a word of its own, unless only its numbers differ."""
    for reason in ("worker 1 died", "worker 2 died", "no route"):
        notices.trouble(reason)
        loop.go_on(PATIENCE)
    assert [said.partition(" now: ")[2][:12] for said in loop.said] == ["worker 1 die", "no route. Ca"]
