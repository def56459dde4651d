"""``gtask-server``: from the command line to a running server."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import gtask
from gtask.server import process
from gtask.server.embed import Server
from gtask.server.listener import AddressUnavailable
from gtask.wire.codec import DEFAULT_LIMIT

__all__ = ["main"]

USAGE_ERROR, CANNOT_SERVE = 2, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a server until it is stopped.

    Args:
        argv: the arguments, without the program's name; by default those of this process.

    Returns:
        the exit status: 0 after an orderly stop, 1 if it cannot serve, 2 for wrong arguments.
    """
    inherited = process.open_descriptors()
    options = _parser().parse_args(argv)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
    )
    parent = None
    if options.parent_pipe is not None:
        os.set_inheritable(options.parent_pipe, False)
        os.setpgid(0, 0)  # a Ctrl-C at the terminal is for the program, which then stops its server
        parent = process.Parent(options.parent, options.parent_pipe, forked=False)
    try:
        server = Server(
            options.listen,
            load(options.target),
            name=options.name or options.target,
            socket_mode=options.socket_mode,
            limit_message=options.limit_message,
            hung_worker_timeout=options.hung_worker_timeout or None,
            stop_timeout=options.stop_timeout,
            private=options.private,
        )
        server.run(keep=process.open_descriptors() - inherited, parent=parent)
    except (AddressUnavailable, LoadError, TypeError, ValueError) as error:
        print(f"gtask-server: {error}", file=sys.stderr)
        return CANNOT_SERVE
    return 0


class LoadError(Exception):
    """The application cannot be loaded; the message says why."""


def load(target: str) -> Any:
    """Import what is to be served.

    Args:
        target: ``module`` or ``module:attribute``; the working directory is searched first.

    Raises:
        LoadError: there is no such module or attribute. What the module itself raises is passed on.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise LoadError(f"there is no module {name!r} in {os.getcwd()} or along the Python path") from error
    if not attribute:
        return module
    try:
        return vars(module)[attribute]
    except KeyError:
        raise LoadError(f"the module {name!r} has no {attribute!r}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gtask-server",
        description="Serve the functions of a Python module to gtask clients, each connection by a worker process.",
        epilog="TERM, INT and QUIT stop it.",
    )
    parser.add_argument(
        "target",
        metavar="MODULE[:ATTRIBUTE]",
        help="the module whose public functions are served, or the callable, mapping, class, object or "
        "gtask.Interface in it",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        action="append",
        required=True,
        help="unix:/path/to/the.sock or tcp://host:port; may be given several times",
    )
    parser.add_argument("--name", default="", help="for messages and process titles (default: the target)")
    parser.add_argument(
        "--socket-mode",
        type=_octal,
        default=0o600,
        metavar="MODE",
        help="permissions of a unix socket (default: 600)",
    )
    parser.add_argument(
        "--limit-message",
        type=int,
        default=DEFAULT_LIMIT,
        metavar="BYTES",
        help="bytes that a message may have (default: %(default)s)",
    )
    parser.add_argument(
        "--hung-worker-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long a call, setup or a hook may take, whatever its client says; 0: no limit (default: %(default)g)",
    )
    parser.add_argument(
        "--stop-timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long a worker may take for its hooks when its client is gone or the server stops "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="default: %(default)s"
    )
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--parent-pipe", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--private", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"gtask {gtask.__version__}")
    return parser


def _octal(text: str) -> int:
    return int(text, 8)


if __name__ == "__main__":
    sys.exit(main())
