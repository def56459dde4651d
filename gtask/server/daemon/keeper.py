"""The keeper: the daemon's stable process. It owns the sockets, and starts and replaces the masters that serve on them.

The keeper loads no application and reads nothing from a client. It only waits for signals, for the masters' word that
they are ready, and for their ends. :mod:`gtask.server.daemon.succession` decides what follows.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
from collections.abc import Callable
from time import monotonic

from gtask.errors import reason_of
from gtask.server import comm, process
from gtask.server.config import SIGNALS, ServerConfig
from gtask.server.daemon import systemd
from gtask.server.daemon.succession import (
    DRAINING,
    SERVING,
    STARTING,
    Action,
    Drain,
    Kill,
    Quit,
    Say,
    Start,
    Succession,
)
from gtask.server.listener import Listener

__all__ = ["Keeper"]

log = logging.getLogger("gtask.server.keeper")

PARENT_LOOK = 1.0
"""Seconds between looks whether the parent is still the same, in case a sibling holds the other end of its pipe."""


class Keeper:
    """Keeps a master alive until a signal stops it.

    Args:
        config: the server's options.
        listeners: the sockets at which the masters accept connections.
        command: gives the command of a master. Its arguments are two descriptors that the master inherits, the pipe for
            its readiness and the pipe that ends with this process, and the number of masters before it.
        on_ready: called when the first master serves.
        parent: the program whose end is the end of this server, too; None for a daemon.
    """

    def __init__(
        self,
        config: ServerConfig,
        listeners: list[Listener],
        command: Callable[[int, int, int], list[str]],
        on_ready: Callable[[], None] = lambda: None,
        parent: process.Parent | None = None,
    ) -> None:
        self._config = config
        self._listeners = listeners
        self._command = command
        self._on_ready = on_ready
        self._parent = parent
        self._succession = Succession()
        self._ready_pipes: dict[int, int] = {}
        self._with_old_log: set[int] = set()  # masters that started before the log file was opened anew
        self._poll = select.poll()
        self._keep_alive = os.pipe()
        interval = systemd.watchdog_interval()
        self._watchdog = interval / 2 if interval else math.inf

    def run(self) -> int:
        """Keep a master alive until a signal ends it. When this returns, these signals are blocked.

        Returns:
            the exit status: 0 after an orderly stop, 1 if the first master could not serve.
        """
        addresses = ", ".join(str(listener.address) for listener in self._listeners)
        process.setproctitle(f"gtask-server: {self._config.name} keeper [{addresses}]")
        comm.show(self._config.name, "k")
        with process.signals_as_bytes({*SIGNALS, signal.SIGCHLD}) as wakeup:
            self._poll.register(wakeup, select.POLLIN)
            if self._parent is not None:
                self._poll.register(self._parent.pipe, select.POLLIN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._carry_out(self._succession.begin())
            try:
                while not self._succession.is_over:
                    self._turn(wakeup)
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # no handler heeds them any more
                for listener in self._listeners:
                    listener.close()
        if self._succession.failed:
            return 1
        log.info("%s has ended", self._config.name)
        return 0

    def _turn(self, wakeup: int) -> None:
        seconds = min(self._succession.next_due() - monotonic(), self._watchdog)
        if self._parent is not None:
            seconds = min(seconds, PARENT_LOOK)
        patience = None if seconds == math.inf else max(0.0, math.ceil(seconds * 1000))
        for descriptor, _ in self._poll.poll(patience):
            if descriptor == wakeup:
                self._heed(set(os.read(wakeup, 4096)))
            elif descriptor in self._ready_pipes:
                self._hear_ready(descriptor)
            else:
                self._end_with_parent()
        if self._parent is not None and self._parent.is_gone:
            self._end_with_parent()
        self._carry_out(self._succession.tick(monotonic()))
        if self._watchdog < math.inf:
            systemd.notify("WATCHDOG=1")

    def _heed(self, signals: set[int]) -> None:
        now, succession = monotonic(), self._succession
        if signal.SIGCHLD in signals:
            self._reap()
        if signal.SIGUSR1 in signals and self._config.log_file:
            try:
                process.reopen(self._config.log_file, self._config.user, self._config.group)
            except OSError as error:
                log.warning("the log file %s cannot be opened anew: %s", self._config.log_file, error.strerror)
            for pid in succession.pids(SERVING, DRAINING):
                _send(pid, signal.SIGUSR1)
            self._with_old_log.update(succession.pids(STARTING))  # the signal would end them
        if signal.SIGUSR2 in signals:
            for pid in succession.pids(SERVING):
                _send(pid, signal.SIGUSR2)
        if signals & {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}:
            systemd.notify("STOPPING=1", "STATUS=stopping")
            self._carry_out(succession.stop(now, at_once=bool(signals & {signal.SIGINT, signal.SIGQUIT})))
        elif signal.SIGHUP in signals and not succession.stopping:
            log.info("%s reloads", self._config.name)
            systemd.reloading()
            self._carry_out(succession.reload())

    def _end_with_parent(self) -> None:
        """The program that the server belongs to has ended, or has told the server to stop."""
        parent, self._parent = self._parent, None
        if parent is not None:
            self._poll.unregister(parent.pipe)
            self._carry_out(self._succession.stop(monotonic(), at_once=True))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._carry_out(self._succession.exited(pid, process.how_it_ended(status), monotonic()))

    def _hear_ready(self, descriptor: int) -> None:
        pid = self._ready_pipes.pop(descriptor)
        self._poll.unregister(descriptor)
        message = os.read(descriptor, 100)
        os.close(descriptor)
        if message:
            if pid in self._with_old_log:
                _send(pid, signal.SIGUSR1)
            graceful_timeout, stop_timeout = map(float, message.split())  # of its configuration, which may be newer
            self._carry_out(self._succession.ready(pid, monotonic(), graceful_timeout, stop_timeout))
        self._with_old_log.discard(pid)

    # --- acting ----------------------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                self._start()
            elif isinstance(action, Say):
                self._say(action)
            elif isinstance(action, Drain):
                _send(action.pid, signal.SIGTERM)
            elif isinstance(action, Quit):
                _send(action.pid, signal.SIGKILL if action.at_once else signal.SIGQUIT)
            elif isinstance(action, Kill):
                log.warning("master %d does not end; it is killed", action.pid)
                _send(action.pid, signal.SIGKILL)

    def _start(self) -> None:
        reading, writing = os.pipe()
        passed = [writing, self._keep_alive[0], *(listener.fileno() for listener in self._listeners)]
        command = self._command(writing, self._keep_alive[0], self._succession.reloads + 1)
        try:
            pid = process.spawn(command, passed)
        except OSError as error:
            os.close(reading)
            self._carry_out(self._succession.not_spawned(reason_of(error), monotonic()))
            return
        finally:
            os.close(writing)
        self._ready_pipes[reading] = pid
        self._poll.register(reading, select.POLLIN)
        self._carry_out(self._succession.started(pid, monotonic()))

    def _say(self, say: Say) -> None:
        log.log(logging.WARNING if say.warning else logging.INFO, "%s", say.text)
        if say.ready:
            systemd.notify("READY=1", f"STATUS={say.text}")
            if not self._succession.reloads:
                self._on_ready()
        elif self._succession.pids(SERVING):
            systemd.notify("READY=1", f"STATUS={say.text}")  # a reload has failed, and is over


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
