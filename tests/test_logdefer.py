"""A request log gathers, aligns what workers have written, and hands on one record."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtask import logdefer
from gtask.logdefer import RequestLog


def gathered(use, **options):
    """The record of a request log after this use of it."""
    records = []
    with RequestLog(records.append, **options) as log:
        use(log)
    (record,) = records
    return record


def test_a_record_has_the_shape_of_log_defer():
    """Start, end, messages with offset and level, timers, data; and it can be written as JSON."""

    def use(log):
        with log.timer("render"):
            log.error("bad", {"code": 5})
            log.warn("hm", 1, [2])
        log.info(lambda: "made late")
        log.debug()
        log.data["user"] = 7
        log.timer("never stopped")

    record = gathered(use, name="GET /")
    assert set(record) == {"start", "end", "name", "logs", "timers", "data"}
    assert [message[1:] for message in record["logs"]] == [
        [10, "bad", {"code": 5}], [20, "hm", 1, [2]], [30, "made late"], [40],
    ]  # fmt: skip
    assert [timer[0] for timer in record["timers"]] == ["render", "never stopped"]
    for _, begin, end in record["timers"]:
        assert 0 <= begin <= end <= record["end"]
    assert record["data"] == {"user": 7}
    assert record["start"] == pytest.approx(logging.makeLogRecord({}).created, abs=60)
    assert json.loads(json.dumps(record)) == record


def test_an_empty_one_has_no_empty_parts():
    """As Log::Defer leaves them out."""
    assert set(gathered(lambda log: None)) == {"start", "end"}


def test_verbosity():
    """What is above it is not kept, and not even made."""
    record = gathered(lambda log: [log.debug(lambda: 1 / 0), log.info("x")], verbosity=30)
    assert [message[2:] for message in record["logs"]] == [["x"]]


def test_a_logger_gets_one_record(caplog):
    """At the level of the worst message, in words, with the whole record beside."""
    logger = logging.getLogger("requests")
    for level, method in ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info")):
        caplog.clear()
        with caplog.at_level(logging.DEBUG), RequestLog(logger, name="GET /") as log:
            log.debug("x")
            getattr(log, method)("the", "worst")
        (record,) = caplog.records
        assert record.levelno == level
        assert record.getMessage().startswith("GET / took ")
        assert ("the first: the worst" in record.getMessage()) == (method == "error")
        assert len(record.request_log["logs"]) == 2


def test_exceptions_are_kept_and_go_on():
    """What leaves the block is an error in the record; what the function raises counts only without it."""
    records = []
    with pytest.raises(ZeroDivisionError), RequestLog(records.append):
        1 / 0  # noqa: B018
    assert records[0]["logs"][0][1:] == [10, "ZeroDivisionError: division by zero"]

    def bad(record):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), RequestLog(bad):
        pass
    with pytest.raises(ZeroDivisionError), RequestLog(bad):
        1 / 0  # noqa: B018


def test_it_ends_once():
    """Closing again does nothing, and what comes later is dropped."""
    records = []
    log = RequestLog(records.append)
    log.close()
    log.close()
    log.info("late")
    log.merge({"logs": [[0, 30, "late"]]}, pid=1, sent=0.0, received=1.0)
    assert len(records) == 1
    assert "logs" not in records[0]


def test_wrong_arguments():
    """Are told what to give."""
    with pytest.raises(TypeError, match="give it a function that takes the record, or a logger"):
        RequestLog("requests")


def test_it_is_bounded():
    """Messages, their size and timers; how many were dropped is the last message."""

    def use(log):
        for _ in range(logdefer.MESSAGES + 5):
            log.info("x")
        for _ in range(logdefer.TIMERS + 5):
            log.timer("t").stop()

    record = gathered(use)
    assert len(record["logs"]) == logdefer.MESSAGES + 1
    assert record["logs"][-1][1:] == [20, "5 more messages were dropped"]
    assert len(record["timers"]) == logdefer.TIMERS
    large = gathered(lambda log: [log.info("x" * 1_000_000) for _ in range(10)])
    assert large["logs"][-1][2] == "6 more messages were dropped"


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0, 2), st.floats(0, 1))
def test_clocks_are_aligned(wrong_by, lasted, at):
    """Wherever the worker's clock stands, its messages lie within the call; where it is right, they are not moved."""
    records = []
    log = RequestLog(records.append)
    now = monotonic()
    part = {
        "start": log._start + wrong_by,
        "now": lasted,
        "logs": [[at * lasted, 30, "m"]],
        "timers": [["t", 0.0, lasted]],
    }
    log.merge(part, pid=7, sent=now, received=now + lasted + 0.5)
    log.close()
    sent = now - log._zero
    ((offset, _, _, where),) = records[0]["logs"]
    ((_, begin, end),) = records[0]["timers"]
    assert sent - 1e-5 <= begin <= offset + 1e-5
    assert offset <= end + 1e-5
    assert end <= sent + lasted + 0.5 + 1e-5
    if sent <= wrong_by <= sent + 0.5:
        assert begin == pytest.approx(wrong_by, abs=1e-5)
    assert where == {"pid": 7}


def test_messages_get_the_pid():
    """In a map at their end, or in that which is there; without one (of a foreign worker) they stay as they are."""
    now = monotonic()

    def use(log):
        for pid in (7, 0):
            ld = {"logs": [[0, 30, "a"], [0, 30, "b", {"x": 1}], [0, 10]]}
            log.merge(ld, pid=pid, sent=now, received=now)

    assert [message[2:] for message in gathered(use)["logs"]] == [
        ["a", {"pid": 7}], ["b", {"pid": 7, "x": 1}], [{"pid": 7}], ["a"], ["b", {"x": 1}], [],
    ]  # fmt: skip


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(deadline=None)
@given(
    GARBAGE | st.dictionaries(st.sampled_from(["start", "now", "logs", "timers", "data"]), GARBAGE | st.lists(GARBAGE))
)
def test_garbage_is_ignored(ld):
    """Part by part, whatever a peer sends."""
    now = monotonic()
    record = gathered(lambda log: log.merge(ld, pid=1, sent=now, received=now))
    assert all(type(message[0]) is float or type(message[0]) is int for message in record.get("logs", []))


def test_nothing_keeps_it():
    """Without a cycle: it is gone with its last reference, also while a timer of it is stopped."""
    gc.disable()
    try:
        log = RequestLog(print)
        log.call("hash").stop()
        log.info("x")
        gone = weakref.ref(log)
        del log
        assert gone() is None
    finally:
        gc.enable()
