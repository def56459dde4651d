"""The master: accept, fork a worker for each connection, reap, until it is told to stop.

A plain single-threaded loop around ``poll``. It runs no code of the application and parses no byte of a
client; what is to be done to which worker is decided in :mod:`gtask.server.master.children`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Collection
from time import monotonic
from typing import NamedTuple

from gtask.server import process
from gtask.server.config import ServerConfig
from gtask.server.daemon.watch import Watch
from gtask.server.listener import Listener
from gtask.server.master.children import Children, Obituary, Signal
from gtask.server.metrics import status
from gtask.server.metrics.scrapes import Scrapes
from gtask.server.metrics.status import Record
from gtask.server.scoreboard import IDLE, BoardLine
from gtask.server.worker import worker
from gtask.server.worker.interface import Interface
from gtask.wire.lastwords import last_words
from gtask.wire.messages import LastWords
from gtask.wire.values import arrays

__all__ = ["Master"]

log = logging.getLogger("gtask.server")

AT_ONCE, DRAIN = {signal.SIGINT, signal.SIGQUIT}, signal.SIGTERM
REOPEN, REPORT = signal.SIGUSR1, signal.SIGUSR2

HANG_UP = getattr(select, "POLLRDHUP", 0)
"""The event of a peer that hung up; no event while data flows. POLLHUP comes unasked, and is all there is elsewhere."""

PARENT_CHECK = 1.0
"""Seconds between looks whether the parent is still the same, for the case that its pipe does not tell."""

TITLE_EVERY = 1.0
"""Seconds between changes of the process title, at the least."""

PAUSE = 0.25
"""Seconds without a look at the listeners when there are no descriptors or processes to be had."""

ASKED = 0.25
"""Seconds that a client has, when the server drains, to let go of a worker that it does not use."""

REPEAT = 60.0
"""Seconds for which the same reason for a pause is not told again."""

ORPHAN_PATIENCE = 3.0
"""Seconds for which a master whose keeper has died still accepts, until a new daemon has taken its sockets over."""

ORPHAN_LOOK = 0.05
"""Seconds between looks whether that has happened."""


class _Held(NamedTuple):
    """What the master holds of a worker: a duplicate of its connection, and its line of the scoreboard."""

    connection: socket.socket
    slot: BoardLine


class Master:
    """Serves until it is stopped.

    Args:
        config: the server's options.
        interface: what the workers call.
        listeners: where connections come from, those for metrics included.
        keep: descriptors that the application opened and its workers need; those of the listeners never are.
        parent: the server stops when this process ends; None for a server of its own.
        kept: whether the parent is a keeper: then the server drains instead.
        reloads: how many masters there were before this one.
        on_ready: called when it is about to accept connections.
        watch: looks for changes of the application's files; then the keeper is asked to reload.
    """

    def __init__(
        self,
        config: ServerConfig,
        interface: Interface,
        listeners: list[Listener],
        keep: Collection[int] = (),
        parent: process.Parent | None = None,
        *,
        kept: bool = False,
        reloads: int = 0,
        on_ready: Callable[[], None] = lambda: None,
        watch: Watch | None = None,
    ) -> None:
        self._config = config
        self._interface = interface
        self._listeners = {listener.fileno(): listener for listener in listeners if not listener.for_metrics}
        self._keep = {0, 1, 2, *keep}.difference(*(listener.descriptors for listener in listeners))
        self._parent = parent
        self._kept = kept
        self._on_ready = on_ready
        self._watch = watch
        self._children = Children(config.hung_worker_timeout, config.stop_timeout)
        self._workers: dict[int, _Held] = {}
        self._workers_by_socket: dict[int, int] = {}
        self._poll = select.poll()
        self._accepting = False
        self._resume_at = math.inf
        self._told: dict[str, float] = {}
        self._waiting: socket.socket | None = None  # accepted, but no process could be forked for it yet
        self._orphaned_until = math.inf
        self._stop_at = math.inf
        self._hang_up_at = math.inf
        self._show_at = -math.inf
        self._draining = self._stopping = False
        where = [str(listener.address) for listener in self._listeners.values()]
        self._record = Record(config.name, os.getpid(), where, monotonic(), reloads, config.max_workers)
        asked = [listener for listener in listeners if listener.for_metrics]
        self._scrapes = Scrapes(asked, self._poll, self._record, self._children.living)

    def run(self) -> None:
        """Serve until a signal stops it, or the parent's death; then wait for the workers.

        SIGTERM drains: workers finish their checkouts, for at most graceful_timeout. SIGINT and SIGQUIT stop at once.
        SIGUSR1 opens the log file anew, SIGUSR2 writes the status to the log.
        """
        arrays.is_installed()  # known from now on, so that no worker has to look
        addresses = ", ".join(self._record.addresses)
        self._show(monotonic())
        if self._config.freeze:
            gc.collect()
            gc.freeze()  # what is there now is never collected, so collecting does not unshare its pages
        with process.signals_as_bytes({*AT_ONCE, DRAIN, REOPEN, REPORT, signal.SIGCHLD}) as wakeup:
            self._poll.register(wakeup, select.POLLIN)
            if self._parent is not None:
                self._parent.watch()
                self._poll.register(self._parent.pipe, select.POLLIN)
            for lacking in process.substitutes():
                log.info("this system has %s", lacking)
            log.info("%s is listening at %s", self._config.name, addresses)
            self._accept_again()
            self._scrapes.listen()
            for address in self._scrapes.addresses:
                log.info("%s tells its metrics at %s", self._config.name, address)
            self._on_ready()
            try:
                while not (self._draining and not self._children and (self._stopping or not self._scrapes.under_way)):
                    self._turn(wakeup)
            finally:
                self._unlisten()
                self._scrapes.cut_off()
        log.info("%s has stopped", self._config.name)

    def _turn(self, wakeup: int) -> None:
        events = [descriptor for descriptor, _ in self._poll.poll(self._patience())]
        # First, for reaping closes descriptors, and accepting uses their numbers again.
        for descriptor in events:
            if descriptor in self._workers_by_socket:
                self._hear_hang_up(descriptor)
        for descriptor in events:
            if descriptor == wakeup:
                self._heed(set(os.read(wakeup, 4096)))
            elif descriptor in self._listeners:
                if self._accepting:  # and no pause was decided upon just before
                    self._accept(self._listeners[descriptor])
            elif self._scrapes.hears(descriptor):
                self._scrapes.accept(descriptor)
            elif self._parent is not None and descriptor == self._parent.pipe:
                self._poll.unregister(descriptor)
                self._lose_parent()
        if self._parent is not None and self._parent.is_gone:
            self._lose_parent()
        if self._watch is not None and not self._draining:
            self._look_for_changes(self._watch)
        now = monotonic()
        if now >= self._show_at:
            self._show(now)
        if now >= self._resume_at:
            self._accept_again()
        if now >= self._scrapes.resume_at:
            self._scrapes.listen()
        if now >= self._hang_up_at:
            self._hang_up_on_the_silent(now)
        if self._orphaned_until < math.inf:
            self._look_for_successor(now)
        if now >= self._stop_at:
            log.warning("%s stops the checkouts that have not ended within %g s", self._config.name, self._grace)
            self._stop()
        self._send(self._children.due(now))

    def _patience(self) -> float | None:
        """Milliseconds until there is something to do even if nothing happens."""
        now = monotonic()
        times = (self._resume_at, self._scrapes.resume_at, self._hang_up_at, self._stop_at)
        seconds = min(self._children.next_due(now), *times) - now
        if self._parent is not None and not self._draining:
            seconds = min(seconds, PARENT_CHECK)
        if self._orphaned_until < math.inf:
            seconds = min(seconds, ORPHAN_LOOK)
        return None if seconds == math.inf else max(0.0, math.ceil(seconds * 1000))

    def _heed(self, signals: set[int]) -> None:
        if signal.SIGCHLD in signals:
            self._reap()
        if signals & AT_ONCE:
            self._stop()
        elif DRAIN in signals:
            self._drain()
        if REOPEN in signals and self._config.log_file:
            try:
                process.reopen(self._config.log_file)
            except OSError as error:
                log.warning("the log file %s cannot be opened anew: %s", self._config.log_file, error.strerror)
            for pid in self._workers:
                self._send([Signal(pid, REOPEN)])
        if REPORT in signals:
            log.info("%s", status.line(self._record, self._children.living, monotonic()))

    def _show(self, now: float) -> None:
        """Let the process title tell what the scoreboard says, if there is a turn anyway."""
        self._show_at = now + TITLE_EVERY
        where, crew = ", ".join(self._record.addresses), status.crew(self._children.living)
        process.setproctitle(f"gtask-server: {self._config.name} master [{where}] {crew}")

    def _look_for_changes(self, watch: Watch) -> None:
        changed = watch.changed()
        if changed and self._parent is not None:
            log.info("reload, because of %s", ", ".join(changed))
            try:
                os.kill(self._parent.pid, signal.SIGHUP)
            except OSError as error:  # it runs as another user
                log.warning("the keeper cannot be told: %s", error.strerror)

    # --- accepting and forking -------------------------------------------------------------------------

    def _accept(self, listener: Listener) -> None:
        try:
            connection = listener.accept()
        except OSError as error:  # no descriptors
            self._pause(f"cannot accept a connection: {(error.strerror or str(error)).lower()}", PAUSE)
            return
        if connection is None:
            return
        refusal = listener.refuses(connection)
        if refusal:
            self._record.refused += 1
            log.warning("refused: %s", refusal)
            connection.close()
            return
        self._employ(connection)

    def _employ(self, connection: socket.socket) -> None:
        """Get a worker for this connection, now or later."""
        self._waiting = None
        try:
            self._fork(connection)
        except OSError as error:  # no processes, or no descriptors
            self._waiting = connection
            self._pause(f"cannot fork a worker: {(error.strerror or str(error)).lower()}", PAUSE)
            return
        limit = self._config.max_workers
        if limit is not None and len(self._children) >= limit:
            self._pause(f"there are {limit} workers (max_workers), and more connections wait", math.inf)

    def _pause(self, why: str, seconds: float) -> None:
        """Look away from the listeners, whose connections wait in the kernel meanwhile."""
        if self._accepting:
            self._accepting = False
            for descriptor in self._listeners:
                self._poll.unregister(descriptor)
            now = monotonic()
            if now >= self._told.get(why, -math.inf) + REPEAT:
                self._told[why] = now
                log.warning("%s", why)
        self._resume_at = monotonic() + seconds

    def _accept_again(self) -> None:
        self._resume_at = math.inf
        if not self._accepting and self._listeners:
            self._accepting = True
            for descriptor in self._listeners:
                self._poll.register(descriptor, select.POLLIN)
            if self._waiting is not None:
                self._employ(self._waiting)

    def _fork(self, connection: socket.socket) -> None:
        now = monotonic()
        slot = BoardLine(now, process.memory_file("gtask-stacks"))
        try:
            pid = process.fork_child(lambda: self._become_worker(connection, slot))
        except OSError:
            slot.close()
            raise
        self._record.forked += 1
        self._children.forked(pid, now, slot.view)
        self._workers[pid] = _Held(connection, slot)
        self._workers_by_socket[connection.fileno()] = pid
        self._poll.register(connection, HANG_UP)

    def _become_worker(self, connection: socket.socket, slot: BoardLine) -> None:
        os.setpgid(0, 0)
        process.reset_signals(unblock=False)
        process.close_descriptors(keep={*self._keep, connection.fileno(), slot.stacks})
        process.setproctitle(f"gtask-server: {self._config.name} worker")
        if self._config.nice:
            os.nice(self._config.nice)
        about = status.about(self._record, self._children.living, process.resident_memory, self._interface)
        worker.serve(connection, self._interface, self._config, slot, about)

    def _hear_hang_up(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._send(self._children.hung_up(self._workers_by_socket.pop(descriptor), monotonic()))

    def _reap(self) -> None:
        while True:
            self._refuse_for_the_dead()
            try:
                pid, outcome, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            obituary = self._children.ended(pid, outcome, monotonic())
            if obituary is None:
                self._scrapes.ended(pid)
            else:
                self._bury(obituary, usage.ru_maxrss)

    def _refuse_for_the_dead(self) -> None:
        """Before a dead worker is reaped: let nothing more be sent to it that would be lost."""
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if dead is not None and dead.si_pid in self._workers:
                    with contextlib.suppress(OSError):
                        self._workers[dead.si_pid].connection.shutdown(socket.SHUT_RD)

    def _bury(self, obituary: Obituary, maxrss: int) -> None:
        held = self._workers.pop(obituary.pid)
        self._record.gone(held.slot.view(), monotonic(), obituary.cause if obituary.line else "")
        if obituary.orphans:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(obituary.pid, signal.SIGKILL)
        if self._workers_by_socket.pop(held.connection.fileno(), None) is not None:
            self._poll.unregister(held.connection)
        stacks = held.slot.read_stacks() if obituary.line else ""
        if obituary.line:
            log.warning(obituary.line)
            self._record.died(monotonic(), obituary.line, stacks)
            rip = LastWords(
                pid=obituary.pid,
                exitcode=obituary.exitcode,
                signal=obituary.signal,
                method=obituary.method,
                elapsed=obituary.elapsed,
                maxrss=maxrss // 1024 if sys.platform == "darwin" else maxrss,  # which counts bytes
                stacks=stacks,
                why=obituary.why,
            )
            words = last_words(rip) if held.slot.wants_last_words else b""
            with contextlib.suppress(OSError):  # nobody has to hear them
                held.connection.send(held.slot.take_held() + words, socket.MSG_DONTWAIT)
                # A worker that was forked just now has this duplicate, too, until it has closed it.
                held.connection.shutdown(socket.SHUT_RDWR)
                while held.connection.recv(65536, socket.MSG_DONTWAIT):
                    pass  # to close it with something unread would reset it, and the last words be lost
        held.connection.close()
        held.slot.close()
        if not self._accepting and self._resume_at == math.inf:
            self._accept_again()

    # --- the end ---------------------------------------------------------------------------------------

    @property
    def _grace(self) -> float:
        return self._config.graceful_timeout

    def _drain(self) -> None:
        """Accept no more, ask the workers to leave when their checkouts are over, and wait for them."""
        if self._draining:
            return
        if self._watch is not None:
            self._look_for_changes(self._watch)  # for what the new master has not loaded, and does not watch yet
        self._draining = True
        now = monotonic()
        self._stop_at, self._hang_up_at = now + self._grace, now + ASKED
        self._unlisten()
        for pid in self._children.to_retire():
            self._send([Signal(pid, signal.SIGTERM)])  # it will ask its client, which hangs up when it is through

    def _hang_up_on_the_silent(self, now: float) -> None:
        """Clients that have not let go of workers in no checkout, though they were asked, do not keep the server.

        Not before they were asked: a checkout may just begin, and its first request be under way.
        """
        self._hang_up_at = now + ASKED
        for pid, lent in self._children.to_retire().items():
            held = self._workers[pid]
            if lent or held.slot.view().phase != IDLE or held.connection.family != socket.AF_UNIX:
                continue
            if not _is_silent(held.connection):
                continue  # there is something to be read: a checkout begins
            # On a unix socket nothing can be sent any more, so no request is lost. The client finds out when it sends,
            # and takes another worker.
            if self._workers_by_socket.pop(held.connection.fileno(), None) is not None:
                self._poll.unregister(held.connection)
            with contextlib.suppress(OSError):
                held.connection.shutdown(socket.SHUT_RD)

    def _lose_parent(self) -> None:
        if not self._kept:
            self._stop()
        elif self._orphaned_until == math.inf and not self._draining:
            log.warning("%s has lost its keeper; it drains, and leaves its place to a new one", self._config.name)
            self._orphaned_until = monotonic() + ORPHAN_PATIENCE
            self._scrapes.unlisten()  # a new keeper could not listen there before

    def _look_for_successor(self, now: float) -> None:
        if now >= self._orphaned_until or any(listener.was_replaced for listener in self._listeners.values()):
            self._orphaned_until = math.inf
            for listener in self._listeners.values():
                while self._accepting and listener.has_more:
                    self._accept(listener)
            self._drain()

    def _stop(self) -> None:
        """Accept no more, and hang up on all workers, by the ladder where they do not hear it."""
        self._draining = True
        self._stop_at = self._hang_up_at = math.inf
        if not self._stopping:
            self._stopping = True
            self._unlisten()
            for held in self._workers.values():
                with contextlib.suppress(OSError):
                    held.connection.shutdown(socket.SHUT_RD)  # so a worker between calls hears it, too
            self._send(self._children.stop(monotonic()))

    def _unlisten(self) -> None:
        for descriptor, listener in self._listeners.items():
            if self._accepting:
                self._poll.unregister(descriptor)
            listener.close()
        self._scrapes.unlisten()
        self._listeners = {}
        self._accepting = False
        self._resume_at = math.inf
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def _send(self, signals: list[Signal]) -> None:
        for order in signals:
            if order.aim:
                self._workers[order.pid].slot.aim(order.aim)
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if order.group else os.kill)(order.pid, order.number)


def _is_silent(connection: socket.socket) -> bool:
    """Whether nothing that has been sent is yet to be read."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
