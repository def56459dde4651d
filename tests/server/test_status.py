"""What a server says about itself, from a record and the workers that live."""

from __future__ import annotations

import json

import pytest

from gtask.server.master.children import RUNGS
from gtask.server.metrics import status
from gtask.server.metrics.status import Record
from gtask.server.scoreboard import CALL, DECODE, HOOKS, IDLE, SETUP, View
from gtask.server.worker.interface import Interface

NOW = 1000.0


def record(**others):
    return Record("reports", 77, ["unix:/run/reports.sock"], NOW - 60, **others)


def living(*workers):
    """Workers 1, 2...: each is its rung and its view."""
    return lambda: [(pid, NOW - 50, rung, view) for pid, (rung, view) in enumerate(workers, 1)]


def test_an_idle_server():
    """Without workers all is there, and empty."""
    assert status.snapshot(record(), living(), {77: 4096}.get, NOW) == {
        "name": "reports",
        "master": 77,
        "addresses": ["unix:/run/reports.sock"],
        "uptime": 60.0,
        "reloads": 0,
        "max_workers": None,
        "memory": 4096,
        "busy": 0.0,
        "states": {},
        "workers": [],
        "totals": {"forked": 0, "ended": 0, "refused": 0, "calls": 0, "setup_failures": 0},
        "causes": {},
        "deaths": [],
    }


@pytest.mark.parametrize(
    ("rung", "view", "state"),
    [
        ("", View(NOW, IDLE, ""), "idle"),
        ("", View(NOW, IDLE, "", lent=True), "lent"),
        ("", View(NOW, SETUP, ""), "setup"),
        ("", View(NOW, CALL, "total", lent=True), "call"),
        ("", View(NOW, HOOKS, "", lent=True), "hooks"),
        ("leaving", View(NOW, IDLE, ""), "leaving"),
        ("interrupted", View(NOW, CALL, "total", lent=True), "interrupted"),
        ("", View(NOW, 9, ""), "?"),
    ],
)
def test_states(rung, view, state):
    """A worker is what its slot says, unless it is on the ladder; an idle one may be in a checkout."""
    whole = status.snapshot(record(), living((rung, view)), lambda pid: 0, NOW)
    assert whole["workers"][0]["state"] == state
    assert whole["states"] == {state: 1}


def test_a_worker():
    """Each has how long it does what it does, how old it is, how long it was busy, its calls, and its memory."""
    calls = View(NOW - 3, CALL, "total", lent=True, calls=5, busy=2.0)
    waits = View(NOW - 4, IDLE, "", calls=1, busy=2.0)
    whole = status.snapshot(record(), living(("", calls), ("", waits)), lambda pid: 4096 * pid, NOW)
    assert whole["workers"] == [
        {
            "pid": 1,
            "state": "call",
            "method": "total",
            "for": 3.0,
            "age": 50.0,
            "busy": 5.0,
            "calls": 5,
            "memory": 4096,
        },
        {"pid": 2, "state": "idle", "method": "", "for": 4.0, "age": 50.0, "busy": 2.0, "calls": 1, "memory": 8192},
    ]


def test_totals():
    """The calls of those that are gone are counted with those of the living."""
    workers = [("", View(NOW, IDLE, "", calls=3)), ("", View(NOW, IDLE, "", calls=4)), ("", View(NOW, CALL, "x"))]
    whole = status.snapshot(
        record(forked=9, ended=6, calls=100, refused=2, max_workers=5), living(*workers), lambda pid: 0, NOW
    )
    assert whole["totals"] == {"forked": 9, "ended": 6, "refused": 2, "calls": 107, "setup_failures": 0}
    assert whole["states"] == {"idle": 2, "call": 1}
    assert whole["max_workers"] == 5


def test_what_the_dead_have_done():
    """Their calls and their time are counted with those of the living, and what they died of, by cause."""
    it = record()
    it.gone(View(NOW - 2, CALL, "total", calls=3, busy=1.0), NOW, "SIGKILL")
    it.gone(View(NOW - 2, IDLE, "", calls=4, busy=1.0), NOW, "")
    it.gone(View(NOW - 2, CALL, "total", calls=1), NOW, "SIGKILL")
    whole = status.snapshot(it, living(("", View(NOW - 5, CALL, "x", calls=1, busy=3.0))), lambda pid: 0, NOW)
    assert whole["totals"] == {"forked": 0, "ended": 3, "refused": 0, "calls": 9, "setup_failures": 0}
    assert whole["busy"] == 3.0 + 1.0 + 2.0 + 8.0
    assert whole["causes"] == {"SIGKILL": 2}


