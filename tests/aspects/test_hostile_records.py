"""Log records of a server that nobody trusts: what they do at the client is bounded, and nothing of them stays.

Each is handled as a record of its name is handled, whether or not there is a logger of that name.
"""

from __future__ import annotations

import io
import logging
import math

import pytest

from gtask.aspects.logs import replay as replay_module
from gtask.aspects.logs.replay import LONGEST, MOST_MADE, NAME, replay

LOGGERS = logging.root.manager.loggerDict


@pytest.fixture
def told():
    """The records that a handler of the root logger gets, formatted; nothing is printed to stderr as an error."""
    lines = []

    class Handler(logging.Handler):
        def emit(self, record):
            lines.append((record, self.format(record)))

        def handleError(self, record):
            raise

    handler = Handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(lineno)d %(message)s"))
    root = logging.getLogger()
    usual = root.level
    root.addHandler(handler)
    root.setLevel(1)
    yield lines
    root.removeHandler(handler)
    root.setLevel(usual)


@pytest.fixture(autouse=True)
def no_logger_is_made(capsys):
    logging.getLogger("told.nearest")
    before = set(LOGGERS)
    yield
    assert set(LOGGERS) == before
    assert capsys.readouterr().err == ""


def record(**parts):
    return {"name": "peer.of.nobody", "level": logging.ERROR, "msg": "text", "line": 1, "thread": 1, **parts}


@pytest.mark.parametrize(
    ("msg", "args"),
    [
        ("%300000000d", [1]),
        ("%-300000000s", ["x"]),
        ("%.300000000f", [1.5]),
        ("%0300000000x", [1]),
        ("%+ 300000000d", [1]),
        ("%*d", [300_000_000, 1]),
        ("%.*f", [300_000_000, 1.5]),
        ("%(a)300000000d", {"a": 1}),
        ("%(a(b)c)300000000d", {"a(b)c": 1}),
        ("%(a)s" * 10_000, {"a": "x" * 60_000}),
        ("%(a)s" * 10_000, {"a": [[[[[[[[[["x" * 60_000]]]]]]]]]]}),
        ("%(a)r" * 1000, {"a": ["x" * 60] * 1000}),
        ("%s", ["x" * 2 * LONGEST]),
        ("%999d" * 5000, [1] * 5000),
    ],
    ids=lambda part: str(part)[:30],
)
def test_a_message_that_would_become_long(told, msg, args):
    """It is not formatted, and says so."""
    replay([record(msg=msg, args=args)], 4711)
    ((_, line),) = told
    assert line.endswith(f"{msg} (not formatted, for it would be too long)")


@pytest.mark.parametrize(
    ("msg", "args", "text"),
    [
        ("%d of %s in 2026", [3, "x"], "3 of x in 2026"),
        ("%(a)s and %(a)r", {"a": "x"}, "x and 'x'"),
        ("%100d|%.3f|%%|%-9s|", [1, 1.5, "x"], f"{1:100d}|1.500|%|x        |"),
        ("%s", [["x" * 1000] * 100], str(["x" * 1000] * 100)),
        ("100 %", [], "100 %"),
    ],
)
def test_usual_messages(told, msg, args, text):
    """They are formatted by the handler, as they ever were."""
    replay([record(msg=msg, args=args)], 4711)
    ((made, line),) = told
    assert line.endswith(f" {text}")
    assert made.msg == msg


@pytest.mark.parametrize("msg", [["%300000000d"], {"%300000000d": 1}, None, 7])
def test_a_message_that_is_no_text(told, msg):
    """Logging would format its text with the arguments, which no worker sends for it."""
    replay([record(msg=msg, args=[1])], 4711)
    ((made, line),) = told
    assert (made.msg, made.args) == (msg, None)
    assert line.endswith(f" {msg}")


@pytest.mark.parametrize("name", ["." * 20_000, "a.b." * 10_000, "x" * 100_000, "", "peer.\n.x"])
def test_names(told, name):
    """Of any form and length."""
    replay([record(name=name)], 4711)
    assert told[0][0].name == name[:NAME].replace("\n", "\\n")


@pytest.mark.parametrize("parts", [{}, {"loggers": ["mine"]}])
def test_many_names(told, parts):
    """Each record is handled, and no logger is there afterwards."""
    replay([record(name=f"peer.number.{number}", **parts) for number in range(2000)], 4711)
    assert len(told) == 2000


@pytest.mark.parametrize(
    "parts",
    [
        {"level": 10**5000},
        {"level": -(10**5000)},
        {"line": 10**5000},
        {"thread": 10**5000},
        {"created": math.inf},
        {"created": math.nan},
        {"created": -1e300},
        {"created": 1e300},
        {"msecs": math.inf},
        {"file": "\x1b[2J\n", "func": "\nforged", "thread_name": "\x9b", "process_name": "\x1b"},
        {"file": 1, "func": [], "stack": {}, "args": "x", "extra": [], "loggers": {}},
        {"extra": {"__class__": 1, "name": "x", 1: 2}, "loggers": ["name", 1, "mine"]},
    ],
    ids=lambda parts: ", ".join(map(str, parts)),
)
def test_odd_parts(told, parts):
    """What no record has is left out."""
    replay([record(**parts)], 4711)
    assert told[0][1].endswith(" text")
    for place in ("pathname", "filename", "funcName", "threadName", "processName"):
        assert str(getattr(told[0][0], place)).isprintable()


def test_a_record_that_refers_to_its_logger(told, monkeypatch):
    """It gets the logger, if it lies below one of this process and few have been made; or else the nearest."""
    before, mine = set(LOGGERS), logging.getLogger("told.nearest")
    monkeypatch.setattr(replay_module, "_made", 0)
    try:
        names = [f"told.nearest.{number}" for number in range(MOST_MADE + 5)]
        replay([record(name=name, loggers=["mine"]) for name in ["told.nearest" + ".x" * 30, *names]], 4711)
        assert told[0][0].mine is mine
        assert told[1][0].mine is LOGGERS["told.nearest.0"]
        assert told[-1][0].mine is mine
        assert len(set(LOGGERS) - before) == MOST_MADE
    finally:
        for name in set(LOGGERS) - before:
            del LOGGERS[name]


def test_a_name_without_a_logger_is_handled_as_a_new_logger_would(told):
    """Levels and handlers are those of the nearest logger; its filters, and whether it is disabled, are its own."""
    mine = logging.getLogger("told.nearest")
    stream = io.StringIO()
    mine.addHandler(handler := logging.StreamHandler(stream))
    mine.addFilter(lambda record: record.name == "told.nearest")
    before = set(LOGGERS)
    try:
        mine.setLevel(logging.WARNING)
        replay([record(name="told.nearest.new", msg="one"), record(name="told.nearest.new", level=logging.INFO)], 4711)
        mine.propagate = False
        replay([record(name="told.nearest.new.deeper", msg="two"), record(name="told.nearest", msg="three")], 4711)
        mine.disabled = True
        replay([record(name="told.nearest.new", msg="four"), record(name="told.nearest", msg="five")], 4711)
        assert stream.getvalue().split() == ["one", "two", "three", "four"]
        assert [made.getMessage() for made, _ in told] == ["one"]
    finally:
        mine.removeHandler(handler)
        assert set(LOGGERS) == before
        mine.disabled, mine.propagate = False, True
        mine.filters.clear()
        mine.setLevel(logging.NOTSET)
