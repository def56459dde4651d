"""The companions of a call are bounded, are told of its end once, and let go of what they know."""

from __future__ import annotations

import logging

from gtask.aspects import caller
from gtask.aspects.caller import Deferred, DeferredLogs, LogReplay
from gtask.aspects.spans import ClientSpan
from gtask.client.calls import Call
from gtask.wire.messages import Failure, LogRecords, Value


class Parts:
    """A request log and a span that note what they hear."""

    def __init__(self):
        self.heard = []

    def call(self, method):
        self.heard.append(("call", method))
        return self

    def stop(self):
        self.heard.append("stop")

    def merge(self, ld, *, pid, sent, received):
        self.heard.append(("merge", ld, pid, sent))

    def end(self):
        self.heard.append("end")


def hash_call():
    call = Call("hash", 1.0)
    call.sent_at = 1.0
    return call


def test_all_is_told_once_and_forgotten():
    """The timer stops, and the parts that came early or with the reply are merged in order; a second end is nothing."""
    log, call = Parts(), hash_call()
    value, deferred = DeferredLogs(log).begin(call)
    assert value is True
    deferred.heard(LogRecords(ld={"logs": [1]}), 7)
    deferred.heard(LogRecords(ld={"logs": [2]}), 7)
    for _ in range(2):
        deferred.ended(call, Failure("x", None, {"logs": [3]}), ValueError())
    merged = [("merge", {"logs": [number]}, 7, 1.0) for number in (1, 2, 3)]
    assert log.heard == [("call", "hash"), "stop", *merged]
    assert not deferred.needs_replay


def test_a_span_ends_once():
    """Also if the call's end comes twice, after an interruption in the hub."""
    span = Parts()
    companion = ClientSpan(span, {})
    for _ in range(2):
        companion.ended(hash_call(), Value(1), None)
    assert span.heard == ["end"]


def test_records_are_replayed_once():
    """The loggers of the same names get them, with the worker's process id."""
    heard, call = [], hash_call()
    handler = logging.Handler()
    handler.emit = heard.append
    logger = logging.getLogger("told.companion")
    logger.addHandler(handler)
    try:
        call.hear((LogReplay(None),), LogRecords([{"name": "told.companion", "level": 50, "msg": "m"}]), 9)
        assert call.needs_replay
        assert not call.withholds_value
        for _ in range(2):
            assert call.replay() is None
    finally:
        logger.removeHandler(handler)
    assert [(record.msg, record.process) for record in heard] == [("m", 9)]


def test_a_deferred_log_that_nobody_asked_for_becomes_records():
    """A worker of AnyEvent::Task has no other way to log; with a request log they go there alone."""
    part = LogRecords(ld={"logs": [[0.1, 30, "hello"]]})
    call = hash_call()
    call.hear((LogReplay(None),), part, 0)
    assert call.needs_replay
    asked, log = hash_call(), Parts()
    aspect = DeferredLogs(log)
    asked.companions = {aspect: aspect.begin(asked)[1]}
    asked.hear((LogReplay(None),), part, 0)
    assert not asked.needs_replay


def test_more_than_any_server_sends_is_dropped(caplog):
    """A peer that sends records without end does not fill this memory; a warning says how many are missing."""
    call = hash_call()
    for _ in range(30):
        call.hear((LogReplay(None),), LogRecords([{"level": 1}] * 1000), 1)
    call.replay()
    assert "10000 records" in caplog.text
    assert "hash in worker 1" in caplog.text
    large = hash_call()
    for _ in range(30):
        large.hear((LogReplay(None),), LogRecords([{"level": 1, "msg": "x" * 1_000_000}]), 1)
    caplog.clear()
    large.replay()
    assert f"{30 - caller.LARGEST // 1_000_100} records" in caplog.text
    deferred = Deferred(log := Parts(), "hash")
    for _ in range(30):
        deferred.heard(LogRecords(ld={"logs": [[0, 30, "x" * 1_000_000]]}), 1)
    deferred.ended(hash_call(), Value(1), None)
    assert 10 < len([heard for heard in log.heard if heard[0] == "merge"]) < 20
    caplog.clear()
    deferred.replay(hash_call())
    assert "records" in caplog.text
