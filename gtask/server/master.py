"""The master: accept, fork a worker for each connection, reap, until it is told to stop.

A plain single-threaded loop around ``poll``. It runs no code of the application and parses no byte of a
client; what is to be done to which worker is decided in :mod:`gtask.server.children`.
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
from collections.abc import Collection, Iterator
from posix import fork  # never monkey-patched, while a program that forks a server may have patched os.fork
from time import monotonic
from typing import NamedTuple

from gtask.server import process, worker
from gtask.server.children import Children, Obituary, Signal
from gtask.server.config import ServerConfig
from gtask.server.interface import Interface
from gtask.server.listener import Listener
from gtask.server.scoreboard import Slot
from gtask.wire.lastwords import last_words
from gtask.wire.messages import Rip

__all__ = ["Master"]

log = logging.getLogger("gtask.server")

STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
HANG_UP = getattr(select, "POLLRDHUP", 0)
"""The event of a peer that hung up; no event while data flows. POLLHUP comes unasked, and is all there is elsewhere."""

PARENT_CHECK = 1.0
"""Seconds between looks whether the parent is still the same, for the case that its pipe does not tell."""


class _Held(NamedTuple):
    """What the master holds of a worker: a duplicate of its connection, and its line of the scoreboard."""

    connection: socket.socket
    slot: Slot


class Master:
    """Serves until it is stopped.

    Args:
        config: the server's options.
        interface: what the workers call.
        listeners: where connections come from.
        keep: descriptors that the application opened and its workers need.
        parent: the server stops when this process ends; None for a server of its own.
    """

    def __init__(
        self,
        config: ServerConfig,
        interface: Interface,
        listeners: list[Listener],
        keep: Collection[int] = (),
        parent: process.Parent | None = None,
    ) -> None:
        self._config = config
        self._interface = interface
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._keep = {0, 1, 2, *keep}
        self._parent = parent
        self._children = Children(config.hung_worker_timeout, config.stop_timeout)
        self._workers: dict[int, _Held] = {}
        self._workers_by_socket: dict[int, int] = {}
        self._poll = select.poll()
        self._stopping = False

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGQUIT comes, or the parent dies; then stop the workers."""
        addresses = ", ".join(str(listener.address) for listener in self._listeners.values())
        process.setproctitle(f"gtask-server: {self._config.name} master [{addresses}]")
        gc.collect()
        gc.freeze()  # what is there now is never collected, so collecting does not unshare its pages
        with self._signals() as wakeup:
            for descriptor in self._listeners:
                self._poll.register(descriptor, select.POLLIN)
            self._poll.register(wakeup, select.POLLIN)
            if self._parent is not None:
                self._parent.watch()
                self._poll.register(self._parent.pipe, select.POLLIN)
            for lacking in process.substitutes():
                log.info("this system has %s", lacking)
            log.info("%s is listening at %s", self._config.name, addresses)
            try:
                while not (self._stopping and not self._children):
                    self._turn(wakeup)
            finally:
                self._unlisten()
        log.info("%s has stopped", self._config.name)

    def _turn(self, wakeup: int) -> None:
        for descriptor, _ in self._poll.poll(self._patience()):
            if descriptor == wakeup:
                self._heed(set(os.read(wakeup, 4096)))
            elif descriptor in self._listeners:
                self._accept(self._listeners[descriptor])
            elif descriptor in self._workers_by_socket:
                self._hear_hang_up(descriptor)
            elif self._parent is not None and descriptor == self._parent.pipe:
                self._poll.unregister(descriptor)
                self._stop()
        if self._parent is not None and self._parent.is_gone:
            self._stop()
        self._send(self._children.due(monotonic()))

    def _patience(self) -> float | None:
        """Milliseconds until there is something to do even if nothing happens."""
        now = monotonic()
        seconds = self._children.next_due(now) - now
        if self._parent is not None and not self._stopping:
            seconds = min(seconds, PARENT_CHECK)
        return None if seconds == math.inf else max(0.0, math.ceil(seconds * 1000))

    def _heed(self, signals: set[int]) -> None:
        if signal.SIGCHLD in signals:
            self._reap()
        if signals & STOPPING:
            self._stop()

    def _accept(self, listener: Listener) -> None:
        connection = listener.accept()
        if connection is not None:
            self._fork(connection)

    def _fork(self, connection: socket.socket) -> None:
        process.flush()  # or the worker would write what is buffered here a second time
        now = monotonic()
        slot = Slot(now)
        # A signal for the worker that comes before it has reset its handlers would wake the master.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = fork()
            if not pid:
                self._become_worker(connection, slot)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._children.forked(pid, now, slot.view)
        self._workers[pid] = _Held(connection, slot)
        self._workers_by_socket[connection.fileno()] = pid
        self._poll.register(connection, HANG_UP)

    def _become_worker(self, connection: socket.socket, slot: Slot) -> None:
        try:
            os.setpgid(0, 0)
            process.reset_signals()
            process.close_descriptors(keep={*self._keep, connection.fileno(), slot.stacks})
            process.setproctitle(f"gtask-server: {self._config.name} worker")
            worker.serve(connection, self._interface, self._config, slot)
        finally:
            os._exit(70)

    def _hear_hang_up(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._send(self._children.hung_up(self._workers_by_socket.pop(descriptor), monotonic()))

    def _reap(self) -> None:
        while True:
            self._refuse_for_the_dead()
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            obituary = self._children.ended(pid, status, monotonic())
            if obituary is not None:
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
        if obituary.orphans:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(obituary.pid, signal.SIGKILL)
        if self._workers_by_socket.pop(held.connection.fileno(), None) is not None:
            self._poll.unregister(held.connection)
        if obituary.line:
            log.warning(obituary.line)
            rip = Rip(
                pid=obituary.pid,
                exitcode=obituary.exitcode,
                signal=obituary.signal,
                method=obituary.method,
                elapsed=obituary.elapsed,
                maxrss=maxrss // 1024 if sys.platform == "darwin" else maxrss,  # which counts bytes
                stacks=held.slot.read_stacks(),
                why=obituary.why,
            )
            with contextlib.suppress(OSError):  # nobody has to hear them
                held.connection.send(held.slot.take_held() + last_words(rip), socket.MSG_DONTWAIT)
                # A worker that was forked just now has this duplicate, too, until it has closed it.
                held.connection.shutdown(socket.SHUT_RDWR)
                while held.connection.recv(65536, socket.MSG_DONTWAIT):
                    pass  # to close it with something unread would reset it, and the last words be lost
        held.connection.close()
        held.slot.close()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._unlisten()
            for held in self._workers.values():
                with contextlib.suppress(OSError):
                    held.connection.shutdown(socket.SHUT_RD)  # so a worker between calls hears it, too
            self._send(self._children.stop(monotonic()))

    def _unlisten(self) -> None:
        for descriptor, listener in self._listeners.items():
            self._poll.unregister(descriptor)
            listener.close()
        self._listeners = {}

    def _send(self, signals: list[Signal]) -> None:
        for order in signals:
            if order.aim:
                self._workers[order.pid].slot.aim(order.aim)
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if order.group else os.kill)(order.pid, order.number)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        """Signals become bytes in a pipe, for the loop to read; yields the reading end."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in {*STOPPING, signal.SIGCHLD}}
        wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(reading)
            os.close(writing)
