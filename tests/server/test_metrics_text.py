"""What a server tells Prometheus, read by Prometheus's own parser; and the HTTP around it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import gtask
from gtask.server.metrics import status
from gtask.server.metrics import text as metrics
from gtask.server.metrics.status import Record
from gtask.server.scoreboard import CALL, IDLE, View

NOW = 1000.0
VIEWS = [View(NOW - 3, CALL, "total", True, 5, 2.0), View(NOW - 7, CALL, "x", True, 1), View(NOW - 9, IDLE, "")]


def said(views=(), name="reports", **others):
    """The snapshot of a server whose workers, 1, 2..., have a page of memory more each."""
    record = Record(name, 77, ["unix:/run/reports.sock"], NOW - 60, **others)
    living = [(pid, NOW - 50, "", view) for pid, view in enumerate(views, 1)]
    return status.snapshot(record, lambda: living, lambda pid: 4096 * pid, NOW)


def read(text):
    """Each sample, by its name and its labels other than ``server``; and the types of the metrics."""
    samples, types = {}, {}
    for family in text_string_to_metric_families(text):
        types[family.name] = family.type
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "server"}
            key = (sample.name.removeprefix("gtask_server_"), *labels.values())
            assert key not in samples
            samples[key] = sample.value
    return samples, types


def test_numbers():
    """Each is what the snapshot says."""
    record = {
        "forked": 9,
        "ended": 6,
        "calls": 100,
        "refused": 2,
        "max_workers": 5,
        "reloads": 3,
        "busy": 0.5,
        "setup_failures": 4,
    }
    samples, _ = read(metrics.render(said(VIEWS, causes={"SIGKILL": 2, "exit 7": 1}, **record)))
    states = {key: value for key, value in samples.items() if key[0] == "workers"}
    assert states == {("workers", state): {"call": 2, "idle": 1}.get(state, 0) for state in status.STATES}
    assert {key: value for key, value in samples.items() if key[0] != "workers"} == {
        ("info", gtask.__version__): 1,
        ("uptime_seconds",): 60,
        ("reloads_total",): 3,
        ("max_workers",): 5,
        ("forks_total",): 9,
        ("exits_total",): 6,
        ("deaths_total", "SIGKILL"): 2,
        ("deaths_total", "exit 7"): 1,
        ("refused_connections_total",): 2,
        ("setup_failures_total",): 4,
        ("calls_total",): 106,
        ("busy_seconds_total",): 0.5 + 5 + 7,
        ("longest_call_seconds",): 7,
        ("workers_memory_bytes",): 4096 * 6,
        ("largest_worker_memory_bytes",): 4096 * 3,
        ("master_memory_bytes",): 4096 * 77,
    }


def test_an_idle_server_without_a_limit():
    """All is there, and 0; no limit is infinite."""
    samples, types = read(metrics.render(said()))
    assert samples["max_workers",] == math.inf
    assert samples["longest_call_seconds",] == samples["largest_worker_memory_bytes",] == 0
    assert set(types.values()) == {"gauge", "counter"}


def test_names_are_good_ones():
    """Counters end in _total and nothing else does; each has its HELP before its TYPE before its samples, once."""
    text = metrics.render(said(VIEWS, causes={"SIGKILL": 1}))
    assert text.endswith("\n")
    heads = [line.split(" ", 3)[1:] for line in text.splitlines() if line.startswith("#")]
    names = [name for _, name, _ in heads]
    assert names[::2] == names[1::2]
    assert len(set(names)) == len(names) / 2
    assert [what for what, _, _ in heads] == ["HELP", "TYPE"] * (len(names) // 2)
    for what, name, told in heads:
        assert name.startswith("gtask_server_")
        if what == "TYPE":
            assert name.endswith("_total") == (told == "counter")
        else:
            assert "\\" not in told


def test_a_state_that_nobody_knows():
    """It is told, too."""
    samples, _ = read(metrics.render(said([View(NOW, 9, "")])))
    assert samples["workers", "?"] == 1


@given(st.text(), st.text(min_size=1))
def test_labels_arrive_as_they_were(name, cause):
    """Whatever is in them."""
    families = text_string_to_metric_families(metrics.render(said(name=name, causes={cause: 1})))
    (death,) = next(family for family in families if family.name == "gtask_server_deaths").samples
    assert death.labels == {"server": name, "cause": cause}


# --- HTTP ----------------------------------------------------------------------------------------------


def ask(request, text="metrics\n"):
    """Status, headers and body of an answer."""
    head, _, body = metrics.answer(request, lambda: text).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first.startswith("HTTP/1.1 ")
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers["Connection"] == "close"
    return int(first.split()[1]), headers, body


@pytest.mark.parametrize(
    "request_line", ["GET /metrics HTTP/1.1", "GET /metrics HTTP/1.0", "GET /metrics?name[]=x HTTP/1.1"]
)
def test_the_metrics(request_line):
    """They come with their type and length."""
    status, headers, body = ask(f"{request_line}\r\nHost: x\r\n\r\n".encode(), "é\n")
    assert (status, body.decode()) == (200, "é\n")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert headers["Content-Length"] == "3"


def test_the_head_alone():
    """HEAD is GET without the body."""
    get, head = ask(b"GET /metrics HTTP/1.1\r\n\r\n"), ask(b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert head == (*get[:2], b"")


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        ("GET / HTTP/1.1", 404),
        ("GET /metrics/x HTTP/1.1", 404),
        ("POST / HTTP/1.1", 404),
        ("POST /metrics HTTP/1.1", 405),
        ("DELETE /metrics HTTP/1.1", 405),
        ("GET /metrics", 400),
        ("GET /metrics HTTP/2.0", 400),
        ("GET  HTTP/1.1", 400),
        ("get /metrics HTTP/1.1", 400),
        ("GET /met rics HTTP/1.1", 400),
        ("\x16\x03\x01", 400),
    ],
)
def test_what_is_not_answered(request_line, expected):
    """Each gets its status, and nobody looks at the metrics for it."""
    never = pytest.fail
    head = metrics.answer(f"{request_line}\r\n\r\n".encode(), never).partition(b"\r\n\r\n")[0].decode()
    assert head.startswith(f"HTTP/1.1 {expected} ")
    assert ("\r\nAllow: GET, HEAD" in head) == (expected == 405)


def test_half_a_request():
    """Whoever stops in the middle is told that this was none."""
    assert ask(b"GET /metrics HTTP/1.1\r\nHost:")[0] == 400


def test_what_surrogates_a_name_has():
    """A name that came as bytes that are no UTF-8 does not keep the metrics back."""
    assert ask(b"GET /metrics HTTP/1.1\r\n\r\n", "caf\udce9\n")[2] == rb"caf\udce9" + b"\n"


@pytest.mark.parametrize(
    ("head", "enough"),
    [
        (b"", False),
        (b"G", False),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n", False),
        (b"GET /metrics HTTP/1.1\r\n\r\n", True),
        (b"GET /metrics HTTP/1.1\n\n", True),
        (b"\x16\x03\x01", True),
        (b"get", True),
        (b"G" * metrics.LIMIT, True),
    ],
)
def test_how_much_is_enough(head, enough):
    """All of a head, as much as there may be of one, or the beginning of what is none."""
    assert metrics.is_complete(head) is enough


@given(st.binary(max_size=200))
def test_rubbish_is_answered(head):
    """Whatever comes."""
    assert ask(head)[0] in (400, 404, 405, 200)
