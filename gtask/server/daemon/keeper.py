"""The keeper: the daemon's stable process. It owns the sockets, and starts and replaces the masters that serve on them.

The keeper loads no application and reads nothing from a client. It only waits for signals, for the masters' word that
they are ready, and for their ends. :mod:`gtask.server.daemon.succession` decides what follows.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
from collections.abc import Callable
from time import monotonic

from gtask.errors import reason_of
from gtask.server import comm, descriptors, output, process, users
from gtask.server.config import SIGNALS, ServerConfig
from gtask.server.daemon import systemd
from gtask.server.daemon.restless import IN_A_ROW, Restless
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
from gtask.server.daemon.words import Changed, Ready, heard
from gtask.server.listener import AddressUnavailable, Listener
from gtask.server.originals import POLLIN, close, handler_of, poll, read, waitpid

__all__ = ["Keeper"]

log = logging.getLogger("gtask.server.keeper")

LOOK = 1.0
"""Seconds between looks: at the sockets, at the parent (a sibling may hold its pipe), and for lost lines to be told."""


class Keeper:
    """Keeps a master alive until a signal stops it.

    Args:
        config: the server's options.
        listeners: the sockets at which the masters accept connections.
        command: gives the command of a master. Its arguments are two descriptors that the master inherits, the pipe for
            its readiness and the pipe that ends with this process, and the number of masters before it.
        on_ready: called when the first master serves.
        parent: the program whose end is the end of this server, too; None for a daemon.
        directory: where the masters start; "" for where this process is.
    """

    def __init__(
        self,
        config: ServerConfig,
        listeners: list[Listener],
        command: Callable[[int, int, int], list[str]],
        on_ready: Callable[[], None] = lambda: None,
        parent: process.Parent | None = None,
        directory: str = "",
    ) -> None:
        self._config = config
        self._listeners = listeners
        self._command = command
        self._on_ready = on_ready
        self._directory = directory
        self._place = os.path.realpath(directory)
        self._restless = Restless()
        self._had_terminal = process.has_terminal() and not config.daemon
        self._look_at = monotonic() + LOOK
        self._parent = parent
        self._succession = Succession()
        self._pipes: dict[int, int] = {}
        self._with_old_log: set[int] = set()  # masters that started before the log file was opened anew
        self._poll = poll()
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
        with process.signals_as_bytes({*_heeded(), signal.SIGCHLD}) as wakeup:
            self._poll.register(wakeup, POLLIN)
            if self._parent is not None:
                self._poll.register(self._parent.pipe, POLLIN)
            self._carry_out(self._succession.begin())
            try:
                while not self._succession.is_over:
                    self._turn(wakeup)
            finally:
                for listener in self._listeners:
                    listener.close()
        if self._succession.failed:
            return 1
        log.info("%s has ended", self._config.name)
        return 0

    def _turn(self, wakeup: int) -> None:
        seconds = min(min(self._succession.next_due(), self._look_at) - monotonic(), self._watchdog)
        patience = None if seconds == math.inf else max(0.0, math.ceil(seconds * 1000))
        for descriptor, _ in self._poll.poll(patience):
            if descriptor == wakeup:
                self._heed(set(read(wakeup, 4096)))
            elif descriptor in self._pipes:
                self._hear(descriptor)
            elif self._parent is not None and not read(self._parent.pipe, 4096):
                self._end_with_parent()
        if monotonic() >= self._look_at:
            self._look_at = monotonic() + LOOK
            self._look()
        self._carry_out(self._succession.tick(monotonic()))
        if self._watchdog < math.inf and self._succession.reloads >= 0:  # nobody waits for it before READY
            systemd.notify("WATCHDOG=1")

    def _heed(self, signals: set[int]) -> None:
        now, succession = monotonic(), self._succession
        if signal.SIGCHLD in signals:
            self._reap()
        if signal.SIGUSR1 in signals and self._config.log_file:
            try:
                config = self._config
                owner = users.identity(config.user, config.group) if config.user or config.group else None
                descriptors.reopen(config.log_file, owner)
            except OSError as error:
                log.warning("the log file %s cannot be opened anew: %s", self._config.log_file, error.strerror)
            for pid in succession.pids(SERVING, DRAINING):
                _send(pid, signal.SIGUSR1)
            self._with_old_log.update(succession.pids(STARTING))  # the signal would end them
        if signal.SIGUSR2 in signals:
            for pid in succession.pids(SERVING):
                _send(pid, signal.SIGUSR2)
        if signal.SIGHUP in signals and self._had_terminal and not process.has_terminal():
            log.info("the terminal was closed")
            signals = {*signals, signal.SIGTERM}
        if signals & {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}:
            systemd.notify("STOPPING=1", "STATUS=stopping")
            self._carry_out(succession.stop(now, at_once=bool(signals & {signal.SIGINT, signal.SIGQUIT})))
        elif signal.SIGHUP in signals and not succession.stopping:
            self._reload()

    def _reload(self) -> None:
        place = os.path.realpath(self._directory)
        log.info("%s reloads%s", self._config.name, f", now in {place}" if place != self._place else "")
        self._place = place
        systemd.reloading()
        self._carry_out(self._succession.reload())

    def _end_with_parent(self) -> None:
        """The program that the server belongs to has ended, or has told the server to stop."""
        parent, self._parent = self._parent, None
        if parent is not None:
            self._poll.unregister(parent.pipe)
            self._carry_out(self._succession.stop(monotonic(), at_once=True))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._carry_out(self._succession.exited(pid, process.how_it_ended(status), monotonic()))

    def _hear(self, descriptor: int) -> None:
        """A master has said something, or ends."""
        pid = self._pipes[descriptor]
        message = read(descriptor, 65536)
        if not message:
            del self._pipes[descriptor]
            self._poll.unregister(descriptor)
            close(descriptor)
            self._with_old_log.discard(pid)
        for word in map(heard, message.splitlines()):
            if isinstance(word, Ready) and pid in self._succession.pids(STARTING):
                self._hear_ready(pid, word)
            elif isinstance(word, Changed) and not self._succession.stopping:
                self._hear_wish(word.path)

    def _hear_ready(self, pid: int, ready: Ready) -> None:
        """A master serves."""
        if pid in self._with_old_log:
            self._with_old_log.discard(pid)
            _send(pid, signal.SIGUSR1)
        self._restless.ready(monotonic())
        self._carry_out(self._succession.ready(pid, monotonic(), ready.graceful_timeout, ready.stop_timeout))

    def _hear_wish(self, path: str) -> None:
        """A master has seen this file change, and wants to be replaced."""
        if self._restless.asked(monotonic(), bool(self._succession.pids(STARTING))):
            self._reload()
        elif self._restless.count == IN_A_ROW + 1:
            log.warning(
                "no reload because of %s: it has changed at each of the last %d, so the application seems to write it "
                "when it is loaded. Have it write elsewhere",
                path,
                IN_A_ROW,
            )

    def _look(self) -> None:
        """Make sockets anew that somebody has removed, and tell what was lost of the log."""
        if output.are_lost():
            output.tell_losses()
        if self._parent is not None and self._parent.is_gone:
            self._end_with_parent()
        if self._succession.stopping:
            return
        lost = [listener for listener in self._listeners if listener.is_lost]
        for listener in lost:
            self._bind_again(listener)
        if any(not listener.is_lost for listener in lost):
            self._reload()  # the master that serves has the socket that nobody finds

    def _bind_again(self, listener: Listener) -> None:
        try:
            listener.bind_again()
            if self._config.user or self._config.group:
                listener.give_to(*users.identity(self._config.user, self._config.group))
            log.warning("somebody has removed the socket %s: it was made anew", listener.address)
        except (AddressUnavailable, OSError) as error:
            log.warning("somebody has removed the socket %s, and it cannot be made anew: %s", listener.address, error)

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
        try:
            reading, pid = self._spawn()
        except OSError as error:
            why = f"{error.filename}: {reason_of(error)}" if error.filename else reason_of(error)
            self._carry_out(self._succession.not_spawned(why, monotonic()))
            return
        self._pipes[reading] = pid
        self._poll.register(reading, POLLIN)
        self._carry_out(self._succession.started(pid, monotonic()))

    def _spawn(self) -> tuple[int, int]:
        """Start a master; gives the pipe from which it is heard, and its process id."""
        if self._directory:
            os.chdir(self._directory)
        reading, writing = os.pipe()
        passed = [writing, self._keep_alive[0], *(listener.fileno() for listener in self._listeners)]
        try:
            command = self._command(writing, self._keep_alive[0], self._succession.reloads + 1)
            return reading, process.spawn(command, passed)
        except BaseException:  # whatever it was, there is no master to hear
            close(reading)
            raise
        finally:
            close(writing)

    def _say(self, say: Say) -> None:
        if say.ready:
            self._take_over()
        log.log(logging.WARNING if say.warning else logging.INFO, "%s", say.text)
        if say.ready:
            systemd.notify("READY=1", f"STATUS={say.text}")
            if not self._succession.reloads:
                self._on_ready()
        elif self._succession.pids(SERVING):
            systemd.notify("READY=1", f"STATUS={say.text}")  # a reload has failed, and is over

    def _take_over(self) -> None:
        """Take the paths from a master that has lost its keeper, if one serves there."""
        try:
            for listener in self._listeners:
                listener.take_over()
        except AddressUnavailable as error:
            log.warning("%s", error)


def _heeded() -> set[signal.Signals]:
    """The signals that the keeper heeds. nohup has SIGHUP ignored."""
    return {number for number in SIGNALS if number != signal.SIGHUP or handler_of(number) != signal.SIG_IGN}


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
