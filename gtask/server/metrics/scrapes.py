"""Answers those who ask for metrics: a helper, a process that is forked for one connection, answers it and ends.

The master only accepts and forks. So it parses no byte of a stranger, and waits for none. The helper has the record as
it was at the fork, sees the scoreboard, and is killed if it takes too long.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
from collections.abc import Collection
from time import monotonic

from gtask.errors import reason_of
from gtask.server import comm, descriptors, process
from gtask.server.listener import Listener
from gtask.server.master.attendants import Attendant
from gtask.server.master.silent import Silent, has_spoken
from gtask.server.metrics import status
from gtask.server.metrics import text as metrics
from gtask.server.metrics.status import Living, Record
from gtask.server.originals import set_handler, waitpid
from gtask.server.seldom import Seldom

__all__ = ["Scrapes"]

log = logging.getLogger("gtask.server")

HELPERS = 4
"""How many helpers there are at a time. Further connections wait."""

STRANGERS = 16
"""How many connections may have sent nothing yet; one more closes the oldest."""

DEADLINE = 5.0
"""Seconds that a helper has, for all that it does."""

PAUSE = 10.0
"""Seconds without a look at the listeners when there are no descriptors or processes to be had."""


class Scrapes(Attendant):
    """The connections that ask for metrics, in the master.

    Args:
        listeners: where such connections come from; none, or more.
        record: of the server.
        living: gives the workers.
    """

    def __init__(self, listeners: Collection[Listener], record: Record, living: Living) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._record = record
        self._living = living
        self._helpers: set[int] = set()
        self._silent = Silent(STRANGERS, DEADLINE)
        self._seldom = Seldom()
        self._is_paused = False
        self._resume_at = math.inf  # in a pause; infinite for the end of a helper

    @property
    def descriptors(self) -> Collection[int]:
        return () if self._is_paused else (*self._listeners, *self._silent.descriptors)

    @property
    def under_way(self) -> bool:
        return bool(self._helpers)

    def next_due(self, now: float) -> float:
        return min(self._resume_at, self._silent.next_due())

    def begin(self, now: float) -> None:
        for listener in self._listeners.values():
            log.info("%s tells its metrics at %s", self._record.name, listener.address)

    def turn(self, now: float, ready: Collection[int]) -> None:
        if now >= self._resume_at:
            self._resume()
        for connection in self._silent.overdue(now):
            connection.close()
        for descriptor in ready:
            if self._is_paused:  # one may have begun just before
                return
            if descriptor in self._listeners:
                self._accept(self._listeners[descriptor], now)
            else:
                for connection in self._silent.spoken([descriptor]):
                    self._fork(connection, now)

    def drain(self, now: float) -> None:
        self.unlisten()

    def unlisten(self) -> None:
        """Close the listeners, and those who have said nothing; helpers finish what they do."""
        self._silent.close()
        for listener in self._listeners.values():
            listener.close()
        self._listeners = {}
        self._resume()

    def reaped(self, pid: int) -> None:
        if pid in self._helpers:
            self._helpers.remove(pid)
            if self._resume_at == math.inf:
                self._resume()

    def close(self) -> None:
        """Close the listeners, end the helpers that there are, and reap them."""
        self.unlisten()
        while self._helpers:
            pid = self._helpers.pop()
            os.kill(pid, signal.SIGKILL)
            waitpid(pid, 0)

    def _accept(self, listener: Listener, now: float) -> None:
        """A connection waits at this listener: fork a helper for it when it has said something."""
        try:
            connection = listener.accept()
        except OSError as error:  # no descriptors
            self._give_up(error, now)
            return
        if connection is None:
            return
        refusal = listener.refuses(connection)
        if refusal:
            self._record.refused += 1
            more = self._seldom.more(now)
            if more is not None:
                log.warning("refused: %s%s", refusal, more)
            connection.close()
        elif has_spoken(connection):
            self._fork(connection, now)
        else:
            oldest = self._silent.add(connection, now)
            if oldest is not None:
                oldest.close()

    def _give_up(self, error: OSError, now: float) -> None:
        log.warning("metrics cannot be told now: %s", reason_of(error))
        self._pause(now + PAUSE)

    def _fork(self, connection: socket.socket, now: float) -> None:
        """Fork a helper that answers this connection."""
        parent = os.getpid()
        with connection:
            try:
                self._helpers.add(process.fork_child(lambda: self._help(connection, parent)))
            except OSError as error:  # no processes
                self._give_up(error, now)
                return
        if len(self._helpers) >= HELPERS:
            self._pause(math.inf)

    def _pause(self, until: float) -> None:
        self._is_paused, self._resume_at = True, until

    def _resume(self) -> None:
        self._is_paused, self._resume_at = False, math.inf

    # --- in the helper ---------------------------------------------------------------------------------

    def _help(self, connection: socket.socket, parent: int) -> None:
        try:
            process.end_with(parent)
            process.reset_signals(unblock=False)
            set_handler(signal.SIGINT, signal.SIG_DFL)
            set_handler(signal.SIGALRM, signal.SIG_DFL)  # the signal ends the helper, also in a system call
            signal.setitimer(signal.ITIMER_REAL, DEADLINE)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            descriptors.close_descriptors(keep={0, 1, 2, connection.fileno()})
            process.setproctitle(f"gtask-server: {self._record.name} metrics")
            comm.show(self._record.name, "s")
            self._answer(connection)
        except OSError as error:  # the asker is gone
            log.debug("the metrics were not heard: %s", error)
        except BaseException:  # the process ends in any case
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
