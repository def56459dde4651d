"""The process of a worker: its signals, and its exit status. It serves one connection, and ends."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from gtask.errors import Interrupted, ProtocolError
from gtask.server import descriptors, process
from gtask.server.originals import handler_of, set_handler
from gtask.server.scoreboard import VIOLATIONS
from gtask.server.worker.greeting import greet
from gtask.server.worker.worker import Worker

if TYPE_CHECKING:
    from gtask.aspects.aspect import WorkerAspectFactory
    from gtask.server.config import ServerConfig
    from gtask.server.scoreboard import BoardLine
    from gtask.server.worker.dialect import DialectFactory
    from gtask.server.worker.interface import Interface

__all__ = ["serve"]

Handler = Callable[[int, object], None]

log = logging.getLogger("gtask.server")


def serve(
    sock: socket.socket,
    interface: Interface,
    config: ServerConfig,
    board: BoardLine,
    status_interface: Interface,
    aspects: Sequence[WorkerAspectFactory],
    dialects: Sequence[DialectFactory],
) -> NoReturn:
    """Serve one connection in this freshly forked process, then end the process, whatever happens.

    Args:
        sock: the connection, blocking.
        interface: what to call; its setup has not run.
        config: the server's options.
        board: this worker's line of the scoreboard.
        status_interface: what to call instead if the client asks about the server.
        aspects: what calls may have beside arguments and value; see :mod:`gtask.aspects.aspect`.
        dialects: the languages of clients; see :mod:`gtask.server.worker.dialect`.
    """
    status = 0
    try:
        faulthandler.enable(board.stacks)
        if config.limit_memory is not None:
            process.limit_memory(config.limit_memory)
        worker = Worker(sock, interface, config, board, aspects)
        handlers: dict[int, Handler] = {
            signal.SIGALRM: worker.interruption.on_alarm,
            signal.SIGTERM: worker.retirement.on_term,
        }
        if config.log_file:
            handlers[signal.SIGUSR1] = _reopener(config.log_file)
        _handle(handlers)
        messages = greet(worker, sock, dialects, status_interface)
        if messages is not None:
            worker.run(messages)
    except BaseException as error:  # whatever the hooks raise: the log has it, and the process ends
        status = 1
        status = _status(error, board)
    finally:
        with contextlib.suppress(BaseException):
            process.flush()
        os._exit(status)


def _handle(handlers: Mapping[int, Handler]) -> None:
    """Have this process handle signals, and let come those that its master has sent meanwhile.

    In processes that the application forks, these signals mean what they mean anywhere.

    Args:
        handlers: a handler for each signal's number.
    """
    for number, handler in handlers.items():
        set_handler(number, handler)

    def forget() -> None:
        for number, handler in handlers.items():
            if handler_of(number) == handler:  # not if the application has its own
                set_handler(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=forget)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _reopener(log_file: str) -> Handler:
    """A handler that opens the log file anew. If that fails nothing happens here: the master says so."""

    def on_usr1(number: int, frame: object) -> None:
        with contextlib.suppress(OSError):
            descriptors.reopen(log_file)

    return on_usr1


def _status(error: BaseException, board: BoardLine) -> int:
    """Log why the worker ends, but not for each peer that breaks the protocol; gives its exit status."""
    if isinstance(error, ProtocolError):
        count = board.complaints.add(monotonic(), VIOLATIONS)
        more = f" ({count} times since the last such line)" if count > 1 else ""
        if count:
            log.warning("worker %d closes its connection: %s%s", os.getpid(), error, more)
        return 0
    if isinstance(error, (ConnectionError, TimeoutError)):
        # The client is gone; that is how a connection ends when a client gives up its call.
        log.debug("worker %d lost its client: %s", os.getpid(), error)
        return 0
    if isinstance(error, Interrupted):
        log.warning("worker %d was interrupted in its hooks", os.getpid(), exc_info=error)
    else:
        log.error("worker %d failed", os.getpid(), exc_info=error)
    return 1