def test_every_state_is_known():
    """A worker is never in another one, but for one that nobody knows."""
    views = [View(NOW, phase, "", lent=lent) for phase in (IDLE, SETUP, CALL, HOOKS, DECODE) for lent in (True, False)]
    workers = [("", view) for view in views] + [(rung, views[0]) for rung in RUNGS]
    assert set(status.snapshot(record(), living(*workers), lambda pid: 0, NOW)["states"]) == set(status.STATES)


def test_it_is_plain_data():
    """It can be printed as JSON, and sent."""
    it = record()
    it.died(NOW, "worker 1 was ended by SIGKILL", "")
    whole = status.snapshot(it, living(("", View(NOW, IDLE, ""))), lambda pid: 0, NOW)
    assert json.loads(json.dumps(whole)) == whole


def test_deaths():
    """Each has its line, where it was hit if that is known, and how long ago it was."""
    it = record()
    it.died(NOW - 5, "worker 1 was ended by SIGKILL", "")
    stacks = (
        'Current thread 0x1 (most recent call first):\n  File "a.py", line 3 in inner\n  File "b.py", line 9 in outer\n'
    )
    other = 'Thread 0x2 (most recent call first):\n  File "threading.py", line 1 in wait\n\n'
    it.died(NOW - 1, "worker 2 was ended by SIGSEGV in crash after 2 s", f"Fatal Python error: x\n\n{other}{stacks}")
    assert status.snapshot(it, living(), lambda pid: 0, NOW)["deaths"] == [
        {"ago": 5.0, "line": "worker 1 was ended by SIGKILL"},
        {"ago": 1.0, "line": 'worker 2 was ended by SIGSEGV in crash after 2 s, at File "a.py", line 3 in inner'},
    ]


def test_only_the_last_deaths_are_kept():
    """A server whose workers die all the time does not grow."""
    it = record()
    for number in range(status.DEATHS + 5):
        it.died(NOW, f"worker {number} died", "")
    deaths = status.snapshot(it, living(), lambda pid: 0, NOW)["deaths"]
    assert len(deaths) == status.DEATHS
    assert deaths[0]["line"] == "worker 5 died"


def test_line():
    """The log has it all in one line."""
    workers = [("", View(NOW, IDLE, "", calls=3)), ("", View(NOW, CALL, "x", calls=1)), ("", View(NOW, IDLE, ""))]
    assert status.line(record(forked=4, ended=1, calls=10, reloads=2), living(*workers), NOW) == (
        "reports: up 60 s, 2 reloads; workers: 1 call, 2 idle; 4 forked, 1 ended, 0 refused, 14 calls, 0 setup failures"
    )
    assert "; workers: none; " in status.line(record(), living(), NOW)


def total(month: str, *, net: bool = False) -> int:
    """The turnover.

    Of one month.
    """


def test_describe():
    """A function is shown as who wants to call it needs it."""
    assert status.describe("sum_up", total) == {
        "name": "sum_up",
        "signature": "(month: 'str', *, net: 'bool' = False) -> 'int'",
        "doc": "The turnover.\n\nOf one month.",
    }
    assert status.describe("f", lambda a, b=1: None) == {"name": "f", "signature": "(a, b=...)", "doc": ""}
    secret = status.describe("g", lambda a=None, *, key="secret", on=True, n=0: None)
    assert secret["signature"] == "(a=None, *, key=..., on=True, n=...)"  # a default may be a secret


def test_describe_what_tells_nothing():
    """Some functions in C have no signature."""
    assert status.describe("max", max)["signature"] == "(...)"


class Bank:
    """Served as a class."""

    def execute(self, sql, *parameters):
        """Run a statement."""


@pytest.mark.parametrize(
    ("target", "names"),
    [({"total": total}, ["total"]), (total, ["()"]), (Bank, ["execute"]), (Bank(), ["execute"])],
    ids=["mapping", "callable", "class", "object"],
)
def test_methods_of_every_kind_of_interface(target, names):
    """What can be called is listed, also where the workers are yet to make the instance."""
    about = status.status_interface(record(), living(), lambda pid: 0, Interface(target))
    listed = about.find("methods")()
    assert [method["name"] for method in listed] == names
    assert listed[0]["doc"]


def test_about_itself(monkeypatch):
    """The worker that answers is not one of those it tells of."""
    workers = living(("", View(NOW, IDLE, "")), ("", View(NOW, CALL, "x")))
    monkeypatch.setattr(status.os, "getpid", lambda: 2)
    about = status.status_interface(record(), workers, lambda pid: 0, Interface(total))
    assert [worker["pid"] for worker in about.find("status")()["workers"]] == [1]
    assert about.find("ping")() == {"name": "reports", "master": 77, "worker": 2}
    assert about.methods == ["methods", "ping", "status"]
