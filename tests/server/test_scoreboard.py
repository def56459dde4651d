"""A worker's line of the scoreboard shows what the worker does, and whether it is in a checkout."""

from __future__ import annotations

import os

import pytest

from gtask.server.scoreboard import CALL, DECODE, HOOKS, IDLE, BoardLine, label


@pytest.fixture
def line(tmp_path):
    line = BoardLine(1.0, os.open(tmp_path / "stacks", os.O_CREAT | os.O_RDWR))
    yield line
    line.close()


def test_a_call_and_its_end(line):
    """The phase, the method, the time and the number of calls; afterwards the worker is idle and still lent."""
    line.begin_call(2.0, label("hash"))
    assert line.view()[:5] == (2.0, CALL, "hash", True, 1)
    line.end(3.5)
    assert line.view()[:6] == (3.5, IDLE, "", True, 1, 1.5)


def test_a_message_on_its_way(line):
    """Its first byte counts: for the phase, and for the call that it becomes."""
    assert line.begin_reading(2.0) == 2.0
    assert line.begin_reading(3.0) == 2.0
    assert line.view()[:4] == (2.0, DECODE, "", False)
    assert line.read_at == 2.0
    line.begin_call(line.read_at, label("hash"))
    assert line.view()[:4] == (2.0, CALL, "hash", True)
    assert line.read_at == 0.0
    line.end(5.0)
    assert line.view()[:6] == (5.0, IDLE, "", True, 1, 3.0)
    line.begin_reading(6.0)
    assert line.view()[:4] == (6.0, DECODE, "", True)


def test_a_hook_after_a_message(line):
    """A call that comes together with the end of the checkout before it begins after the hook."""
    line.begin_reading(2.0)
    line.begin(3.0, HOOKS)
    assert line.read_at == 0.0
    line.begin_call(4.0, label("hash"))
    assert line.view()[:4] == (4.0, CALL, "hash", True)
    assert line.view().busy == 2.0


def test_the_end_of_a_checkout(line):
    """Shows as soon as the worker waits for its client, or runs a hook."""
    line.begin_call(2.0, label("hash"))
    line.lent = False
    line.begin(3.0, HOOKS)
    assert line.view()[1:4] == (HOOKS, "", False)
    line.end(4.0)
    assert line.view()[1:4] == (IDLE, "", False)


def test_a_checkout_that_begins_together_with_the_end_of_another(line):
    """The worker has read both at once, and never waited in between: it is lent."""
    line.begin_call(2.0, label("hash"))
    line.end(3.0)
    line.lent = False
    line.begin_call(4.0, label("hash"))
    assert line.lent
    line.end(5.0)
    assert line.lent
    assert line.view()[1:4] == (IDLE, "", True)
