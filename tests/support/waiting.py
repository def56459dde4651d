"""How long tests wait: for an event, with a deadline that a slow or loaded machine keeps."""

from __future__ import annotations

from time import monotonic

import gevent

from gtask import testing

PATIENCE = 45.0
"""Seconds that any event gets: the start of a process, a line of a log, an end. (What hangs hangs for 60.)"""

SOON = 30.0
"""Seconds, an upper bound for what comes at once or at its time. What tests tell it from takes longer, or never comes;
how quick it really is, is for bench/ to say."""


def wait_until(condition, what="the condition"):
    """Let the hub run until a condition holds that no event tells of; fail after :data:`PATIENCE`.

    Args:
        condition: called again and again.
        what: for the error's text.
    """
    testing.wait_until(condition, PATIENCE, what)


def text_once_written(path):
    """The text of a file, once it is there and not empty: a file exists before its writer has written."""
    wait_until(lambda: path.exists() and path.read_text(), f"the text of {path}")
    return path.read_text()


def turn_hub():
    """Let the hub turn once: each greenlet that is ready runs until it blocks, the new ones too."""
    gevent.sleep(0)


def stays(condition, seconds, what="the condition"):
    """Let the hub run for a time in which nothing is to happen; fail as soon as a condition does not hold.

    Args:
        condition: called again and again.
        seconds: the time.
        what: for the error's text.
    """
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        assert condition(), f"{what} did not stay"
        gevent.sleep(0.005)
    assert condition(), f"{what} did not stay"
