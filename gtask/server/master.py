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
from collections.abc import Collection, Iterator
from posix import fork  # never monkey-patched, while a program that forks a server may have patched os.fork
from time import monotonic

from gtask.server import process, worker
from gtask.server.children import Children, Signal
from gtask.server.config import ServerConfig
from gtask.server.interface import Interface
from gtask.server.listener import Listener

__all__ = ["Master"]

log = logging.getLogger("gtask.server")

STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
PARENT_CHECK = 1.0
"""Seconds between looks whether the parent is still the same, for the case that its pipe does not tell."""


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
        self._children = Children(config.stop_timeout)
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
                self._heed({signal.Signals(number) for number in os.read(wakeup, 4096)})
            elif descriptor in self._listeners:
                self._accept(self._listeners[descriptor])
            elif self._parent is not None and descriptor == self._parent.pipe:
                self._poll.unregister(descriptor)
                self._stop()
        if self._parent is not None and self._parent.is_gone:
            self._stop()
        self._send(self._children.due(monotonic()))

    def _patience(self) -> float | None:
        """Milliseconds until there is something to do even if nothing happens."""
        seconds = self._children.next_due() - monotonic()
        if self._parent is not None and not self._stopping:
            seconds = min(seconds, PARENT_CHECK)
        return None if seconds == math.inf else max(0.0, seconds * 1000)

    def _heed(self, signals: set[signal.Signals]) -> None:
        if signal.SIGCHLD in signals:
            self._reap()
        if signals & STOPPING:
            self._stop()

    def _accept(self, listener: Listener) -> None:
        connection = listener.accept()
        if connection is not None:
            with connection:
                self._fork(connection)

    def _fork(self, connection: socket.socket) -> None:
        process.flush()  # or the worker would write what is buffered here a second time
        # A signal for the worker that comes before it has reset its handlers would wake the master.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = fork()
            if not pid:
                self._become_worker(connection)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._children.forked(pid, monotonic())

    def _become_worker(self, connection: socket.socket) -> None:
        try:
            os.setpgid(0, 0)
            process.reset_signals()
            process.close_descriptors(keep={*self._keep, connection.fileno()})
            process.setproctitle(f"gtask-server: {self._config.name} worker")
            worker.serve(connection, self._interface, self._config)
        finally:
            os._exit(70)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            line = self._children.ended(pid, status, monotonic())
            if line:
                log.warning(line)

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._unlisten()
            self._send(self._children.stop(monotonic()))

    def _unlisten(self) -> None:
        for descriptor, listener in self._listeners.items():
            self._poll.unregister(descriptor)
            listener.close()
        self._listeners = {}

    @staticmethod
    def _send(signals: list[Signal]) -> None:
        for order in signals:
            with contextlib.suppress(ProcessLookupError):
                os.kill(order.pid, order.number)

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
