"""Answers whoever asks for the metrics: each connection is answered by a helper, a process that is forked for it.

The master only accepts and forks. So it parses no byte of a stranger here either, and waits for none; the helper has
the record as it was at the fork, sees the scoreboard, and is killed if it takes too long.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
from collections.abc import Collection
from time import monotonic

from gtask.server import process
from gtask.server.listener import Listener
from gtask.server.metrics import status
from gtask.server.metrics import text as metrics
from gtask.server.metrics.status import Living, Record

__all__ = ["Scrapes"]

log = logging.getLogger("gtask.server")

HELPERS = 4
"""How many helpers there are at a time. Further connections wait in the backlog."""

DEADLINE = 5.0
"""Seconds that a helper has, for all that it does."""

PAUSE = 10.0
"""Seconds without a look at the listeners when there are no descriptors or processes to be had."""


class Scrapes:
    """The connections of those who ask for metrics, in the master.

    Args:
        listeners: where they connect; none, or more.
        poll: the master's; it has the listeners in it while they are looked at.
        record: of the server.
        living: gives the workers.

    Attributes:
        resume_at: when to listen again after a pause; infinite for not by itself.
    """

    def __init__(self, listeners: Collection[Listener], poll: select.poll, record: Record, living: Living) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._poll = poll
        self._record = record
        self._living = living
        self._helpers: set[int] = set()
        self._listening = False
        self.resume_at = math.inf

    @property
    def addresses(self) -> list[str]:
        """Where the listeners are."""
        return [str(listener.address) for listener in self._listeners.values()]

    @property
    def under_way(self) -> int:
        """How many helpers there are."""
        return len(self._helpers)

    def listen(self) -> None:
        """Look at the listeners from now on."""
        self.resume_at = math.inf
        if not self._listening:
            self._listening = True
            for descriptor in self._listeners:
                self._poll.register(descriptor, select.POLLIN)

    def unlisten(self) -> None:
        """Close the listeners; helpers finish what they do."""
        self._look_away(math.inf)
        for listener in self._listeners.values():
            listener.close()
        self._listeners = {}

    def hears(self, descriptor: int) -> bool:
        """Whether this is one of the listeners, and looked at."""
        return self._listening and descriptor in self._listeners

    def accept(self, descriptor: int) -> None:
        """A connection waits at this listener: fork a helper for it."""
        listener = self._listeners[descriptor]
        try:
            connection = listener.accept()
            if connection is None:
                return
            with connection:
                refusal = listener.refuses(connection)
                if refusal:
                    self._record.refused += 1
                    log.warning("refused: %s", refusal)
                    return
                parent = os.getpid()
                self._helpers.add(process.fork_child(lambda: self._help(connection, parent)))
        except OSError as error:  # no descriptors, or no processes
            log.warning("metrics cannot be told now: %s", (error.strerror or str(error)).lower())
            self._look_away(PAUSE)
            return
        if len(self._helpers) >= HELPERS:
            self._look_away(math.inf)

    def ended(self, pid: int) -> None:
        """A child of the master was reaped, and is no worker."""
        if pid in self._helpers:
            self._helpers.remove(pid)
            if self.resume_at == math.inf:
                self.listen()

    def cut_off(self) -> None:
        """End the helpers that there are, and reap them."""
        while self._helpers:
            pid = self._helpers.pop()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _look_away(self, seconds: float) -> None:
        self.resume_at = monotonic() + seconds
        if self._listening:
            self._listening = False
            for descriptor in self._listeners:
                self._poll.unregister(descriptor)

    # --- in the helper ---------------------------------------------------------------------------------

    def _help(self, connection: socket.socket, parent: int) -> None:
        try:
            process.end_with(parent)
            process.reset_signals(unblock=False)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends it, whatever it waits for
            signal.setitimer(signal.ITIMER_REAL, DEADLINE)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            process.close_descriptors(keep={0, 1, 2, connection.fileno()})
            process.setproctitle(f"gtask-server: {self._record.name} metrics")
            self._answer(connection)
        except OSError as error:  # whoever asked is gone
            log.debug("the metrics were not heard: %s", error)
        except BaseException:  # whatever it was, the process ends
            log.exception("the metrics could not be told")
        process.flush()
        os._exit(0)

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while not metrics.is_complete(head):
            piece = connection.recv(metrics.LIMIT)
            if not piece:
                break
            head += piece
        if not head:
            return
        connection.sendall(metrics.answer(head, self._text))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):  # to close it with something unread would reset it, and the answer be lost
            pass

    def _text(self) -> str:
        return metrics.render(status.snapshot(self._record, self._living, process.resident_memory, monotonic()))
