"""``gtask-server``: from the command line to a daemon. It loads no application: that is the masters' part."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence

from gtask.server import descriptors, output, process, users
from gtask.server.config import SIGNALS, ServerConfig
from gtask.server.daemon import logs, options, systemd
from gtask.server.daemon.keeper import Keeper
from gtask.server.daemon.pidfile import PidFile
from gtask.server.listener import AddressUnavailable, Listener, listen
from gtask.spawn import MASTER, command_of, open_standard_descriptors

__all__ = ["keep", "main"]

CANNOT_SERVE, USAGE_ERROR = 1, 2

COMPLETION = "gtask.server.daemon.completion"
"""The module that prints a completion script."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a server until it is stopped.

    Args:
        argv: the arguments, without the program's name; by default those of this process.

    Returns:
        the exit status: 0 after an orderly stop, 1 if it cannot serve, 2 for wrong arguments.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_standard_descriptors()
    process.start_afresh()
    directory = process.follow_links()
    try:
        activated = [Listener.inherited(descriptor) for descriptor in systemd.inherited_sockets()]
        chosen = options.parse(arguments, os.environ, [listener.address for listener in activated])
    except options.Completion as wanted:
        os.execv(sys.executable, command_of(COMPLETION, [str(wanted)]))
    except AddressUnavailable as error:
        print(f"gtask-server: {error}", file=sys.stderr)
        return CANNOT_SERVE
    except options.BadOptions as error:
        print(f"gtask-server: {error}", file=sys.stderr)
        return USAGE_ERROR
    if chosen.check:
        orders = {"sockets": _sockets(activated)}
        for listener in activated:
            os.set_inheritable(listener.fileno(), True)
        os.execv(sys.executable, command_of(MASTER, [json.dumps(orders), *arguments]))
    # From here on files are to be tidied up: signals wait until the keeper heeds them, and at its end again.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return _serve(chosen.config, activated, arguments, directory)
    except (AddressUnavailable, ValueError) as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or 'the daemon cannot start'}: {error.strerror or error}"
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    logs.complain(reason)
    return CANNOT_SERVE


def _serve(config: ServerConfig, activated: list[Listener], arguments: list[str], directory: str) -> int:
    """Open log, pid file and sockets, then keep masters; gives the exit status."""
    owner = users.identity(config.user, config.group) if config.user or config.group else None
    if config.log_file:
        try:
            descriptors.reopen(config.log_file, owner)
        except OSError as error:
            error.filename = config.log_file
            raise
    output.guard("stderr")
    logs.setup(config.log_level, config.log_json)
    pid_file = PidFile(config.pid, owner)
    listeners: list[Listener] = []
    try:
        listeners = listen(config, activated, defer=True)
        if owner is not None:
            for listener in listeners:
                listener.give_to(*owner)
        ready = process.daemonize(keep_stderr=bool(config.log_file)) if config.daemon else lambda: None
        pid_file.write()
        return keep(config, listeners, arguments, ready, directory=directory)
    finally:  # no file is for a server that does not run
        for listener in listeners:
            listener.close()
        pid_file.remove()
        process.forget_unwritten()


def keep(
    config: ServerConfig,
    listeners: list[Listener],
    arguments: list[str],
    on_ready: Callable[[], None] = lambda: None,
    parent: process.Parent | None = None,
    directory: str = "",
) -> int:
    """Keep masters until a signal; gives the exit status.

    Args:
        config: the server's options.
        listeners: the sockets at which the masters accept connections.
        arguments: the command line, which each master reads anew.
        on_ready: called when the first master serves.
        parent: the program that the server belongs to and ends with; None for a daemon.
        directory: where the masters start; "" for where this process is.
    """

    def command(ready_pipe: int, keep_alive: int, reloads: int) -> list[str]:
        orders = {
            "parent": os.getpid(),
            "pipe": keep_alive,
            "kept": True,
            "ready": ready_pipe,
            "reloads": reloads,
            "sockets": _sockets(listeners),
            "log_json": config.log_json,
            "private": config.private,
            "by_program": parent is not None,
        }
        return command_of(MASTER, [json.dumps(orders), *arguments])

    return Keeper(config, listeners, command, on_ready, parent, directory).run()


def _sockets(listeners: list[Listener]) -> list[tuple[int, str, bool, bool]]:
    return [(one.fileno(), str(one.address), one.for_metrics, one.is_own) for one in listeners]
