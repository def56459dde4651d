"""The process of a worker: its signals, and its exit status. It serves one connection, and ends."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from gtask.errors import Interrupted, ProtocolError
from gtask.server import process
from gtask.server.worker.interruption import handle, reopener
from gtask.server.worker.worker import Worker

if TYPE_CHECKING:
    from gtask.aspects.aspect import WorkerAspectFactory
    from gtask.server.config import ServerConfig
    from gtask.server.scoreboard import BoardLine
    from gtask.server.worker.dialect import DialectFactory
    from gtask.server.worker.interface import Interface

__all__ = ["serve"]

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
        worker = Worker(sock, interface, config, board, aspects)
        handlers: dict[int, Callable[[int, object], None]] = {
            signal.SIGALRM: worker.interruption.on_alarm,
            signal.SIGTERM: worker.on_term,
        }
        if config.log_file:
            handlers[signal.SIGUSR1] = reopener(config.log_file)
        handle(handlers)
        if worker.greet(dialects, status_interface):
            worker.run()
    except BaseException as error:  # whatever the hooks raise: the log has it, and the process ends
        status = 1
        status = _status(error)
    finally:
        with contextlib.suppress(BaseException):
            process.flush()
        os._exit(status)


def _status(error: BaseException) -> int:
    """Log why the worker ends; gives its exit status."""
    if isinstance(error, ProtocolError):
        log.warning("worker %d closes its connection: %s", os.getpid(), error)
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
