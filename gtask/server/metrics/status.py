"""The status of a server, as plain data: the master keeps a record, and a worker that is forked for a question answers.

The worker has the record as it was at its fork. It shares the scoreboard, where it sees the other workers.
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
from gtask.server.scoreboard import CALL, DECODE, HOOKS, IDLE, SETUP, View
from gtask.server.worker.interface import Interface

__all__ = ["STATES", "Living", "Record", "describe", "line", "snapshot", "status_interface", "summary"]

DEATHS = 20
"""How many of the last deaths are remembered."""

_STATES = {IDLE: "idle", SETUP: "setup", CALL: "call", HOOKS: "hooks", DECODE: "decode"}

STATES = (*_STATES.values(), "lent", *RUNGS)
"""The possible states of a worker."""


@dataclass(slots=True)
class Record:
    """The history of a master.

    Attributes:
        name: of the server.
        master: its process id.
        addresses: where it listens.
        started: the time of its start, on the monotonic clock.
        reloads: the number of masters before this one.
        max_workers: the limit of workers, or None.
        forked: the number of workers so far.
        ended: the number of workers that are gone.
        calls: the number of calls of the workers that are gone.
        busy: the seconds in which those were busy.
        refused: the number of connections that were not served.
        setup_failures: the number of setups that have raised in the workers that are gone.
        causes: the number of logged deaths by cause: the name of a signal, ``exit N``, or ``interrupted`` for a call
            that took too long.
        deaths: the last logged deaths, each with its time, and its line with the last line of the stack.
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
    setup_failures: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    deaths: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=DEATHS))

    def gone(self, view: View, now: float, cause: str) -> None:
        """A worker has ended.

        Args:
            view: the worker's last view.
            now: the time.
            cause: the cause of death; "" for an orderly exit.
        """
        self.ended += 1
        self.calls += view.calls
        self.setup_failures += view.failed
        self.busy += _busy(view, now)
        if cause:
            self.causes[cause] = self.causes.get(cause, 0) + 1

    def died(self, now: float, line: str, stacks: str) -> None:
        """A worker has died, and the log has this line; ``stacks`` are those of faulthandler, or "" for none."""
        # faulthandler shows all threads; the one that was hit is the current one, or the last if it is the only one.
        current = stacks.partition("Current thread ")[2] or stacks
        frames = [frame.strip() for frame in current.splitlines() if frame.startswith("  File ")]
        self.deaths.append((now, f"{line}, at {frames[0]}" if frames else line))


Living = Callable[[], Iterable[tuple[int, float, str, View]]]
"""Gives each worker: its process id, the time of its fork, its rung of the ladder, its line of the scoreboard."""


def snapshot(record: Record, living: Living, memory: Callable[[int], int], now: float) -> dict[str, Any]:
    """The whole status, as plain data. Times are in seconds, memory in bytes.

    Args:
        record: of the master.
        living: gives the workers.
        memory: gives the resident memory of a process.
        now: the time.
    """
    lines = list(living())
    workers = [_worker(*each, memory, now) for each in lines]
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
            "setup_failures": record.setup_failures + sum(view.failed for _, _, _, view in lines),
        },
        "causes": record.causes,
        "deaths": [{"ago": now - at, "line": line} for at, line in record.deaths],
    }


def _worker(pid: int, since: float, rung: str, view: View, memory: Callable[[int], int], now: float) -> dict[str, Any]:
    """One worker, as plain data."""
    state = rung or _STATES.get(view.phase, "?")
    if state == "idle" and view.lent:
        state = "lent"
    client = {"name": view.client, "pid": view.client_pid, "uid": view.client_uid}
    return {
        "pid": pid,
        "state": state,
        "method": view.method,
        "for": now - view.since,
        "age": now - since,
        "busy": _busy(view, now),
        "calls": view.calls,
        "memory": memory(pid),
        **({"client": client} if view.client or view.client_pid else {}),
    }


def _busy(view: View, now: float) -> float:
    """The seconds in which a worker did not wait for its client."""
    return view.busy + (0.0 if view.phase == IDLE else now - view.since)


def summary(living: Living) -> str:
    """The number of workers, busy, lent and idle, for a process title."""
    views = [view for _, _, _, view in living()]
    busy = sum(view.phase != IDLE for view in views)
    lent = sum(view.phase == IDLE and view.lent for view in views)
    return f"{len(views)} workers: {busy} busy, {lent} lent, {len(views) - busy - lent} idle"


def line(record: Record, living: Living, now: float) -> str:
    """The status in one line, for the log."""
    whole = snapshot(record, living, lambda pid: 0, now)
    states = ", ".join(f"{count} {state}" for state, count in sorted(whole["states"].items())) or "none"
    totals = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in whole["totals"].items())
    return f"{record.name}: up {now - record.started:.0f} s, {record.reloads} reloads; workers: {states}; {totals}"


def status_interface(record: Record, living: Living, memory: Callable[[int], int], served: Interface) -> Interface:
    """The interface of a worker whose client asks about the server.

    Args:
        served: the interface for other clients.
    """

    def status() -> dict[str, Any]:
        """The server's status."""
        mine = os.getpid()
        return snapshot(record, lambda: (one for one in living() if one[0] != mine), memory, monotonic())

    def methods() -> list[dict[str, Any]]:
        """The functions that can be called: names, signatures and docstrings."""
        return [describe(name, function, served.is_method(name)) for name, function in served.functions().items()]

    def ping() -> dict[str, Any]:
        """A sign of life."""
        return {"name": record.name, "master": record.master, "worker": os.getpid()}

    return Interface({"status": status, "methods": methods, "ping": ping}, name=f"about {record.name}")


def describe(name: str, function: Callable[..., Any], is_method: bool = False) -> dict[str, Any]:
    """The name, signature and docstring of a function.

    Args:
        name: under which it is served.
        function: a function; of a class the plain one.
        is_method: whether its first parameter is the instance, which no caller gives.
    """
    try:
        signature = str(_told(inspect.signature(function), is_method))
    except (TypeError, ValueError):  # written in C
        signature = "(...)"
    return {"name": name, "signature": signature, "doc": inspect.getdoc(function) or ""}


class _Untold:
    """Stands for a default that is no peer's business: it may be a secret."""

    def __repr__(self) -> str:
        return "..."


_TOLD = (None, True, False, inspect.Parameter.empty)


def _told(signature: inspect.Signature, is_method: bool) -> inspect.Signature:
    """A signature as peers may know it: that a parameter has a default, and not which."""
    parameters = list(signature.parameters.values())
    if (
        is_method
        and parameters
        and parameters[0].kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ):
        del parameters[0]
    return signature.replace(
        parameters=[
            each if any(each.default is told for told in _TOLD) else each.replace(default=_Untold())
            for each in parameters
        ]
    )
