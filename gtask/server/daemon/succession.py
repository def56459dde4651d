"""The succession of masters: which one serves, which follows and which goes. Pure: the time is an argument.

=========  ===========================================================================================
starting   it loads the application; nobody is disturbed until it is ready
serving    it accepts connections
draining   it accepts no more, and waits for its workers
=========  ===========================================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["Drain", "Kill", "Quit", "Say", "Start", "Succession"]

STARTING, SERVING, DRAINING = "starting", "serving", "draining"

MOST_DRAINING = 3
"""Masters that drain at a time. A further reload waits until one of them has ended."""

SHORT_LIFE = 1.0
"""Seconds that a master must have served to be replaced without a pause."""

LONGEST_PAUSE = 30.0
"""Seconds that a pause between attempts never exceeds."""

KILL_AFTER = 15.0
"""Seconds beyond its own time-outs that a master gets to end."""


@dataclass(slots=True, frozen=True)
class Start:
    """Start a master, then report ``started``."""


@dataclass(slots=True, frozen=True)
class Drain:
    """Send this master SIGTERM."""

    pid: int


@dataclass(slots=True, frozen=True)
class Quit:
    """Send this master SIGQUIT, or SIGKILL if it does not serve yet."""

    pid: int
    at_once: bool = False


@dataclass(slots=True, frozen=True)
class Kill:
    """Send this master SIGKILL."""

    pid: int


@dataclass(slots=True, frozen=True)
class Say:
    """Write this to the log, as a warning or not; and tell the service manager if the server is ``ready``."""

    text: str
    warning: bool = False
    ready: bool = False


Action = Start | Drain | Quit | Kill | Say


@dataclass(slots=True)
class _Master:
    state: str
    since: float
    graceful_timeout: float = 0.0
    stop_timeout: float = 0.0
    kill_at: float = math.inf


@dataclass(slots=True)
class Succession:
    """The masters of one daemon.

    Attributes:
        stopping: whether the daemon is to end.
        failed: whether it could not even begin to serve.
        reloads: how many masters have become ready, less one.
    """

    stopping: bool = False
    failed: bool = False
    reloads: int = -1
    _masters: dict[int, _Master] = field(default_factory=dict)
    _again: bool = False  # a reload was asked for while one was under way
    _start_at: float = math.inf
    _starting_now: bool = False  # Start was ordered, and the master has no pid yet
    _short_lives: int = 0
    is_put_off: bool = False

    def begin(self) -> list[Action]:
        """The daemon begins."""
        return self._start()

    @property
    def is_over(self) -> bool:
        """Whether the daemon is to end, and all masters have."""
        return (self.stopping or self.failed) and not self._masters and not self._starting_now

    def pids(self, *states: str) -> list[int]:
        """The masters in these states; without any, all."""
        return [pid for pid, master in self._masters.items() if not states or master.state in states]

    def started(self, pid: int, now: float) -> list[Action]:
        """A master was started."""
        self._starting_now = False
        self._masters[pid] = _Master(STARTING, now)
        return [Quit(pid, at_once=True)] if self.stopping else []

    def not_spawned(self, why: str, now: float) -> list[Action]:
        """No process could be started for a master."""
        self._starting_now = False
        return [] if self.stopping else self._not_started(0, f"could not be started ({why})", now)

    def ready(self, pid: int, now: float, graceful_timeout: float, stop_timeout: float) -> list[Action]:
        """A master says that it serves.

        Args:
            graceful_timeout: seconds that it will wait for its checkouts when it drains.
            stop_timeout: seconds that it will wait for its workers after that, or when it is to stop at once.
        """
        master = self._masters.get(pid)
        if master is None or master.state != STARTING:
            return []
        master.graceful_timeout, master.stop_timeout = graceful_timeout, stop_timeout
        if self.stopping:
            return self._let_go(pid, now)
        actions: list[Action] = []
        for other in self.pids(SERVING):
            actions += self._let_go(other, now)
        master.state, master.since = SERVING, now
        self.reloads += 1
        text = f"master {pid} serves" + (f", and {len(actions)} drain" if actions else "")
        actions.append(Say(text, ready=True))
        if self._again:
            self._again = False
            actions += self.reload()
        return actions

    def exited(self, pid: int, how: str, now: float) -> list[Action]:
        """A master has ended, in this way."""
        master = self._masters.pop(pid, None)
        if master is None or self.stopping:
            return []
        if master.state == STARTING:
            return self._not_started(pid, how, now)
        if master.state == DRAINING:
            return self.reload() if self.is_put_off else []
        return self._replace(pid, how, now, now - master.since)

    def reload(self) -> list[Action]:
        """Another master is to take over, with the code and the configuration as they are now."""
        if self.stopping or self.failed:
            return []
        if self.pids(STARTING) or self._starting_now:
            self._again = True  # the master that starts may have read files that have changed since
            return []
        if len(self.pids(DRAINING)) >= MOST_DRAINING:
            self.is_put_off = True
            return [Say(f"{MOST_DRAINING} masters drain still: the reload waits until one of them has ended")]
        self.is_put_off = False
        self._start_at = math.inf
        return self._start()

    def stop(self, now: float, at_once: bool) -> list[Action]:
        """The daemon is to end: when the checkouts have ended, or at once."""
        self.stopping = True
        self._start_at = math.inf
        actions: list[Action] = []
        for pid, master in self._masters.items():
            if master.state == STARTING or at_once:
                master.kill_at = min(master.kill_at, now + master.stop_timeout + KILL_AFTER)
                actions.append(Quit(pid, at_once=master.state == STARTING))
                if master.state == SERVING:
                    master.state = DRAINING
            elif master.state == SERVING:
                actions += self._let_go(pid, now)
        return actions

    def tick(self, now: float) -> list[Action]:
        """The actions that have become due."""
        actions: list[Action] = []
        if now >= self._start_at:
            self._start_at = math.inf
            actions += self._start()
        for pid, master in self._masters.items():
            if now >= master.kill_at:
                master.kill_at = now + KILL_AFTER
                actions.append(Kill(pid))
        return actions

    def next_due(self) -> float:
        """The time at which to call :meth:`tick`; infinite for never."""
        return min([self._start_at, *(master.kill_at for master in self._masters.values())])

    def _start(self) -> list[Action]:
        self._starting_now = True
        return [Start()]

    def _let_go(self, pid: int, now: float) -> list[Action]:
        master = self._masters[pid]
        master.state = DRAINING
        master.kill_at = now + master.graceful_timeout + master.stop_timeout + KILL_AFTER
        return [Drain(pid)]

    def _not_started(self, pid: int, how: str, now: float) -> list[Action]:
        again, self._again = self._again, False
        if self.pids(SERVING):
            actions: list[Action] = [
                Say(f"the new master {pid} {how} before it was ready: the old one goes on serving", warning=True)
            ]
            return actions + (self._start() if again else [])
        if self.reloads < 0:
            self.failed = True
            # With status 1 the master has said why itself.
            is_reported = how == "exited with status 1"
            return [] if is_reported else [Say(f"the master {pid} {how} before it was ready", warning=True)]
        return self._replace(pid, how, now, 0.0, at_once=again)

    def _replace(self, pid: int, how: str, now: float, served: float, at_once: bool = False) -> list[Action]:
        if self.pids(STARTING) or self._starting_now:
            return [Say(f"master {pid} {how}; another is on its way already", warning=True)]
        self._short_lives = self._short_lives + 1 if served < SHORT_LIFE else 0
        doublings = min(self._short_lives - 2, 10)  # beyond that it is the longest pause anyway
        pause = min(LONGEST_PAUSE, 0.5 * 2.0**doublings) if self._short_lives > 1 and not at_once else 0.0
        actions: list[Action] = [Say(f"master {pid} {how}; another is started in {pause:g} s", warning=True)]
        if pause:
            self._start_at = now + pause
            return actions
        return actions + self._start()
