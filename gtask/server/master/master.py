"""The master: accept, fork a worker for each connection, reap, until a signal stops it.

A plain single-threaded loop around ``poll``. The loop runs no code of the application and parses no byte of a client.
:mod:`gtask.server.master.children` decides about the workers. :mod:`gtask.server.master.attendants` has the other parts
of the loop, from the process title to the reload.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterable
from time import monotonic

from gtask import loading, serving
from gtask.errors import reason_of
from gtask.server import capacity, comm, descriptors, output, patches, peers, process
from gtask.server.config import ServerConfig
from gtask.server.listener import Listener
from gtask.server.master import deaths
from gtask.server.master.attendants import (
    Attendant,
    KeeperWatch,
    Losses,
    ParentWatch,
    SilentClients,
    SocketWatch,
    Title,
)
from gtask.server.master.children import Children
from gtask.server.master.crowding import Crowding
from gtask.server.master.door import LINE, Door
from gtask.server.master.idle import IdleClients
from gtask.server.master.refusals import ALLOW, RAISE, Refusals
from gtask.server.master.workers import Handle, Workers
from gtask.server.metrics import status
from gtask.server.metrics.scrapes import Scrapes
from gtask.server.metrics.status import Record
from gtask.server.originals import POLLIN, close, poll, read, wait4
from gtask.server.scoreboard import BoardLine, Complaints
from gtask.server.seldom import Seldom
from gtask.server.worker import parts
from gtask.server.worker.interface import Interface
from gtask.server.worker.serve import serve
from gtask.wire.values import arrays

__all__ = ["Master"]

log = logging.getLogger("gtask.server")

AT_ONCE, DRAIN = {signal.SIGINT, signal.SIGQUIT}, signal.SIGTERM
REOPEN, REPORT = signal.SIGUSR1, signal.SIGUSR2

PAUSE = 0.25
"""Seconds without a look at the listeners when there are no descriptors or processes to be had."""

REPEAT = 60.0
"""Seconds for which a reason for a pause is not logged again."""


class Master:
    """Serves until it is stopped.

    Args:
        config: the server's options.
        interface: the functions that the workers call.
        listeners: the sockets, those for metrics included.
        keep: descriptors that the application opened and its workers need; those of the listeners never are.
        parent: the server stops when this process ends; None for a server that no process has started.
        kept: whether the parent is a keeper. A server whose keeper ends drains, once a new daemon has come.
        reloads: how many masters there were before this one.
        on_ready: called when the master is about to accept connections.
        attendants: further parts of the loop, beside those that every server needs.
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
        attendants: Iterable[Attendant] = (),
    ) -> None:
        self._config = config
        self._interface = interface
        self._listeners = {listener.fileno(): listener for listener in listeners if not listener.for_metrics}
        self._keep = {0, 1, 2, *keep}.difference(*(listener.descriptors for listener in listeners))
        self._on_ready = on_ready
        self._poll = poll()
        self._attended: set[int] = set()  # the attendants' descriptors that are in the poll
        self._children = Children(config.hung_worker_timeout, config.stop_timeout)
        self._workers = Workers(self._poll)
        self._accepting = False
        self._resume_at = math.inf
        self._last_logged: dict[str, float] = {}
        self._complaints = Complaints()
        self._spare = os.dup(0)  # closed in a worker, which has to open something before it can close the others
        self._make_stacks, self._lacking = descriptors.stacks_file()
        self._stop_at = math.inf
        self._draining = self._stopping = False
        addresses = [str(listener.address) for listener in self._listeners.values()]
        self._most, self._why_most = config.max_workers or 0, ""
        if not self._most:
            self._most, self._why_most = capacity.most_workers(capacity.bounds())
        self._record = Record(config.name, os.getpid(), addresses, monotonic(), reloads, config.max_workers)
        self._door = Door(config, self._employ, self._room)
        self._seldom = Seldom()
        self._refusals = Refusals(config)
        self._attendants = self._make_attendants(listeners, parent, kept, attendants)

    def _make_attendants(
        self, listeners: list[Listener], parent: process.Parent | None, kept: bool, more: Iterable[Attendant]
    ) -> tuple[Attendant, ...]:
        children, workers, living = self._children, self._workers, self._children.living
        scrapes = Scrapes([listener for listener in listeners if listener.for_metrics], self._record, living)
        crowding = Crowding(self._most, self._somebody_waits, children, workers)
        idle, silent = IdleClients(self._config.idle_timeout, children, workers), SilentClients(children, workers)
        last = (Title(self._record, living), silent, self._refusals, crowding, idle, SocketWatch(listeners), Losses())
        return (scrapes, self._door, *self._watches(parent, kept, scrapes), *more, *last)

    def _watches(self, parent: process.Parent | None, kept: bool, scrapes: Scrapes) -> list[Attendant]:
        if parent is None:
            return []
        if not kept:
            return [ParentWatch(parent, self._stop)]
        for_clients = list(self._listeners.values())
        # A new keeper could not listen for metrics before this master closes its listener.
        timeout = self._config.orphan_timeout
        return [KeeperWatch(parent, for_clients, self._record, scrapes.unlisten, self._leave, timeout)]

    def run(self) -> None:
        """Serve until a signal stops it, or the parent's death; then wait for the workers.

        SIGTERM drains: workers finish their checkouts, for at most graceful_timeout. SIGINT and SIGQUIT stop at once.
        SIGUSR1 opens the log file anew, SIGUSR2 writes the status to the log.
        """
        arrays.is_installed()  # known from now on, so that no worker has to look
        if self._config.freeze:
            gc.collect()
            gc.freeze()  # these objects are never looked at again, so that collecting does not unshare their pages
        with process.signals_as_bytes({*AT_ONCE, DRAIN, REOPEN, REPORT, signal.SIGCHLD}) as wakeup:
            self._poll.register(wakeup, POLLIN)
            for lacking in filter(None, (*process.substitutes(), self._lacking)):
                log.info("this system has %s", lacking)
            if self._why_most and not self._record.reloads:
                log.info("there may be %d workers (--max-workers), for %s", self._most, self._why_most)
            log.info("%s is listening at %s", self._config.name, ", ".join(self._record.addresses))
            self._accept_again()
            now = monotonic()
            for attendant in self._attendants:
                attendant.begin(now)
            self._attend((), now)
            self._on_ready()
            try:
                while not self._is_over:
                    self._turn(wakeup)
            finally:
                self._unlisten()
                for attendant in self._attendants:
                    attendant.close()
                close(self._spare)
        log.info("%s has stopped", self._config.name)

    @property
    def _is_over(self) -> bool:
        if not self._draining or self._children:
            return False
        return self._stopping or not any(attendant.under_way for attendant in self._attendants)

    def _turn(self, wakeup: int) -> None:
        ready = [descriptor for descriptor, _ in self._poll.poll(self._patience())]
        # First, for reaping closes descriptors, and accepting uses their numbers again.
        for pid in self._workers.hung_up(ready):
            self._workers.send(self._children.hung_up(pid, monotonic()))
        if wakeup in ready:
            self._heed(set(read(wakeup, 4096)))
        for descriptor in ready:
            if self._accepting and descriptor in self._listeners:  # a pause may have begun just before
                self._accept(self._listeners[descriptor])
        now = monotonic()
        self._attend(ready, now)
        if now >= self._resume_at:
            self._accept_again()
        if now >= self._stop_at:
            grace = self._config.graceful_timeout
            log.warning("%s stops the checkouts that have not ended within %g s", self._config.name, grace)
            self._stop()
        self._workers.send(self._children.due(now))

    def _patience(self) -> float | None:
        """Milliseconds until there is something to do even if nothing happens."""
        now = monotonic()
        due = min(self._children.next_due(now), self._resume_at, self._stop_at)
        due = min(due, *(attendant.next_due(now) for attendant in self._attendants))
        return None if due == math.inf else math.ceil(max(0.0, due - now) * 1000)

    def _attend(self, ready: Collection[int], now: float) -> None:
        for attendant in self._attendants:
            attendant.turn(now, [descriptor for descriptor in attendant.descriptors if descriptor in ready])
        self._watch_descriptors()

    def _watch_descriptors(self) -> None:
        """Let the poll have the attendants' descriptors, before the number of one that was closed is used again."""
        wanted = {descriptor for attendant in self._attendants for descriptor in attendant.descriptors}
        for descriptor in self._attended - wanted:
            self._poll.unregister(descriptor)
        for descriptor in wanted - self._attended:
            self._poll.register(descriptor, POLLIN)
        self._attended = wanted

    def _heed(self, signals: set[int]) -> None:
        if signal.SIGCHLD in signals:
            self._reap()
        if signals & AT_ONCE:
            self._stop()
        elif DRAIN in signals:
            self._drain()
        if REOPEN in signals and self._config.log_file:
            try:
                descriptors.reopen(self._config.log_file)
            except OSError as error:
                log.warning("the log file %s cannot be opened anew: %s", self._config.log_file, error.strerror)
            self._workers.send_each(REOPEN)
        if REPORT in signals:
            log.info("%s", status.line(self._record, self._children.living, monotonic()))

    # --- accepting, forking and reaping ----------------------------------------------------------------

    def _accept(self, listener: Listener) -> None:
        if descriptors.few_are_left():
            self._pause("hardly any descriptors are left (ulimit -n), and more connections wait", PAUSE)
            return
        if self._door.is_full:
            self._pause(f"{LINE} connections wait for a worker, and more wait in the kernel", PAUSE)
            return
        try:
            connection = listener.accept()
        except OSError as error:  # no descriptors
            self._pause(f"cannot accept a connection: {reason_of(error)}", PAUSE)
            return
        if connection is None:
            return
        now = monotonic()
        refusal, advice = listener.refuses(connection), ALLOW
        if not refusal:
            refusal, advice = self._door.refuses(connection, listener.address, self._workers.users()), RAISE
        if refusal:
            self._record.refused += 1
            more = self._seldom.more(now)
            if more is not None:
                log.warning("refused: %s%s", refusal, more)
            self._refusals.add(connection, f"{refusal}; {advice}", now)
            return
        self._door.come(connection, now)

    def _somebody_waits(self) -> bool:
        return self._door.somebody_waits or any(listener.has_more for listener in self._listeners.values())

    def _room(self) -> float:
        """How many more workers there may be."""
        return -math.inf if self._stopping else self._most - len(self._children)

    def _employ(self, connection: socket.socket, about: bool) -> bool:
        """Get a worker for this connection, which tells only about the server if need be; gives whether it could."""
        try:
            self._fork(connection, about)
        except OSError as error:  # no processes, or no descriptors
            self._pause(f"cannot fork a worker: {reason_of(error)}", PAUSE)
            return False
        if self._room() == 0:
            self._warn(f"there are {self._most} workers (max_workers), and more connections wait")
        return True

    def _pause(self, why: str, seconds: float) -> None:
        """Look away from the listeners, whose connections wait in the kernel meanwhile."""
        self._resume_at = monotonic() + seconds
        if self._accepting:
            self._accepting = False
            for descriptor in self._listeners:
                self._poll.unregister(descriptor)
            self._warn(why)

    def _warn(self, why: str) -> None:
        now = monotonic()
        if now >= self._last_logged.get(why, -math.inf) + REPEAT:
            self._last_logged[why] = now
            log.warning("%s", why)

    def _accept_again(self) -> None:
        self._resume_at = math.inf
        if not self._accepting and self._listeners:
            self._accepting = True
            for descriptor in self._listeners:
                self._poll.register(descriptor, POLLIN)

    def _fork(self, connection: socket.socket, about: bool) -> None:
        now = monotonic()
        line = BoardLine(now, self._make_stacks(), peers.peer_of(connection), self._complaints)
        try:
            pid = process.fork_child(lambda: self._become_worker(connection, line, about))
        except OSError:
            line.close()
            raise
        if connection.fileno() in self._attended:  # it has waited for its first byte
            self._attended.remove(connection.fileno())
            self._poll.unregister(connection)
        self._record.forked += 1
        self._children.forked(pid, now, line.view)
        self._workers.add(pid, Handle(connection, line))

    def _become_worker(self, connection: socket.socket, line: BoardLine, about: bool) -> None:
        os.setpgid(0, 0)
        close(self._spare)
        loading.end()
        serving.begin(tuple(listener.address for listener in self._listeners.values()))
        output.let_wait()
        process.be_killed_first()
        if self._config.private:
            process.leave_stdout()  # which is the program's, whatever a call prints
        process.reset_signals(unblock=False)
        descriptors.close_descriptors(keep={*self._keep, connection.fileno(), line.stacks})
        patches.renew_hub()
        process.setproctitle(f"gtask-server: {self._config.name} worker")
        comm.show(self._config.name, f"w{self._record.forked + 1}")
        if self._config.nice:
            os.nice(self._config.nice)
        memory = process.resident_memory
        about_server = status.status_interface(self._record, self._children.living, memory, self._interface)
        interface = about_server if about else self._interface
        serve(connection, interface, self._config, line, about_server, parts.ASPECTS, parts.DIALECTS)

    def _reap(self) -> None:
        while True:
            deaths.shut_for_the_dead(self._workers)
            try:
                pid, outcome, usage = wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            obituary = self._children.ended(pid, outcome, monotonic())
            if obituary is None:
                for attendant in self._attendants:
                    attendant.reaped(pid)
            else:
                deaths.bury(obituary, self._workers.remove(pid), usage.ru_maxrss, self._record, self._config)

    # --- the end ---------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Accept no more, ask the workers to leave when their checkouts are over, and wait for them."""
        if not self._draining:
            self._stop_at = monotonic() + self._config.graceful_timeout
            self._begin_to_end()
            # A worker asks its client, which hangs up when its checkout is over.
            self._workers.send_each(signal.SIGTERM, self._children.to_retire())

    def _leave(self) -> None:
        """A new daemon has come, or is not expected any more: serve who waits at the old sockets, then drain."""
        self._watch_descriptors()
        for listener in self._listeners.values():
            while self._accepting and listener.has_more:
                self._accept(listener)
        self._drain()

    def _stop(self) -> None:
        """Accept no more, and hang up on all workers, by the ladder where they do not hear it."""
        self._stop_at = math.inf
        if not self._stopping:
            self._stopping = True
            self._begin_to_end()
            self._workers.shut_reading()  # so that a worker between calls hears it, too
            self._workers.send(self._children.stop(monotonic()))

    def _begin_to_end(self) -> None:
        if not self._draining:
            self._draining = True
            now = monotonic()
            for attendant in self._attendants:
                attendant.drain(now)
        self._unlisten()

    def _unlisten(self) -> None:
        for descriptor, listener in self._listeners.items():
            if self._accepting:
                self._poll.unregister(descriptor)
            listener.close()
        self._listeners = {}
        self._accepting = False
        self._resume_at = math.inf
        self._watch_descriptors()
