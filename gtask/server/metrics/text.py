"""The metrics of a server, as text for Prometheus, and the HTTP of their request and response. Pure.

The text is in Prometheus's exposition format, version 0.0.4. ``docs/metrics.rst`` says what each metric is good for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gtask
from gtask.server.metrics.status import STATES

__all__ = ["LIMIT", "answer", "is_complete", "render"]

LIMIT = 8192
"""Bytes that the head of a request may have."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REQUEST = re.compile(rb"([A-Z]+) ([!-~]+) HTTP/1\.[01]\r?\n")
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}

Sample = tuple[Mapping[str, str], float]


def render(snapshot: Mapping[str, Any]) -> str:
    """The metrics of a server.

    Args:
        snapshot: made by :func:`gtask.server.metrics.status.snapshot`.
    """
    totals, workers = snapshot["totals"], snapshot["workers"]
    memory = [worker["memory"] for worker in workers]
    running = [worker["for"] for worker in workers if worker["method"]]
    states = {**dict.fromkeys(STATES, 0), **snapshot["states"]}
    limit = math.inf if snapshot["max_workers"] is None else snapshot["max_workers"]
    name = snapshot["name"]
    metrics: list[tuple[str, str, str, Iterable[Sample]]] = [
        ("info", "gauge", "Always 1; the labels tell of the server.", [({"version": gtask.__version__}, 1)]),
        ("uptime_seconds", "gauge", "Since the master serves.", _one(snapshot["uptime"])),
        ("reloads_total", "counter", "Masters before this one, of the same daemon.", _one(snapshot["reloads"])),
        ("max_workers", "gauge", "How many workers there may be; +Inf for no limit.", _one(limit)),
        ("workers", "gauge", "How many workers there are in each state.", _by("state", states)),
        ("forks_total", "counter", "Workers that were forked.", _one(totals["forked"])),
        ("exits_total", "counter", "Workers that have ended, in whichever way.", _one(totals["ended"])),
        ("deaths_total", "counter", "Workers that have died, by cause.", _by("cause", snapshot["causes"])),
        ("refused_connections_total", "counter", "Connections of users who may not.", _one(totals["refused"])),
        ("setup_failures_total", "counter", "Setups that have raised.", _one(totals["setup_failures"])),
        ("calls_total", "counter", "Calls that workers have begun.", _one(totals["calls"])),
        ("busy_seconds_total", "counter", "Time of all workers in setup, calls and hooks.", _one(snapshot["busy"])),
        ("longest_call_seconds", "gauge", "Of the calls that run, the longest so far.", _one(max(running, default=0))),
        ("workers_memory_bytes", "gauge", "Resident memory of all workers; shared pages each time.", _one(sum(memory))),
        ("largest_worker_memory_bytes", "gauge", "Of the largest worker.", _one(max(memory, default=0))),
        ("master_memory_bytes", "gauge", "Resident memory of the master.", _one(snapshot["memory"])),
    ]
    lines: list[str] = []
    for short, kind, help_text, samples in metrics:
        full = f"gtask_server_{short}"
        lines += [f"# HELP {full} {help_text}", f"# TYPE {full} {kind}"]
        lines += [f"{full}{{{_labels({'server': name, **labels})}}} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def is_complete(head: bytes) -> bool:
    """Whether a request can be answered: its head is whole, or too long, or begins as no request does."""
    return len(head) >= LIMIT or b"\r\n\r\n" in head or b"\n\n" in head or (bool(head) and not head[:1].isupper())


def answer(head: bytes, text: Callable[[], str]) -> bytes:
    """The response to a request.

    Args:
        head: the request, at least its head.
        text: gives the metrics, if the request is for them.
    """
    found = _REQUEST.match(head)
    if found is None or not is_complete(head):
        return _response(400, "This is not a request of HTTP/1.1 that is answered here.\n")
    method, target = found.groups()
    if target.partition(b"?")[0] != b"/metrics":
        return _response(404, "There is only /metrics.\n")
    if method not in (b"GET", b"HEAD"):
        return _response(405, "Use GET.\n", "Allow: GET, HEAD")
    whole = _response(200, text())
    return whole if method == b"GET" else whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _response(code: int, body: str, *headers: str) -> bytes:
    data = body.encode("utf-8", "backslashreplace")
    head = [
        f"HTTP/1.1 {code} {_REASONS[code]}",
        f"Content-Type: {CONTENT_TYPE if code == 200 else 'text/plain; charset=utf-8'}",
        f"Content-Length: {len(data)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*head, "", ""]).encode() + data


def _one(value: float) -> list[Sample]:
    return [({}, value)]


def _by(label: str, values: Mapping[str, float]) -> list[Sample]:
    return [({label: key}, value) for key, value in values.items()]


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(value)
