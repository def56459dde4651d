"""Why a worker wants to be retired, and when it asks its client for that: after a call or a checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gtask.server import process

if TYPE_CHECKING:
    from gtask.server.worker.worker import Worker

__all__ = ["Ended", "Retirement"]


class Ended(BaseException):
    """The worker is to read nothing more. A request that has come in this moment was not begun."""


class Retirement:
    """The retirement of one worker.

    Args:
        worker: the worker.

    Attributes:
        reason: why it wants to be retired; "" if it does not.
        may_be_due: whether :meth:`look` is to be called after each message.
    """

    __slots__ = ("_max_memory", "_worker", "may_be_due", "reason")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._max_memory = worker.config.max_memory
        self.may_be_due = self._max_memory is not None
        self.reason = ""

    def want(self, reason: str) -> None:
        """The worker wants to be retired from now on, for this reason unless it has one already."""
        self.reason = self.reason or reason
        self.may_be_due = True

    def ask(self) -> None:
        """Ask the client to retire the worker, if there is a reason."""
        if self.reason:
            self._worker.dialect.retire(self._worker, self.reason)

    def look(self) -> None:
        """After a message was heard: is the worker too large, or has it been told to retire?"""
        limit = self._max_memory
        if limit is not None and not self.reason and process.resident_memory() > limit:
            self.want(f"more than {limit // (1 << 20)} MiB of memory")
        self.ask()

    def end(self) -> None:
        """The worker reads nothing more. If that was its master's wish it tells its client, as its last message."""
        worker = self._worker
        if worker.board.is_shut and worker.interruption.error is None:
            worker.dialect.end(worker, self.reason)

    def on_term(self, number: int, frame: object) -> None:
        """The handler of SIGTERM: ask as soon as no reply is half written.

        Raises:
            Ended: the worker waits in no checkout, and its master has waited for the client's answer.
        """
        worker, board = self._worker, self._worker.board
        self.want("others wait for a worker" if board.is_wanted_back else "the server drains")
        if worker.is_waiting and worker.dialect.conversation.state == "idle":
            if board.is_shut and not board.lent:
                worker.is_waiting = False
                raise Ended
            self.ask()
