"""What a server writes to stdout and stderr: at once or not at all, so that a reader who does not read stops nothing.

A pipe that is full, a terminal that Ctrl-S has stopped, a disk without room: the line is dropped and counted. The
number of lost lines is told as soon as something can be written again.
"""

from __future__ import annotations

import contextlib
import io
import logging
import mmap
import os
import stat
import sys
from collections.abc import Iterator
from select import PIPE_BUF
from typing import IO, Any

from gtask.server.originals import POLLOUT, poll, write

__all__ = ["Output", "are_lost", "guard", "guarded", "let_wait", "tell_losses"]

log = logging.getLogger("gtask.server")

NOWAIT = 8
"""The flag of a write that fails rather than waits. For pipes Linux knows it since 6.5."""

PATIENCE = 100
"""Milliseconds that a worker, whose application may print much at once, waits for a reader, before it takes the output
for stuck. Keeper and master never wait."""

LOST, STUCK = range(2)
"""The numbers in the memory that a master shares with its workers: lost lines, and whether the output was stuck."""


class Output(io.RawIOBase):
    """A descriptor that is written to without waiting.

    Args:
        descriptor: its number; what it leads to may change.

    Attributes:
        patience: milliseconds that a write may wait, unless the one before waited in vain.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.patience = 0
        self._descriptor = descriptor
        self._shared = memoryview(mmap.mmap(-1, 16)).cast("Q")
        self._is_torn = False  # the last line was written in part

    @property
    def lost(self) -> int:
        """The number of lines that this process, and those that it has forked, could not write."""
        return self._shared[LOST]

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write what can be written at once, and count the lines of the rest as lost. Gives the number of all bytes."""
        rest = memoryview(bytes(data))
        size = len(rest)
        if self._is_torn:
            rest = memoryview(b"\n" + bytes(rest))
        try:
            while rest:
                rest = rest[self._write_some(rest[:PIPE_BUF]) :]
            self._is_torn = False
        except OSError:  # nobody reads, there is no room, or nothing is there
            lines = bytes(rest).count(b"\n")
            self._is_torn = self._is_torn or len(rest) < size
            self._shared[LOST] += max(lines, 1)
        return size

    def take_lost(self) -> int:
        """The number of lost lines, which begins anew."""
        lost, self._shared[LOST] = self._shared[LOST], 0
        return lost

    def add_lost(self, lines: int) -> None:
        """These lines are lost, too."""
        self._shared[LOST] += lines

    def _write_some(self, piece: memoryview) -> int:
        mode = os.fstat(self._descriptor).st_mode
        if stat.S_ISREG(mode):
            return write(self._descriptor, piece)
        if not self._is_ready():
            raise BlockingIOError
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            try:
                return os.pwritev(self._descriptor, [piece], -1, NOWAIT)  # another process may have filled it since
            except (BlockingIOError, BrokenPipeError):
                raise
            except (NotImplementedError, OSError):
                pass  # the system has no such write
        return write(self._descriptor, piece)

    def _is_ready(self) -> bool:
        look = poll()
        look.register(self._descriptor, POLLOUT)
        patience = 0 if self._shared[STUCK] else self.patience
        ready = any(event & POLLOUT for _, event in look.poll(patience))
        self._shared[STUCK] = 0 if ready else 1
        return ready


_outputs: list[Output] = []
"""Those of this process."""


def guard(name: str) -> None:
    """Let ``sys.stdout`` or ``sys.stderr`` wait for no reader from now on.

    Args:
        name: ``stdout`` or ``stderr``. The stream may be None, as Python makes it where the descriptor is closed.
    """
    old = getattr(sys, name)
    if old is not None and isinstance(getattr(old, "buffer", None), Output):
        return
    output = Output(1 if name == "stdout" else 2)
    if old is not None and output._is_ready():
        with contextlib.suppress(OSError, ValueError):
            old.flush()
    _outputs.append(output)
    encoding = getattr(old, "encoding", None) or "utf-8"
    setattr(sys, name, io.TextIOWrapper(output, encoding, "backslashreplace", line_buffering=True))


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Guard stdout and stderr of a program while it serves, and the handlers of its log that write there."""
    known = len(_outputs)
    names = [name for name in ("stdout", "stderr") if _leads_to_standard(getattr(sys, name))]
    before = {name: getattr(sys, name) for name in names}
    for name in names:
        guard(name)
    handlers = [(handler, handler.stream) for handler in _unguarded_handlers()]
    for handler, stream in handlers:
        handler.stream = sys.stdout if stream.fileno() == 1 else sys.stderr
    try:
        yield
    finally:
        for handler, stream in handlers:
            handler.stream = stream
        for name, stream in before.items():
            setattr(sys, name, stream)
        del _outputs[known:]


def _unguarded_handlers() -> list[logging.StreamHandler[Any]]:
    """The handlers of all loggers that write to stdout or stderr, and might wait there."""
    loggers = [
        logging.root,
        *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)),
    ]
    return [
        handler
        for logger in loggers
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and _leads_to_standard(handler.stream)
    ]


def _leads_to_standard(stream: IO[str] | None) -> bool:
    if stream is None or isinstance(getattr(stream, "buffer", None), Output):
        return False
    try:
        return stream.fileno() in (1, 2)
    except (AttributeError, OSError, ValueError):  # the program has put something else in its place
        return False


def let_wait() -> None:
    """In a worker: writes may wait a little for a reader."""
    for output in _outputs:
        output.patience = PATIENCE


def are_lost() -> bool:
    """Whether lines were lost that nobody has been told of."""
    return any(output.lost for output in _outputs)


def tell_losses() -> None:
    """Say in the log how many lines were lost, as soon as it can be said."""
    lost = {output: output.take_lost() for output in _outputs if output.lost}
    if not lost:
        return
    log.warning("%d lines of the output were lost: nobody read them, or there was no room", sum(lost.values()))
    if are_lost():  # the line itself
        for output, lines in lost.items():
            output.take_lost()
            output.add_lost(lines)
