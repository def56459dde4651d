"""Attendants: the parts of the master's loop beside accepting, forking and reaping. Each can be left out.

The loop has a tuple of :class:`Attendant`. It watches their descriptors, and wakes when the first of them is due. In
each turn of the loop the attendants come last, in the order of the tuple.
"""

from __future__ import annotations

import logging
import math
import signal
import socket
from collections.abc import Callable, Collection
from time import monotonic

from gtask.server import comm, output, process
from gtask.server.daemon.watch import Watch
from gtask.server.estate import Estate
from gtask.server.listener import Listener
from gtask.server.master.children import Children
from gtask.server.master.workers import Workers
from gtask.server.metrics import status
from gtask.server.metrics.status import Record
from gtask.server.originals import read
from gtask.server.paths import AddressUnavailable
from gtask.server.scoreboard import IDLE

__all__ = [
    "Attendant",
    "KeeperWatch",
    "Losses",
    "ParentWatch",
    "ReloadWatch",
    "SilentClients",
    "SocketWatch",
    "Title",
]

log = logging.getLogger("gtask.server")

PARENT_CHECK = 1.0
"""Seconds between looks whether the parent is still the same, in case a sibling holds the other end of its pipe."""

ORPHAN_LOOK = 0.05
"""Seconds between looks, after the keeper's end, whether a new daemon has taken the sockets over."""

ORPHAN_QUIET = 3.0
"""Seconds without a new connection after which a master whose keeper has died drains, if it cannot know its heir."""

SOCKET_LOOK = 1.0
"""Seconds between looks whether somebody has removed the socket of a server that has no keeper."""

LOSSES_LOOK = 1.0
"""Seconds between attempts to tell how many lines of the output were lost."""

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
        has_ended = self._parent.pipe in ready and not read(self._parent.pipe, 4096)
        if not self._is_lost and (has_ended or self._parent.is_gone):
            self._is_lost = True
            self._lost()


class KeeperWatch(ParentWatch):
    """Notices the end of the keeper. Then the server serves on until a new daemon serves at its addresses.

    If none comes, the server drains when its time is over. It also does as soon as connections come no more, if it
    could not know of a new daemon: where the service manager has bound the socket.

    Args:
        parent: the keeper.
        listeners: where clients connect.
        record: of the master.
        unlisten: called at the keeper's end; closes the sockets that a new daemon could not bind before.
        leave: called when a new daemon has come, or is not expected any more: has the server drain.
        timeout: seconds for which a new daemon is expected.
    """

    def __init__(
        self,
        parent: process.Parent,
        listeners: Collection[Listener],
        record: Record,
        unlisten: Callable[[], None],
        leave: Callable[[], None],
        timeout: float,
    ) -> None:
        super().__init__(parent, self._begin_to_wait)
        self._timeout = timeout
        self._listeners = listeners
        self._record = record
        self._unlisten = unlisten
        self._leave = leave
        self._is_waiting = self._drains = False
        self._give_up_at = self._quiet_at = math.inf
        self._forked = 0
        self._estates: list[Estate] = []

    @property
    def descriptors(self) -> Collection[int]:
        return {*super().descriptors, *(descriptor for estate in self._estates for descriptor in estate.descriptors)}

    def next_due(self, now: float) -> float:
        return now + ORPHAN_LOOK if self._is_waiting else super().next_due(now)

    def drain(self, now: float) -> None:
        self._drains, self._is_waiting = True, False
        self.close()

    def close(self) -> None:
        for estate in self._estates:
            estate.close()
        self._estates = []

    def turn(self, now: float, ready: Collection[int]) -> None:
        super().turn(now, ready)
        was_claimed = any(estate.turn(ready) for estate in self._estates)
        if self._is_waiting and (was_claimed or self._was_replaced or self._is_idle(now) or now >= self._give_up_at):
            self._leave()

    def _begin_to_wait(self) -> None:
        if not self._drains:
            log.warning(
                "%s has lost its keeper; it serves on until another one serves, for at most %g s (--orphan-timeout)",
                self._record.name,
                self._timeout,
            )
            self._is_waiting = True
            self._give_up_at = monotonic() + self._timeout
            self._unlisten()
            claimable = [listener for listener in self._listeners if listener.can_be_claimed]
            self._estates = [Estate(listener.address, listener.fileno()) for listener in claimable]

    @property
    def _was_replaced(self) -> bool:
        return any(listener.was_replaced for listener in self._listeners)

    def _is_idle(self, now: float) -> bool:
        """Whether the place is to be left, because no heir would be known, and nobody has come for ORPHAN_QUIET."""
        if all(listener.can_be_replaced or listener.can_be_claimed for listener in self._listeners):
            return False
        if self._quiet_at == math.inf or self._record.forked != self._forked:
            self._quiet_at, self._forked = now + ORPHAN_QUIET, self._record.forked
        return now >= self._quiet_at and not any(listener.has_more for listener in self._listeners)


