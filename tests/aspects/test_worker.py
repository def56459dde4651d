"""What a call tells leaves at once if it is urgent or nothing has left for a while; the rest is held, and bounded."""

from __future__ import annotations

import logging

import pytest

from gtask.aspects import worker as stories
from gtask.aspects.worker import Reporter
from gtask.wire.messages import LogRecords


class Replies:
    """Where it goes: what was told, and whether it was to leave at once."""

    def __init__(self):
        self.told = []
        self.flushed = 0

    def tell(self, frame, now):
        self.told.append((frame, now))

    def flush(self):
        self.flushed += 1


class Frame(bytes):
    """A message as it is, with the length of its message's text."""

    def __new__(cls, message):
        text = "".join(str(record["msg"]) for record in message.records) if isinstance(message, LogRecords) else ""
        frame = super().__new__(cls, len(text))
        frame.message = message
        return frame


@pytest.fixture
def clock(monkeypatch):
    """The time, to be set."""
    clock = [100.0]
    monkeypatch.setattr(stories, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def story(clock):
    """A story in which a call has begun."""
    story = Reporter(Replies(), Frame, "app worker", lambda: story.alarms.append(1))
    story.alarms = []
    story.capture.is_open = True
    return story


def log(story, level=logging.INFO, text="x"):
    story._record(logging.makeLogRecord({"levelno": level, "msg": text, "name": "app"}))
    return story._replies.told[-1][1] if story._replies.told else None


def test_when_it_leaves(story, clock):
    """The first at once, those that follow within 0.1 s with the reply, warnings at once, and again after 0.1 s."""
    assert log(story) is True
    assert log(story) is False
    clock[0] += 0.09
    assert log(story) is False
    assert log(story, logging.WARNING) is True
    clock[0] += 0.09
    assert log(story) is False
    clock[0] += 0.02
    assert log(story) is True


def test_between_calls_nothing_is_told(story):
    """A thread that logs when the reply is written must not write behind it."""
    story.capture.is_open = False
    assert log(story, logging.ERROR) is None
    assert not story.has_told


def test_more_than_the_limit(story):
    """The first records are told; warnings have as much room again; how much is missing is told at the end, once."""
    for _ in range(30):
        log(story, text="x" * 50_000)
    assert len(story._replies.told) == 21
    for _ in range(30):
        log(story, logging.WARNING, "y" * 50_000)
    assert len(story._replies.told) == 41
    assert story.end() is None
    last = story._replies.told[-1][0].message
    assert (last.records, last.dropped, last.size) == ((), 9 + 10, 19 * 50_000)
    assert not story.has_told
    assert len(story._replies.told) == 42


def test_an_alarm_amid_a_record_waits(story):
    """It is heard when the record is written, and not before."""
    heard = []

    class Odd:
        def __str__(self):
            heard.append(story.on_alarm())
            return "odd"

    log(story, text=Odd())
    assert heard == [True]
    assert story.alarms == [1]
    assert story._replies.flushed == 0
    assert story.on_alarm() is False
    assert story._replies.flushed == 1


def test_what_is_told_may_log_itself(story):
    """That is not told, for it would come amid the other."""

    class Odd:
        def __str__(self):
            log(story, text="inner")
            return "odd"

    log(story, text=Odd())
    assert [frame.message.records[0]["msg"] for frame, _ in story._replies.told] == ["odd"]
