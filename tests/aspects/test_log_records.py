"""A log record survives the way as plain data; whatever a peer sends instead, replaying does no harm."""

from __future__ import annotations

import logging
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gtask.aspects.logs.levels import MANY, Levels
from gtask.aspects.logs.record import describe
from gtask.aspects.logs.replay import replay
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.messages import LogRecords


@pytest.fixture
def heard():
    """The records that come to the logger ``told``, which lets all pass."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("told")
    logger.addHandler(handler)
    logger.setLevel(1)
    logger.propagate = False
    yield records
    logger.removeHandler(handler)
    logger.setLevel(0)
    logger.propagate = True


def travel(data):
    frame, decoder = Encoder().encode(LogRecords([data])), Decoder()
    messages = []
    for start in range(0, len(frame), len(decoder.space)):
        part = frame[start : start + len(decoder.space)]
        decoder.space[: len(part)] = part
        messages += decoder.received(len(part))
    return messages[0].records[0]


def made(msg, args=(), exc_info=None, extra=None, level=logging.INFO):
    logger = logging.getLogger("told.deep")
    return logger.makeRecord(logger.name, level, "/src/app.py", 7, msg, args, exc_info, "work", extra, "a stack")


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()


@settings(deadline=None)
@given(st.lists(VALUES, max_size=5), st.dictionaries(st.text(min_size=1), VALUES, max_size=5), st.integers(1, 60))
@example([], {"__dict__": 1, "__class__": "x"}, 20)
def test_plain_data_survives(args, extra, level):
    """Message, arguments, level, place, thread, time and extra fields are the same at the other end."""
    extra = {key: value for key, value in extra.items() if key not in vars(logging.makeLogRecord({}))}
    extra = {key: value for key, value in extra.items() if key not in {"message", "asctime", "taskName"}}
    records = []
    logger = logging.getLogger("told.deep")
    logger.handle, before = records.append, logger.handle
    logger.setLevel(1)
    try:
        sent = made("%r " * len(args), tuple(args), None, extra, level)
        replay([travel(describe(sent, "worker"))], 42)
    finally:
        logger.handle = before
        logger.setLevel(0)
    (got,) = records
    assert got.getMessage() == sent.getMessage()
    assert (got.name, got.levelno, got.levelname) == (sent.name, sent.levelno, sent.levelname)
    assert (got.pathname, got.filename, got.module, got.lineno, got.funcName) == (
        "/src/app.py", "app.py", "app", 7, "work",
    )  # fmt: skip
    assert (got.created, got.msecs, got.thread, got.threadName) == (
        sent.created, sent.msecs, sent.thread, sent.threadName,
    )  # fmt: skip
    assert got.relativeCreated == pytest.approx(sent.relativeCreated, abs=0.01)
    assert (got.process, got.processName, got.stack_info) == (42, "worker", "a stack")
    for key, value in extra.items():
        assert vars(got)[key] == value


class Odd:
    def __repr__(self):
        raise RuntimeError("no repr")

    def __str__(self):
        return "odd"


class Text(str):
    def __str__(self):
        return "shown otherwise"


@pytest.mark.parametrize(
    ("msg", "args", "shown"),
    [
        ("%s", ((1, 2),), "(1, 2)"),  # a tuple would arrive as a list
        ("%s", (Text("x"),), "shown otherwise"),
        ("%s", (Odd(),), "odd"),
        (Odd(), (), "odd"),
        ("%d", (Odd(),), "'%d' % <a tuple whose repr() raised RuntimeError> cannot be formatted: TypeError"),
        (["a", {"b": 1}], (), "['a', {'b': 1}]"),
        ({"event": Odd()}, (), "<a dict whose repr() raised RuntimeError> % () cannot be formatted: RuntimeError"),
    ],
)  # fmt: skip
def test_what_would_look_otherwise_is_formatted(heard, msg, args, shown):
    """An argument that is not exactly plain data is formatted where it is."""
    replay([travel(describe(made(msg, args), "w"))], 1)
    (record,) = heard
    assert record.getMessage().startswith(shown)


def test_exceptions_and_loggers(heard):
    """exc_info is rebuilt with its traceback; an extra that is a logger is the logger of that name here."""
    try:
        int("x")
    except ValueError:
        sent = made("oops", (), sys.exc_info(), {"_logger": logging.getLogger("told.deep"), "odd": Odd()})
    replay([travel(describe(sent, "w"))], 1)
    (record,) = heard
    assert isinstance(record.exc_info[1], ValueError)
    assert "test_exceptions_and_loggers" in logging.Formatter().format(record)
    assert record._logger is logging.getLogger("told.deep")
    assert "whose repr() raised" in record.odd


def test_large_records_are_cut(heard):
    """Each text of a record, and all together, have a bound."""
    sent = made("%s" + "m" * 100_000, ("a" * 10_000_000,), None, {str(number): "x" * 100_000 for number in range(100)})
    data = describe(sent, "w")
    assert len(Encoder().encode(LogRecords([data]))) < 2_000_000
    assert "more characters" in data["msg"]


GARBAGE = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
KEYS = st.sampled_from(
    ["name", "level", "msg", "args", "file", "line", "func", "created", "msecs", "thread", "thread_name",
     "process_name", "extra", "loggers", "exc", "text", "stack"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(GARBAGE | st.dictionaries(KEYS, GARBAGE)))
def test_garbage_does_no_harm(records):
    """It makes odd records at the most, and raises nothing."""
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    root = logging.getLogger()
    level, disabled = root.level, root.disabled
    root.disabled = True
    try:
        replay(records, 1)
    finally:
        logging.raiseExceptions = raising
        root.setLevel(level)
        root.disabled = disabled


def test_levels_change_only_when_something_has():
    """The same map until a level is set; then one with what differs from the parent's."""
    levels = Levels()
    first = levels.current()
    assert levels.current() is first
    logger, child = logging.getLogger("told.parent"), logging.getLogger("told.parent.child")
    try:
        logger.setLevel(11)
        child.setLevel(11)
        now = levels.current()
        assert now["told.parent"] == 11
        assert "told.parent.child" not in now
        child.setLevel(12)
        assert levels.current()["told.parent.child"] == 12
        logging.disable(50)
        assert levels.current() == {"": 51}
        logging.disable(logging.NOTSET)
        assert levels.current()["told.parent"] == 11
    finally:
        logging.disable(logging.NOTSET)
        logger.setLevel(0)
        child.setLevel(0)
    assert levels.current() == first


def test_very_many_levels_become_one():
    """Where more loggers than a message should name have levels of their own, the lowest stands for all."""
    levels = Levels()
    loggers = [logging.getLogger(f"told.many.{number}") for number in range(MANY + 1)]
    try:
        for number, logger in enumerate(loggers):
            logger.setLevel(5 + number % 2)
        assert levels.current() == {"": 5}
    finally:
        for logger in loggers:
            logger.setLevel(0)