class SocketWatch(Attendant):
    """Listens anew at a path from which somebody has removed the socket. The keeper does so for its masters.

    Args:
        listeners: the server's.
    """

    def __init__(self, listeners: Collection[Listener]) -> None:
        self._listeners = [listener for listener in listeners if listener.is_watched]

    def next_due(self, now: float) -> float:
        return now + SOCKET_LOOK if self._listeners else math.inf

    def drain(self, now: float) -> None:
        self._listeners = []

    def turn(self, now: float, ready: Collection[int]) -> None:
        for listener in self._listeners:
            if listener.is_lost:
                _bind_again(listener)


def _bind_again(listener: Listener) -> None:
    try:
        listener.bind_again()
        log.warning("somebody has removed the socket %s: it was made anew", listener.address)
    except (AddressUnavailable, OSError) as error:
        log.warning("somebody has removed the socket %s, and it cannot be made anew: %s", listener.address, error)


class Losses(Attendant):
    """Tells how many lines of the output were lost, once there is a reader again."""

    def __init__(self) -> None:
        self._look_at = 0.0

    def next_due(self, now: float) -> float:
        return max(now, self._look_at) if output.are_lost() else math.inf

    def turn(self, now: float, ready: Collection[int]) -> None:
        if now >= self._look_at and output.are_lost():
            self._look_at = now + LOSSES_LOOK
            output.tell_losses()


class ReloadWatch(Attendant):
    """Asks the keeper to reload when a file of the application has changed.

    Args:
        watch: knows the files.
        ask: asks for a reload, because of a file.
    """

    def __init__(self, watch: Watch, ask: Callable[[str], None]) -> None:
        self._watch = watch
        self._ask = ask
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
            self._ask(changed[0])


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
        self._told: set[int] = set()  # the process ids of the workers that were told to end

    def next_due(self, now: float) -> float:
        return self._look_at

    def drain(self, now: float) -> None:
        self._look_at = now + SILENCE

    def _can_hang_up(self, pid: int) -> bool:
        return pid in self._told or self._workers[pid].connection.family == socket.AF_UNIX

    def turn(self, now: float, ready: Collection[int]) -> None:
        if now < self._look_at:
            return
        self._look_at = now + SILENCE
        for pid, is_lent in self._children.to_retire().items():
            handle = self._workers[pid]
            if is_lent or handle.line.view().phase != IDLE:
                continue
            if handle.line.wants_last_words and pid not in self._told:
                self._told.add(pid)
                # The worker ends, unless a checkout has just begun. It tells its client that it has begun nothing of
                # what may be under way, so that the client takes another worker.
                handle.line.shut()
                self._workers.send_each(signal.SIGTERM, [pid])
            elif self._can_hang_up(pid) and _is_silent(handle.connection):
                # On a unix socket nothing can be sent after this, so no request is lost. The client finds out when it
                # sends. A worker that was told, and is still there, waits for a greeting.
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
