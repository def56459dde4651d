"""What comes with a call's outcome is bounded, told once, and forgotten."""

from __future__ import annotations

import logging

from gtask.aspects import caller as story
from gtask.aspects.caller import CallReport
from gtask.wire.messages import Failure, LogRecords, Value


class Parts:
    """A request log and a span that note what they hear."""

    def __init__(self):
        self.heard = []
        self.headers = {}

    def call(self, method):
        self.heard.append(("call", method))
        return self

    def stop(self):
        self.heard.append("stop")

    def merge(self, ld, *, pid, sent, received):
        self.heard.append(("merge", ld, pid, sent, received))

    def end(self, error):
        self.heard.append(("end", error))


def test_all_is_told_once_and_forgotten():
    """The timer stops, what came early and what came with the reply is merged in order, the span ends."""
    log, span = Parts(), Parts()
    told = CallReport(log, "hash", span)
    told.take(LogRecords(ld={"logs": [1]}), 7)
    told.take(LogRecords(ld={"logs": [2]}), 7)
    error = ValueError()
    for _ in range(2):
        told.end(Failure("x", None, {"logs": [3]}), error, 1.0, 2.0)
    merged = [("merge", {"logs": [number]}, 7, 1.0, 2.0) for number in (1, 2, 3)]
    assert log.heard == [("call", "hash"), "stop", *merged]
    assert span.heard == [("end", error)]
    assert not told.has_records


def test_a_story_of_records_alone():
    """Needs neither a request log nor a span; records are replayed once."""
    told, heard = CallReport(), []
    handler = logging.Handler()
    handler.emit = heard.append
    logger = logging.getLogger("told.story")
    logger.addHandler(handler)
    try:
        told.take(LogRecords([{"name": "told.story", "level": 50, "msg": "m"}]), 9)
        assert told.has_records
        told.end(Value(1), None, 0.0, 1.0)
        for _ in range(2):
            told.replay("hash", None)
    finally:
        logger.removeHandler(handler)
    assert [(record.msg, record.process) for record in heard] == [("m", 9)]


def test_more_than_any_server_sends_is_dropped(caplog):
    """A peer that sends records without end does not fill this process's memory; it is told how many are missing."""
    told = CallReport()
    for _ in range(30):
        told.take(LogRecords([{"level": 1}] * 1000, {}), 1)
    told.replay("hash", None)
    assert "10000 records" in caplog.text
    assert "hash in worker 1" in caplog.text
    large = CallReport()
    for _ in range(30):
        large.take(LogRecords([{"level": 1, "msg": "x" * 1_000_000}]), 1)
    caplog.clear()
    large.replay("hash", None)
    assert f"{30 - story.LARGEST // 1_000_100} records" in caplog.text
    deferred = CallReport(log := Parts(), "hash")
    for _ in range(30):
        deferred.take(LogRecords(ld={"logs": [[0, 30, "x" * 1_000_000]]}), 1)
    deferred.end(Value(1), None, 0.0, 1.0)
    assert 10 < len([heard for heard in log.heard if heard[0] == "merge"]) < 20
