"""What a server can say about itself, as plain data: the master keeps a record, and a worker forked for it answers.

The worker has the record as it was at its fork; what the other workers do, it sees in the scoreboard, which it shares.
"""

from __future__ import annotations

import inspect
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from gtask.server.master.children import RUNGS
from gtask.server.scoreboard import CALL, HOOKS, IDLE, SETUP, View
from gtask.server.worker.interface import Interface

__all__ = ["STATES", "Living", "Record", "describe", "line", "snapshot", "status_interface", "summary"]

DEATHS = 20
"""How many of the last deaths are remembered."""

_STATES = {IDLE: "idle", SETUP: "setup", CALL: "call", HOOKS: "hooks"}

STATES = (*_STATES.values(), "lent", *RUNGS)
"""What the state of a worker may be."""


@dataclass(slots=True)
class Record:
    """What has happened to a master.

    Attributes:
        name, addresses: of the server; ``master``, its process id.
        started: when, on the monotonic clock.
        reloads: how many masters there were before this one.
        max_workers: how many workers there may be, or None.
        forked, ended: how many workers there have been, and how many of them are gone; ``calls``, what those had run,
            and ``busy``, for how many seconds.
        refused: connections that were not served.
        causes: how many deaths that were worth a line in the log there have been, by cause: the name of a signal,
            ``exit N``, or ``interrupted`` for what took too long.
        deaths: the last that were worth a line in the log: how long ago, and that line with the last line of the stack.
    """

    name: str
    master: int
    addresses: list[str]
    started: float
    reloads: int = 0
    max_workers: int | None = None
    forked: int = 0
    ended: int = 0
    calls: int = 0
    busy: float = 0.0
    refused: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    deaths: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=DEATHS))

    def gone(self, view: View, now: float, cause: str) -> None:
        """A worker has ended: what it did last, and what it has died of, or "" if it ended as it should."""
        self.ended += 1
        self.calls += view.calls
        self.busy += _busy(view, now)
        if cause:
            self.causes[cause] = self.causes.get(cause, 0) + 1

    def died(self, now: float, line: str, stacks: str) -> None:
        """A worker has died in a way that is worth a line."""
        # faulthandler shows all threads; the one that was hit is the current one, or the last if it is the only one.
        current = stacks.partition("Current thread ")[2] or stacks
        frames = [frame.strip() for frame in current.splitlines() if frame.startswith("  File ")]
        self.deaths.append((now, f"{line}, at {frames[0]}" if frames else line))


Living = Callable[[], Iterable[tuple[int, float, str, View]]]
"""Gives each worker: its process id, when it was forked, its rung of the ladder, and what it does."""


def snapshot(record: Record, living: Living, memory: Callable[[int], int], now: float) -> dict[str, Any]:
    """All there is to say, as plain data. Times are in seconds, memory in bytes.

    Args:
        memory: tells how much a process has.
        now: the time.
    """
    workers: list[dict[str, Any]] = []
    for pid, since, rung, view in living():
        state = rung or _STATES.get(view.phase, "?")
        if state == "idle" and view.lent:
            state = "lent"
        workers.append(
            {
                "pid": pid,
                "state": state,
                "method": view.method,
                "for": now - view.since,
                "age": now - since,
                "busy": _busy(view, now),
                "calls": view.calls,
                "memory": memory(pid),
            }
        )
    states: dict[str, int] = {}
    for worker in workers:
        states[worker["state"]] = states.get(worker["state"], 0) + 1
    return {
        "name": record.name,
        "master": record.master,
        "addresses": record.addresses,
        "uptime": now - record.started,
        "reloads": record.reloads,
        "max_workers": record.max_workers,
        "memory": memory(record.master),
        "busy": record.busy + sum(worker["busy"] for worker in workers),
        "states": states,
        "workers": workers,
        "totals": {
            "forked": record.forked,
            "ended": record.ended,
            "refused": record.refused,
            "calls": record.calls + sum(worker["calls"] for worker in workers),
        },
        "causes": record.causes,
        "deaths": [{"ago": now - at, "line": line} for at, line in record.deaths],
    }


def _busy(view: View, now: float) -> float:
    """For how many seconds a worker has done something else than wait for its client."""
    return view.busy + (0.0 if view.phase == IDLE else now - view.since)


def summary(living: Living) -> str:
    """How many workers there are and what they do, in a few words, for a process title."""
    views = [view for _, _, _, view in living()]
    busy = sum(view.phase != IDLE for view in views)
    lent = sum(view.phase == IDLE and view.lent for view in views)
    return f"{len(views)} workers: {busy} busy, {lent} lent, {len(views) - busy - lent} idle"


def line(record: Record, living: Living, now: float) -> str:
    """The same in one line, for the log."""
    whole = snapshot(record, living, lambda pid: 0, now)
    states = ", ".join(f"{count} {state}" for state, count in sorted(whole["states"].items())) or "none"
    totals = ", ".join(f"{count} {what}" for what, count in whole["totals"].items())
    return f"{record.name}: up {now - record.started:.0f} s, {record.reloads} reloads; workers: {states}; {totals}"


def status_interface(record: Record, living: Living, memory: Callable[[int], int], served: Interface) -> Interface:
    """The interface of a worker that is asked about the server.

    Args:
        served: what the server offers to others.
    """

    def status() -> dict[str, Any]:
        """What the server does."""
        mine = os.getpid()
        return snapshot(record, lambda: (one for one in living() if one[0] != mine), memory, monotonic())

    def methods() -> list[dict[str, Any]]:
        """What can be called: names, signatures and docstrings."""
        return [describe(name, function) for name, function in served.functions().items()]

    def ping() -> dict[str, Any]:
        """A sign of life."""
        return {"name": record.name, "master": record.master, "worker": os.getpid()}

    return Interface({"status": status, "methods": methods, "ping": ping}, name=f"about {record.name}")


def describe(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """A function, for somebody who wants to call it."""
    try:
        signature = str(inspect.signature(function))
    except (TypeError, ValueError):  # written in C
        signature = "(...)"
    return {"name": name, "signature": signature, "doc": inspect.getdoc(function) or ""}
