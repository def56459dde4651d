"""What a master says to its keeper, in lines on a pipe. Pure.

The keeper may be root, while a master is its user's and runs that user's code. So a line that is no word of a master is
ignored, whatever it has for numbers and names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gtask.printable import printable

__all__ = ["Changed", "Ready", "heard", "line_of"]

LONGEST = 4096
"""Characters of a path that are kept: no system has longer ones."""


@dataclass(frozen=True)
class Ready:
    """It serves.

    Attributes:
        graceful_timeout, stop_timeout: seconds, of its configuration, which may be newer than the keeper's.
    """

    graceful_timeout: float
    stop_timeout: float


@dataclass(frozen=True)
class Changed:
    """This file of the application has changed: the master wants to be replaced."""

    path: str


READY, RELOAD = b"ready", b"reload"


def line_of(word: Ready | Changed) -> bytes:
    """The line in which a master says it."""
    if isinstance(word, Ready):
        return b"%s %r %r\n" % (READY, word.graceful_timeout, word.stop_timeout)
    return b"%s %s\n" % (RELOAD, os.fsencode(word.path).replace(b"\n", b"?"))


def heard(line: bytes) -> Ready | Changed | None:
    """What a line says; None if nothing that a master says."""
    word, _, rest = line.partition(b" ")
    if word == RELOAD:
        return Changed(printable(os.fsdecode(rest[:LONGEST]), LONGEST))
    try:
        graceful_timeout, stop_timeout = map(float, rest.split())
    except ValueError:
        return None
    if word != READY or not (graceful_timeout > 0 and stop_timeout > 0):  # as the options say; nan is not
        return None
    return Ready(graceful_timeout, stop_timeout)
