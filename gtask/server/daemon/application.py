"""The program of a master: loads the application, then serves it.

It is started by the keeper, or by :func:`gtask.spawn_server`; the application is imported here alone. The first of its
arguments is a JSON object with the starter's orders, the others are those of ``gtask-server``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Collection
from typing import Any, NoReturn

from gtask import address as addresses
from gtask import loading
from gtask.server import descriptors, output, process, remarks, users
from gtask.server.config import DEFAULTS, OPTIONS, OpenSocket, ServerConfig
from gtask.server.daemon import logs, options, orphanage
from gtask.server.daemon.watch import Watch
from gtask.server.daemon.words import Changed, Ready, line_of
from gtask.server.functions import Functions
from gtask.server.listener import AddressUnavailable, Listener, listen
from gtask.server.master.attendants import ReloadWatch
from gtask.server.master.master import Master
from gtask.server.originals import close, write
from gtask.server.patches import Patches
from gtask.server.worker.interface import Interface
from gtask.spawn import open_standard_descriptors, tidy_up
from gtask.target import FUNCTIONS

__all__ = ["load", "main"]

log = logging.getLogger("gtask.server")

CANNOT_SERVE = 1


class LoadError(Exception):
    """The application cannot be loaded; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Orders:
    """The starter's orders, from the first argument.

    Attributes:
        parent: the starter's process id; None for none.
        pipe: a descriptor that reads the end of the file when the starter ends.
        kept: whether the starter is a keeper.
        ready: a descriptor to which the master writes what :mod:`gtask.server.daemon.words` has: that it is about to
            accept connections, and that it wants to be replaced.
        reloads: the number of masters before this one.
        sockets: the descriptors of listening sockets, with their addresses, whether they are for metrics, and whether
            the keeper has bound them; if there are none, the master binds them itself.
        private: whether the socket lies in a directory that goes with it.
        log_json: whether the starter writes its log as JSON.
        by_program: whether the server belongs to a program. Environment and file are for an operator's daemons, and the
            program's stdout is the program's.
    """

    parent: int | None = None
    pipe: int = -1
    kept: bool = False
    ready: int = -1
    reloads: int = 0
    sockets: tuple[tuple[int, str, bool, bool], ...] = ()
    private: bool = False
    log_json: bool = False
    by_program: bool = False


def main() -> NoReturn:
    """Serve until a signal, then end the process: with status 0 after an orderly stop, 1 if it cannot serve.

    The process ends by ``os._exit``: the application's atexit functions are not for the master.
    """
    status = 1
    try:
        status = _main()
    except BaseException as error:  # the application's, as it was loaded; it may be SystemExit
        logs.complain("the application cannot be loaded", error)
        _leave_reason("".join(traceback.format_exception(error)))
    finally:
        process.flush()
        os._exit(status)


def _main() -> int:
    open_standard_descriptors()
    process.start_afresh()
    output.guard("stderr")
    inherited = descriptors.open_descriptors()
    orders = Orders(**json.loads(sys.argv[1]))
    for descriptor in {orders.pipe, orders.ready, *(number for number, *_ in orders.sockets)} - {-1}:
        os.set_inheritable(descriptor, False)
    if orders.by_program:
        process.leave_program(inherited)
    if orders.log_json:  # until the options have been read
        logs.setup("info", as_json=True)
    try:
        _serve(orders, inherited)
    except (AddressUnavailable, LoadError, options.BadOptions, TypeError, ValueError) as error:
        logs.complain(str(error))
        _leave_reason(str(error))
        return CANNOT_SERVE
    return 0


def _leave_reason(text: str) -> None:
    """Tell the program to which a private server belongs why it does not serve."""
    with contextlib.suppress(ValueError, IndexError, OSError):  # the process ends in any case
        path = addresses.reason_file(addresses.parse(sys.argv[sys.argv.index("--listen") + 1]))
        if path:
            with open(path, "x", encoding="utf-8", errors="replace") as file:
                file.write(text)


def _serve(orders: Orders, inherited: set[int]) -> None:
    bound = [Listener.inherited(*order) for order in orders.sockets]
    environ, file = ({}, "") if orders.by_program else (os.environ, options.DEFAULT_FILE)
    for_clients = [listener.address for listener in bound if not listener.for_metrics]
    chosen = options.parse(sys.argv[2:], environ, for_clients, file)
    log_file = os.path.abspath(chosen.config.log_file) if chosen.config.log_file else ""  # it is not chdir's
    config = dataclasses.replace(chosen.config, private=orders.private, log_file=log_file)
    logs.setup(config.log_level, config.log_json)
    if config.private:
        logs.leave_to_callers()
    _settle_down(config)
    if not chosen.check:
        output.guard("stdout")
    interface, warnings, not_served = _load(chosen, orders, config)
    if chosen.check:
        warned = [f"warning: {warning}" for warning in warnings]
        print("\n".join(filter(None, [_plan(chosen, config, interface), not_served, *warned])))
        return
    for warning in warnings:
        log.warning("%s", warning)
    if not_served:
        log.info("%s: %s", config.name, not_served)
    for listener in bound:
        listener.configure(config)
    listeners = bound or listen(config)
    parent = None if orders.parent is None else process.Parent(orders.parent, orders.pipe, forked=False)
    watches = [ReloadWatch(Watch(), lambda path: _tell(orders, Changed(path)))] if config.reload and orders.kept else []

    Master(
        config,
        interface,
        listeners,
        descriptors.open_descriptors() - inherited,
        parent,
        kept=orders.kept and not orders.by_program,  # no other daemon takes the place of a program's
        reloads=orders.reloads,
        on_ready=lambda: _report_ready(orders, config),
        attendants=watches,
    ).run()


