"""The log: a line for each event, as text or JSON, and nothing breaks when nobody can read it."""

from __future__ import annotations

import json
import logging
import os
import re
import sys

import pytest

from gtask.server.daemon import logs


@pytest.fixture
def written(capsys):
    """``written()`` gives the lines on stderr so far. Afterwards logging is as it was before."""
    root = logging.getLogger()
    usual, level = root.handlers[:], root.level
    root.handlers.clear()
    yield lambda: capsys.readouterr().err.splitlines()
    root.handlers[:] = usual
    root.setLevel(level)


def test_text(written):
    """A line has the time, the level, the process, the logger and the message."""
    logs.setup("info", as_json=False)
    logging.getLogger("gtask.server").warning("worker %d is %s", 7, "gone")
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} WARNING {os.getpid()} gtask\.server: worker 7 is gone", *written()
    )


def test_json(written):
    """A line is a JSON object; its time is UTC, whatever the machine's zone is."""
    logs.setup("info", as_json=True)
    logging.getLogger("gtask.server").warning("worker %d says\n%s", 7, "ä")
    (line,) = written()
    entry = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert entry == {"level": "WARNING", "pid": os.getpid(), "logger": "gtask.server", "message": "worker 7 says\nä"}


@pytest.mark.parametrize(
    ("created", "shown"), [(0.0, "1970-01-01T00:00:00.000Z"), (59.9996, "1970-01-01T00:00:59.999Z")]
)
def test_json_time(written, created, shown):
    """Milliseconds are three digits, and never round up to a thousand."""
    logs.setup("info", as_json=True)
    record = logging.makeLogRecord({"msg": "x", "created": created, "msecs": created % 1 * 1000})
    logging.getLogger().handlers[0].emit(record)
    (line,) = written()
    assert json.loads(line)["time"] == shown


def test_json_exception(written):
    """A traceback is a field of the line, not lines of its own."""
    logs.setup("info", as_json=True)
    try:
        {}["march"]
    except KeyError:
        logging.getLogger("x").exception("failed")
    (line,) = written()
    assert json.loads(line)["exception"].endswith("KeyError: 'march'")


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level(written, level, heard):
    """What is below it is not written."""
    logs.setup(level, as_json=True)
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("x"), name)(name)
    assert [json.loads(line)["message"] for line in written()] == heard


def test_the_last_setup_counts(written):
    """Each line is written once, in the last form."""
    logs.setup("debug", as_json=False)
    logs.setup("info", as_json=True)
    logging.getLogger("x").info("once")
    (line,) = written()
    assert json.loads(line)["message"] == "once"


@pytest.mark.parametrize("error", [BrokenPipeError, OSError, ValueError])
def test_a_broken_stderr_stops_nothing(written, monkeypatch, error):
    """Nobody is told, for there is nobody to tell."""

    def broken(text):
        raise error("gone")

    logs.setup("info", as_json=False)
    monkeypatch.setattr(sys.stderr, "write", broken)
    logging.getLogger("x").error("unheard")
