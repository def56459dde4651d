"""Attendants: the parts of the master's loop beside accepting, forking and reaping. Each can be left out.

The loop has a tuple of :class:`Attendant`. It watches their descriptors, and wakes when the first of them is due. In
each turn of the loop the attendants come last, in the order of the tuple.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Collection
from time import monotonic

from gtask.server import comm, process
from gtask.server.daemon.watch import Watch
from gtask.server.listener import Listener
from gtask.server.master.children import Children
from gtask.server.master.workers import Workers
from gtask.server.metrics import status
from gtask.server.metrics.status import Record
from gtask.server.scoreboard import IDLE

__all__ = ["Attendant", "KeeperWatch", "ParentWatch", "ReloadWatch", "SilentClients", "Title"]

log = logging.getLogger("gtask.server")

PARENT_CHECK = 1.0
"""Seconds between looks whether the parent is still the same, in case a sibling holds the other end of its pipe."""

ORPHAN_LOOK = 0.05
"""Seconds between looks, after the keeper's end, whether a new daemon has taken the sockets over."""

ORPHAN_QUIET = 3.0
"""Seconds without a new connection after which a master whose keeper has died drains, though no daemon has come."""

ORPHAN_LIMIT = 300.0
"""Seconds after which such a master drains, however many connections still come."""

TITLE_EVERY = 1.0
"""Seconds between changes of the process title, at the least."""

RELOAD_LOOK = 1.0
"""Seconds between looks at the application's files, at the most: each turn of the loop is a look."""

SILENCE = 0.25
"""Seconds that a client has, when the server drains, to let go of an unused worker; then it is hung up on."""


class Attendant:
    """Base of the attendants. A subclass overrides the methods that it needs; each of these does nothing.

    Attributes:
        descriptors: watched for something to read.
        under_way: whether the end of a server that drains is to wait for this attendant.
    """

    @property
    def descriptors(self) -> Collection[int]:
        return ()

    @property
    def under_way(self) -> bool:
        return False

    def next_due(self, now: float) -> float:
        """The time at which the loop must turn at the latest, on the monotonic clock; infinite for any time."""
        return math.inf

    def turn(self, now: float, ready: Collection[int]) -> None:
        """The loop turns.

        Args:
            now: the time, on the monotonic clock.
            ready: the attendant's descriptors at which there is something to read.
        """

    def begin(self, now: float) -> None:
        """The server is about to accept connections; signals have their handlers."""

    def drain(self, now: float) -> None:
        """The server accepts no more connections, and is about to wait for its workers' ends. This comes once."""

    def reaped(self, pid: int) -> None:
        """A child that is no worker has ended."""

    def close(self) -> None:
        """The loop has ended."""


class Title(Attendant):
    """Shows the number of busy, lent and idle workers in the process title, if the loop turns anyway."""

    def __init__(self, record: Record, living: status.Living) -> None:
        self._record = record
        self._living = living
        self._show_at = -math.inf

    def begin(self, now: float) -> None:
        self.turn(now, ())

    def turn(self, now: float, ready: Collection[int]) -> None:
        if now >= self._show_at:
            self._show_at = now + TITLE_EVERY
            addresses, summary = ", ".join(self._record.addresses), status.summary(self._living)
            process.setproctitle(f"gtask-server: {self._record.name} master [{addresses}] {summary}")
            comm.show(self._record.name, "m")


class ParentWatch(Attendant):
    """Notices the end of the process that has started the server.

    Args:
        parent: that process.
        lost: called once, when the process has ended.
    """

    def __init__(self, parent: process.Parent, lost: Callable[[], None]) -> None:
        self._parent = parent
        self._lost = lost
        self._is_lost = False

    @property
    def descriptors(self) -> Collection[int]:
        return () if self._is_lost else (self._parent.pipe,)

    def next_due(self, now: float) -> float:
        return math.inf if self._is_lost else now + PARENT_CHECK

    def begin(self, now: float) -> None:
        self._parent.watch()

    def turn(self, now: float, ready: Collection[int]) -> None:
        if not self._is_lost and (ready or self._parent.is_gone):
            self._is_lost = True
            self._lost()


