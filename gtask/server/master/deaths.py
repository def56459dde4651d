"""Dead workers: what the master does before it reaps one, and the last words to its client and to the log."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from time import monotonic

from gtask.server.config import TEXT, ServerConfig
from gtask.server.master.children import Obituary
from gtask.server.master.workers import Handle, Workers
from gtask.server.metrics.status import Record
from gtask.wire.lastwords import last_words
from gtask.wire.messages import LastWords

__all__ = ["bury", "shut_for_the_dead"]

log = logging.getLogger("gtask.server")


def shut_for_the_dead(workers: Workers) -> None:
    """Let the client of a dead worker, which is to be reaped next, send nothing more: it would be lost."""
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            handle = None if dead is None else workers.get(dead.si_pid)
            if handle is not None:
                handle.shut_reading()


def bury(obituary: Obituary, handle: Handle, maxrss: int, record: Record, config: ServerConfig) -> None:
    """Note the end of a reaped worker, send its client the last words if it died, and close its handle.

    Args:
        handle: the master's share of the worker; it is closed.
        maxrss: the worker's largest resident memory, as the kernel gives it.
        record: of the master.
        config: the server's options; they say whether the client may have the worker's stacks.
    """
    record.gone(handle.line.view(), monotonic(), obituary.cause if obituary.line else "")
    if obituary.orphans:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(obituary.pid, signal.SIGKILL)
    if obituary.line:
        stacks = handle.line.read_stacks()
        log.warning(obituary.line)
        record.died(monotonic(), obituary.line, stacks)
        told = "" if config.peer_errors == TEXT else stacks
        words = _last_words(obituary, maxrss, told) if handle.line.wants_last_words else b""
        _send_the_last(handle, words)
    handle.close()


def _last_words(obituary: Obituary, maxrss: int, stacks: str) -> bytes:
    return last_words(
        LastWords(
            pid=obituary.pid,
            exitcode=obituary.exitcode,
            signal=obituary.signal,
            method=obituary.method,
            elapsed=obituary.elapsed,
            maxrss=maxrss // 1024 if sys.platform == "darwin" else maxrss,  # which counts bytes
            stacks=stacks,
            why=obituary.why,
        )
    )


def _send_the_last(handle: Handle, words: bytes) -> None:
    """Send the replies that the worker held back, then its last words."""
    connection = handle.connection
    with contextlib.suppress(OSError):  # the client may be gone
        connection.send(handle.line.take_held() + words, socket.MSG_DONTWAIT)
        # A worker that was forked just now has this duplicate, too, until it has closed it.
        connection.shutdown(socket.SHUT_RDWR)
        while connection.recv(65536, socket.MSG_DONTWAIT):
            pass  # closed with something unread it would be reset, and the last words be lost