def _report_ready(orders: Orders, config: ServerConfig) -> None:
    """Tell the starter that connections are about to be accepted, and the time-outs of this configuration."""
    if config.daemon and orders.kept and not config.log_file:
        descriptors.to_null(2)  # or the master would hold the terminal at which the daemon was started
    if orders.ready >= 0:
        _tell(orders, Ready(config.graceful_timeout, config.stop_timeout))
        if not config.reload:
            close(orders.ready)


def _tell(orders: Orders, word: Ready | Changed) -> None:
    """Say something to the keeper."""
    with contextlib.suppress(BrokenPipeError):  # the keeper is gone: that is noticed elsewhere
        write(orders.ready, line_of(word))


def _load(chosen: options.Options, orders: Orders, config: ServerConfig) -> tuple[Interface, list[str], str]:
    """Load the application; gives what it offers, warnings about it, and what it does not offer."""
    patches = Patches()
    loading.begin(chosen.target)

    def tidy() -> None:
        for address in config.addresses:
            if config.private and not isinstance(address, OpenSocket):
                tidy_up(address)

    with patches.watched(), orphanage.watched(orders.parent, orders.pipe, orders.kept, tidy):
        target = Functions(chosen.allow) if chosen.target == FUNCTIONS else load(chosen.target)
        interface = target if isinstance(target, Interface) else Interface(target)
    patched = patches.warning()
    about = [*remarks.about(target, interface), *remarks.threads(interface.name)]
    return interface, [*([patched] if patched else []), *about], remarks.not_served(target)


def load(target: str) -> Any:
    """Import the application.

    Args:
        target: ``module`` or ``module:attribute``; the working directory is searched, too.

    Raises:
        LoadError: there is no such module or attribute. An error of the module itself is passed on.
    """
    _look_here_first()
    name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        modules = {
            entry.name.removesuffix(".py")
            for entry in os.scandir()
            if entry.name.isidentifier() or entry.name.endswith(".py")
        }
        hint = _hint(name, modules) or "; change into its directory (--chdir), or name that by --pythonpath"
        raise LoadError(f"there is no module {name!r} in {os.getcwd()} or along the Python path{hint}") from error
    if not attribute:
        return module
    try:
        return vars(module)[attribute]
    except KeyError:
        public = {each for each in vars(module) if not each.startswith("_")}
        hint = _hint(attribute, public) or f"; it has {', '.join(sorted(public)) or 'nothing that is public'}"
        raise LoadError(f"the module {name!r} has no {attribute!r}{hint}") from None


def _hint(wrong: str, there: Collection[str]) -> str:
    """What was probably meant, among the names that there are; "" if none of them is near."""
    by_lower = {name.lower(): name for name in there}
    close = difflib.get_close_matches(wrong.lower(), by_lower, 1)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""


def _look_here_first() -> None:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())


def _settle_down(config: ServerConfig) -> None:
    """Take on the application's user, umask, directory and environment."""
    os.environ.update(config.env)
    if config.umask is not None:
        os.umask(config.umask)
    if config.user or config.group:
        users.become(config.user, config.group)
        os.environ.update(users.environment() | config.env)
    if config.chdir:
        try:
            os.chdir(config.chdir)
        except OSError as error:
            raise ValueError(f"chdir={config.chdir!r}: {error.strerror}") from None
    _look_here_first()
    sys.path[:0] = [os.path.abspath(directory) for directory in config.pythonpath]


def _plan(chosen: options.Options, config: ServerConfig, interface: Interface) -> str:
    """The text of ``--check-config``: the functions, the addresses, and the options that differ from their defaults."""
    lines = [f"serves {chosen.target} as {config.name}: {', '.join(interface.methods) or 'a callable'}"]
    lines += [f"hook: {hook}" for hook in interface.hooks]
    lines += [f"allows {module}" for module in chosen.allow]
    lines += [f"listens at {address}" for address in config.addresses]
    for name, option in OPTIONS.items():
        value = getattr(config, name)
        if name not in ("addresses", "name") and value != getattr(DEFAULTS, name):
            lines.append(f"{name.replace('_', '-')}: {option.written(value)}")
    return "\n".join(lines)