class KeeperWatch(ParentWatch):
    """Notices the end of the keeper. Then the server serves on until a new daemon has taken its sockets over.

    If none comes, the server drains as soon as connections come no more, or when ORPHAN_LIMIT is over.

    Args:
        parent: the keeper.
        listeners: where clients connect.
        record: of the master.
        unlisten: called at the keeper's end; closes the sockets that a new daemon could not bind before.
        leave: called when a new daemon has come, or is not expected any more: has the server drain.
    """

    def __init__(
        self,
        parent: process.Parent,
        listeners: Collection[Listener],
        record: Record,
        unlisten: Callable[[], None],
        leave: Callable[[], None],
    ) -> None:
        super().__init__(parent, self._begin_to_wait)
        self._listeners = listeners
        self._record = record
        self._unlisten = unlisten
        self._leave = leave
        self._is_waiting = self._drains = False
        self._give_up_at = self._quiet_at = math.inf
        self._forked = 0

    def next_due(self, now: float) -> float:
        return now + ORPHAN_LOOK if self._is_waiting else super().next_due(now)

    def drain(self, now: float) -> None:
        self._drains, self._is_waiting = True, False

    def turn(self, now: float, ready: Collection[int]) -> None:
        super().turn(now, ready)
        if self._is_waiting and (self._has_successor or self._is_idle(now) or now >= self._give_up_at):
            self._leave()

    def _begin_to_wait(self) -> None:
        if not self._drains:
            log.warning("%s has lost its keeper; it drains, and leaves its place to a new one", self._record.name)
            self._is_waiting = True
            self._give_up_at = monotonic() + ORPHAN_LIMIT
            self._unlisten()

    @property
    def _has_successor(self) -> bool:
        return any(listener.was_replaced for listener in self._listeners)

    def _is_idle(self, now: float) -> bool:
        """Whether no connection has come for ORPHAN_QUIET seconds, and none waits."""
        if self._quiet_at == math.inf or self._record.forked != self._forked:
            self._quiet_at, self._forked = now + ORPHAN_QUIET, self._record.forked
        return now >= self._quiet_at and not any(listener.has_more for listener in self._listeners)


class ReloadWatch(Attendant):
    """Asks the keeper to reload when a file of the application has changed.

    Args:
        watch: knows the files.
        keeper: the keeper's process id.
    """

    def __init__(self, watch: Watch, keeper: int) -> None:
        self._watch = watch
        self._keeper = keeper
        self._drains = False

    def next_due(self, now: float) -> float:
        return math.inf if self._drains else now + RELOAD_LOOK

    def turn(self, now: float, ready: Collection[int]) -> None:
        if not self._drains:
            self._look()

    def drain(self, now: float) -> None:
        self._drains = True
        self._look()  # for files that the new master has not loaded, and does not watch yet

    def _look(self) -> None:
        changed = self._watch.changed()
        if changed:
            log.info("reload, because of %s", ", ".join(changed))
            try:
                os.kill(self._keeper, signal.SIGHUP)
            except OSError as error:  # the keeper runs as another user
                log.warning("the keeper cannot be told: %s", error.strerror)


class SilentClients(Attendant):
    """Hangs up, when the server drains, on clients that were asked to let go of an unused worker and have not.

    They were asked SILENCE seconds before: a checkout may just begin, and its first request be under way.

    Args:
        children: knows the workers that have not been told to leave.
        workers: the master's handles.
    """

    def __init__(self, children: Children, workers: Workers) -> None:
        self._children = children
        self._workers = workers
        self._look_at = math.inf

    def next_due(self, now: float) -> float:
        return self._look_at

    def drain(self, now: float) -> None:
        self._look_at = now + SILENCE

    def turn(self, now: float, ready: Collection[int]) -> None:
        if now < self._look_at:
            return
        self._look_at = now + SILENCE
        for pid, is_lent in self._children.to_retire().items():
            handle = self._workers[pid]
            if is_lent or handle.line.view().phase != IDLE:
                continue
            # On a unix socket nothing can be sent after this, so no request is lost. The client finds out when it
            # sends, and takes another worker. If there is something to read a checkout begins.
            if handle.connection.family == socket.AF_UNIX and _is_silent(handle.connection):
                self._workers.ignore(pid)
                handle.shut_reading()


def _is_silent(connection: socket.socket) -> bool:
    """Whether the client has sent nothing that is still to be read."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
