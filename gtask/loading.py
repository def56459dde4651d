"""Whether this process loads an application in order to serve it. Then nothing in there may be a client.

A module that makes calls when it is imported would start a private server for itself, which imports the module, and so
on. multiprocessing refuses the same for the same reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from gtask.errors import UsedWhileLoading

__all__ = ["begin", "check", "deeper", "end"]

DEPTH = "GTASK_SPAWN_DEPTH"
"""The environment variable that counts private servers of private servers."""

DEEPEST = 5
"""How many private servers may be started one from within the other."""

_target = ""


def begin(target: str) -> None:
    """From now on this process is a master that loads an application.

    Args:
        target: the application, ``module`` or ``module:attribute``.
    """
    global _target
    _target = target


def end() -> None:
    """This process is a worker, or no server any more."""
    begin("")


def check(what: str) -> None:
    """Refuse what a master may not do.

    Args:
        what: begins the message, such as "a client was used".

    Raises:
        UsedWhileLoading: this process is a master.
    """
    if _target:
        raise UsedWhileLoading(
            f"{what} while a server loads {_target}: a module that is served must only define what workers run, for "
            "each of its servers would start the next. Put what the program itself does under\n\n"
            '    if __name__ == "__main__":\n        ...'
        )


def deeper(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a private server.

    Raises:
        UsedWhileLoading: there are too many of them already, each started by the one before.
    """
    depth = environ.get(DEPTH, "")
    number = int(depth) if depth.isdigit() else 0
    if number >= DEEPEST:
        raise UsedWhileLoading(
            f"a private server was to be started within {number} others ({DEPTH}={number} in the environment): each "
            'seems to start the next. Put what the program itself does under if __name__ == "__main__":'
        )
    return {**environ, DEPTH: str(number + 1)}
