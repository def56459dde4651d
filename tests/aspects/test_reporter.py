"""What a call tells leaves at once if it is urgent or nothing has left for a while; the rest is held, and bounded."""

from __future__ import annotations

import logging
import signal
import threading
from types import SimpleNamespace

import pytest

from gtask.aspects.logs import reporter
from gtask.aspects.logs.reporter import Reporter
from gtask.errors import Interrupted
from gtask.server.worker.interruption import Interruption
from gtask.server.worker.teller import Teller
from gtask.wire.messages import LogRecords, Request


class Replies:
    """Where it goes: what was told, and whether it was to leave at once."""

    def __init__(self):
        self.told = []
        self.flushed = 0
        self.lock = threading.RLock()

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
    monkeypatch.setattr(reporter, "monotonic", lambda: clock[0])
    return clock


class Board:
    """In which the master has aimed at what runs."""

    def is_aimed_at(self, since):
        return True


class Worker:
    """What a reporter needs of its worker, in which a call has begun."""

    def __init__(self):
        self.request = Request(())
        self.companions = []
        self.replies = Replies()
        self.interruption = Interruption(Board(), self.replies.flush)
        self.interruption.began = 1.0
        self.teller = Teller(self.replies, self.interruption, lambda: self.request is not None)
        self.dialect = SimpleNamespace(is_terse=False, encode=Frame)
        self.config = SimpleNamespace(name="app", private=False, peer_logs="debug")


@pytest.fixture
def worker(clock):
    return Worker()


@pytest.fixture
def story(worker):
    """The reporter of that worker."""
    return Reporter(worker)


def log(story, level=logging.INFO, text="x"):
    story._record(logging.makeLogRecord({"levelno": level, "msg": text, "name": "app"}))
    told = story._worker.replies.told
    return told[-1][1] if told else None


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


def test_between_calls_nothing_is_told(story, worker):
    """A thread that logs when the reply is written must not write behind it."""
    worker.request = None
    assert log(story, logging.ERROR) is None
    assert worker.companions == []


def test_more_than_the_limit(story, worker):
    """The first records are told; warnings have as much room again; how much is missing is told at the end, once."""
    told = worker.replies.told
    for _ in range(30):
        log(story, text="x" * 50_000)
    assert len(told) == 21
    for _ in range(30):
        log(story, logging.WARNING, "y" * 50_000)
    assert len(told) == 41
    assert worker.companions == [story]
    story.leave(None)
    last = told[-1][0].message
    assert (last.records, last.dropped, last.size) == ((), 9 + 10, 19 * 50_000)
    story.leave(None)
    assert len(told) == 42


def test_an_alarm_amid_a_record_waits(story, worker):
    """It is heard when the record is written, and not before."""
    interruption = worker.interruption

    class Odd:
        def __str__(self):
            interruption.on_alarm(signal.SIGALRM, None)
            assert interruption.error is None
            return "odd"

    with pytest.raises(Interrupted) as caught:
        log(story, text=Odd())
    assert caught.value is interruption.error
    assert len(worker.replies.told) == 1
    assert worker.replies.flushed == 1
    assert not interruption.began


def test_what_is_told_may_log_itself(story, worker):
    """That is not told, for it would come amid the other."""

    class Odd:
        def __str__(self):
            log(story, text="inner")
            return "odd"

    log(story, text=Odd())
    assert [frame.message.records[0]["msg"] for frame, _ in worker.replies.told] == ["odd"]


def test_the_end_of_a_call_waits_for_a_thread_that_tells(story, worker):
    """What a thread has begun to write is written before the reply; the thread is seen to be at it."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        def __str__(self):
            begun.set()
            go_on.wait(10)
            return "slow"

    thread = threading.Thread(target=log, args=(story,), kwargs={"text": Slow()})
    thread.start()
    assert begun.wait(10)
    worker.request = None
    assert worker.teller.is_busy
    go_on.set()
    worker.teller.wait()
    assert len(worker.replies.told) == 1
    thread.join()
    assert not worker.teller.is_busy
