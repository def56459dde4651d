"""The master's view of its workers, and the signals that are due. Pure: the time is an argument.

**The ladder** against a worker whose client has hung up, or whose call takes too long:

===========  =========================================================================================
at once      SIGALRM, which raises :class:`gtask.Interrupted` at the very line that hangs
+ 0.1 s      SIGABRT, unless the call has ended: faulthandler writes the stacks, the process dies
+ 1 s        SIGKILL to the worker's process group, grandchildren included
===========  =========================================================================================

A worker that is between calls when its client hangs up just reads the end of the stream, runs its hooks and
exits; so does one whose call could be interrupted. It gets ``stop_timeout`` for that, then the ladder.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from gtask.server.scoreboard import CALL, DECODE, HOOKS, IDLE, SETUP, View

__all__ = ["RUNGS", "Child", "Children", "Obituary", "Signal"]

GRACE = 0.1
"""Seconds from SIGALRM to SIGABRT."""

LAST_GRACE = 1.0
"""Seconds from SIGABRT to SIGKILL."""

RUNGS = LEAVING, INTERRUPTED, ABORTED, KILLED = "leaving", "interrupted", "aborted", "killed"

_DOING = {
    CALL: "in a call",
    DECODE: "reading a message",
    IDLE: "waiting for its client",
    SETUP: "in setup",
    HOOKS: "in checkout_done or teardown",
}

_ENDLESS = (CALL, DECODE, SETUP)
"""The phases that are interrupted when the client has hung up. Hooks run to their end then."""


@dataclass(slots=True)
class Child:
    """One worker.

    Attributes:
        pid: its process id.
        since: when it was forked.
        look: gives its line of the scoreboard.
        rung: how far up the ladder it is; "" while nothing is wrong with it.
        due: when to look at it again.
        leave_by: while it is leaving, when its time for that is over.
        why: why it is on the ladder, for the log.
        aimed: the beginning of the call, or of the hook, that SIGALRM was to interrupt; 0 if no SIGALRM was sent.
        hung: in words, where it took longer than hung_worker_timeout, or "".
    """

    pid: int
    since: float
    look: Callable[[], View]
    rung: str = ""
    due: float = math.inf
    leave_by: float = math.inf
    why: str = ""
    aimed: float = 0.0
    hung: str = ""


@dataclass(slots=True, frozen=True)
class Signal:
    """Send this signal to this process, or to its process group.

    Attributes:
        aim: with SIGALRM, the beginning of the call, or of the hook, that is to be interrupted.
    """

    pid: int
    number: int
    group: bool = False
    aim: float = 0.0


@dataclass(slots=True, frozen=True)
class Obituary:
    """How a worker ended.

    Attributes:
        pid: its process id.
        exitcode: its exit status, or None if a signal ended it.
        signal: the name of the signal, or "".
        method: the method of the call that ran, or "".
        elapsed: seconds since that call began, or since it was forked.
        line: a line for the log, "" if it ended as it should.
        orphans: whether it was interrupted, so that the rest of its process group is to be killed.
        why: the reason of the interruption, or "".
    """

    pid: int
    exitcode: int | None
    signal: str
    method: str
    elapsed: float
    line: str
    orphans: bool
    why: str

    @property
    def cause(self) -> str:
        """The end in a word or two, to count by."""
        if self.orphans and self.exitcode == 0:
            return INTERRUPTED
        return self.signal or f"exit {self.exitcode}"


class Children:
    """The living workers.

    Args:
        hung_worker_timeout: seconds that a call, setup, a hook or the reading of a message may take; None for no limit.
        stop_timeout: seconds that a worker gets for its hooks when its client has hung up.
    """

    def __init__(self, hung_worker_timeout: float | None, stop_timeout: float) -> None:
        self._limit = math.inf if hung_worker_timeout is None else hung_worker_timeout
        self._stop_timeout = stop_timeout
        self._living: dict[int, Child] = {}

    def __len__(self) -> int:
        return len(self._living)

    def living(self) -> list[tuple[int, float, str, View]]:
        """For each worker: its process id, the time of its fork, its rung of the ladder, its line of the scoreboard."""
        return [(child.pid, child.since, child.rung, child.look()) for child in self._living.values()]

    def forked(self, pid: int, now: float, look: Callable[[], View]) -> None:
        """A worker was forked."""
        self._living[pid] = Child(pid, now, look)

    def hung_up(self, pid: int, now: float, why: str = "its client hung up") -> list[Signal]:
        """The client of a worker has hung up, or the server stops."""
        child = self._living.get(pid)
        if child is None or child.rung:
            return []
        child.why = why
        view = child.look()
        if view.phase in _ENDLESS:
            return self._climb(child, view, now)
        self._let_leave(child, now)
        return []

    def to_retire(self) -> dict[int, bool]:
        """The server drains: the workers to ask to leave, and whether each is in a checkout."""
        return {pid: child.look().lent for pid, child in self._living.items() if not child.rung}

    def stop(self, now: float) -> list[Signal]:
        """The server stops."""
        return [order for pid in list(self._living) for order in self.hung_up(pid, now, "the server stopped")]

    def due(self, now: float) -> list[Signal]:
        """The signals that have become due."""
        orders: list[Signal] = []
        for child in self._living.values():
            view = child.look()
            if child.rung == INTERRUPTED and view.since != child.aimed:
                # The interrupted call has ended, and the worker runs its hooks.
                self._let_leave(child, now)
            elif not child.rung and view.phase != IDLE and max(view.since + self._limit, view.until) <= now:
                child.hung = _doing(view)
                child.why = f"it was hung for {now - view.since:.3g} s (hung_worker_timeout)"
                orders += self._climb(child, view, now)
            elif child.rung == LEAVING and child.due <= now < child.leave_by and view.phase not in _ENDLESS:
                child.due = min(now + GRACE, child.leave_by)
            elif child.rung and child.due <= now:
                orders += self._climb(child, view, now)
        return orders

    def next_due(self, now: float) -> float:
        """The time at which :meth:`due` has something to say; infinite for never."""
        times = [math.inf]
        for child in self._living.values():
            if child.rung:
                times.append(child.due)
            elif self._limit < math.inf:
                view = child.look()
                times.append(now + self._limit if view.phase == IDLE else max(view.since + self._limit, view.until))
        return min(times)

    def ended(self, pid: int, status: int, now: float) -> Obituary | None:
        """A child was reaped.

        Args:
            status: as ``os.waitpid`` gives it.

        Returns:
            the worker's end; None for a process that is no worker.
        """
        child = self._living.pop(pid, None)
        if child is None:
            return None
        code = os.waitstatus_to_exitcode(status)
        name = _signal_name(-code) if code < 0 else ""
        view = child.look()
        elapsed = now - (child.since if view.phase == IDLE else view.since)
        method = view.method if view.phase == CALL else ""
        line = ""
        if code or view.phase in (CALL, SETUP):
            how = f"was ended by {name}" if name else f"exited with status {code}"
            because = f", because {child.why}" if child.rung else ""
            line = f"worker {pid} {how} {_doing(view)} after {elapsed:.3g} s{because}"
        elif child.hung:
            line = f"worker {pid} was interrupted {child.hung}, because {child.why}"
        was_interrupted = child.aimed > 0
        why = child.why if was_interrupted else ""
        return Obituary(pid, None if name else code, name, method, elapsed, line, was_interrupted, why)

    def _let_leave(self, child: Child, now: float) -> None:
        # Looked at again soon: a request that it has not read yet may still become a call.
        child.rung, child.due, child.leave_by = LEAVING, now + GRACE, now + self._stop_timeout

    def _climb(self, child: Child, view: View, now: float) -> list[Signal]:
        """The next rung, against the call in this view: the worker may have gone on to another one meanwhile."""
        if child.rung in ("", LEAVING):
            child.rung, child.due, child.aimed = INTERRUPTED, now + GRACE, view.since
            return [Signal(child.pid, signal.SIGALRM, aim=child.aimed)]
        if child.rung == INTERRUPTED:
            child.rung, child.due = ABORTED, now + LAST_GRACE
            return [Signal(child.pid, signal.SIGABRT)]
        child.rung, child.due = KILLED, now + LAST_GRACE
        return [Signal(child.pid, signal.SIGKILL, group=True)]


def _doing(view: View) -> str:
    """In words, where a worker is."""
    return f"in {view.method}" if view.method else _DOING[view.phase]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal has no name
