"""From the command line, the environment and a file to one configuration.

The command line wins over ``GTASK_SERVER_ARGS``, and that over the file. The file is Python; each of its variables is
an option, under the name that the option has on the command line, with underscores.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import runpy
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import gtask
from gtask import address as addresses
from gtask.server.config import LEVELS, SIGNALS, OpenSocket, ServerConfig

__all__ = ["ARGUMENTS", "DEFAULT_FILE", "FUNCTIONS", "BadOptions", "Completion", "Options", "parse", "parser"]

ARGUMENTS = "GTASK_SERVER_ARGS"
"""The environment variable that holds further arguments."""

DEFAULT_FILE = "gtask.conf.py"
"""The file that is read if it is there, unless ``--config`` names another."""

FUNCTIONS = "gtask.server.functions"
"""What is to be served if ``--allow`` is to mean something."""

_NOT_IN_FILE = {"config", "help", "print_completion", "version"}


class BadOptions(Exception):
    """An option is unknown or makes no sense; the message names it, the value and what is allowed, and where it was."""


class Completion(Exception):
    """A completion script was asked for, for the shell that this names."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for.

    Attributes:
        target: what is served, ``module`` or ``module:attribute``.
        config: the options of the server.
        check: whether only to say what it would do.
        allow: the modules whose functions may be called, if what is served is :data:`FUNCTIONS`.
    """

    target: str
    config: ServerConfig
    check: bool = False
    allow: tuple[str, ...] = ()


def parse(
    argv: Sequence[str],
    environ: Mapping[str, str],
    inherited: Sequence[addresses.Address] = (),
    default_file: str = DEFAULT_FILE,
) -> Options:
    """Put together what the three sources say.

    Args:
        argv: the arguments, without the program's name.
        environ: the environment.
        default_file: what is read if it is there and ``--config`` names no other; "" for none.
        inherited: addresses of sockets that were handed to this process; they make ``--listen`` unnecessary.

    Raises:
        BadOptions: something makes no sense.
        Completion: ``--print-completion`` was asked for.
        SystemExit: ``--help`` or ``--version`` was asked for, and has been answered.
    """
    given = _read(argv, "")
    if "print_completion" in given:
        raise Completion(given["print_completion"])
    from_environment = _read(_split(environ.get(ARGUMENTS, "")), f"{ARGUMENTS}: ")
    if "print_completion" in from_environment:
        raise Completion(from_environment["print_completion"])
    named = given.get("config") or from_environment.get("config")
    path = named or default_file
    from_file = _read(_arguments_of_file(path), f"{path}: ") if named or os.path.exists(path) else {}
    chosen = {**from_file, **from_environment, **given}
    target = chosen.pop("target", None)
    if not target:
        raise BadOptions("what is to be served? Write MODULE or MODULE:ATTRIBUTE, such as: gtask-server hasher")
    check = chosen.pop("check_config", False)
    chosen.pop("config", None)
    allow = tuple(chosen.pop("allow", ()))
    listen = list(dict.fromkeys([*inherited, *chosen.pop("listen", [])]))
    if not listen:
        raise BadOptions("where is it to listen? Write --listen unix:/path/to/the.sock")
    chosen["freeze"] = not chosen.pop("no_freeze", False)
    for name in ("allow_uid", "pythonpath"):
        chosen[name] = tuple(chosen.get(name, ()))
    chosen["env"] = dict(chosen.get("env", ()))
    chosen.setdefault("name", target)
    if chosen.get("log_file"):
        chosen["log_file"] = os.path.abspath(chosen["log_file"])  # --chdir comes later
    try:
        _check_allow(target, allow)
        return Options(target, ServerConfig(tuple(listen), **chosen), check, allow)
    except (ValueError, TypeError) as error:
        option = str(error).partition("=")[0]
        option = option if option in {*chosen, "allow"} else "listen"
        sources = ((given, ""), (from_environment, f"{ARGUMENTS}: "), (from_file, f"{path}: "))
        where = next((where for source, where in sources if option in source), "")
        raise BadOptions(f"{where}{error}") from None


def parser() -> argparse.ArgumentParser:
    """The command line of ``gtask-server``."""
    root = _Parser(
        prog="gtask-server",
        description="Serve the functions of a Python module to gtask clients, each connection by a\nworker process.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    root.add_argument(
        "target",
        nargs="?",
        metavar="MODULE[:ATTRIBUTE]",
        help="the module whose public functions are served, or the callable, mapping, class, object or "
        "gtask.Interface in it",
    )
    general = root.add_argument_group("what and how")
    general.add_argument(
        "--allow",
        metavar="PREFIX",
        action="append",
        help=f"for {FUNCTIONS}: a module whose functions may be called, and those of the modules under it; may be "
        "given several times",
    )
    general.add_argument("--name", metavar="NAME", help="for messages and process titles (default: the target)")
    general.add_argument(
        "--config", metavar="FILE", help=f"a Python file with further options (default: ./{DEFAULT_FILE} if it exists)"
    )
    general.add_argument("--check-config", action="store_true", help="load the application, say what would be done")
    general.add_argument("--reload", action="store_true", help="reload when a file of the application changes")
    general.add_argument("--version", action="version", version=f"gtask {gtask.__version__}")
    general.add_argument(
        "--print-completion", metavar="SHELL", choices=("bash", "zsh", "fish"), help="a completion script for a shell"
    )
    _add_sockets(root.add_argument_group("sockets"))
    _add_workers(root.add_argument_group("workers"))
    _add_process(root.add_argument_group("process"))
    _add_log(root.add_argument_group("log"))
    return root


def _add_sockets(group: Any) -> None:
    group.add_argument(
        "--listen",
        metavar="ADDRESS",
        action="append",
        type=_address,
        help="unix:/path/to/the.sock, unix:@abstract-name, tcp://host:port, or fd:N for a socket that is open already; "
        "may be given several times",
    )
    group.add_argument("--backlog", type=_number, metavar="N", help="connections that may wait (default: 1024)")
    group.add_argument("--socket-mode", type=_octal, metavar="MODE", help="permissions of a unix socket (default: 600)")
    group.add_argument(
        "--allow-uid",
        type=_number,
        metavar="UID",
        action="append",
        help="a user who may connect to a unix socket, others then may not; may be given several times",
    )
    group.add_argument(
        "--insecure", action="store_true", help="allow TCP where other machines can connect, and --pickle over TCP"
    )
    group.add_argument(
        "--pickle",
        action="store_true",
        help="pickle what cannot travel otherwise, from and to clients that consent as well: who sends a pickle can "
        "have its reader run any code",
    )
    group.add_argument(
        "--metrics",
        metavar="ADDRESS",
        type=_new_address,
        help="where Prometheus finds /metrics over HTTP: unix:/path/to/the.sock or tcp://host:port",
    )
    group.add_argument(
        "--limit-message", type=_size, metavar="BYTES", help="how large a message may be; 64M (default: 67108864)"
    )


def _add_workers(group: Any) -> None:
    group.add_argument("--max-workers", type=_number, metavar="N", help="more connections wait (default: no limit)")
    group.add_argument(
        "--max-memory",
        type=_size,
        metavar="BYTES",
        help="a worker that uses more is replaced after its checkout; 500M, 2G (default: no limit)",
    )
    group.add_argument(
        "--hung-worker-timeout",
        type=_seconds_or_none,
        metavar="SECONDS",
        help="how long a call, setup or a hook may take, whatever its client says; 0: no limit (default: 300)",
    )
    group.add_argument(
        "--stop-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="how long a worker may take for its hooks when its client is gone or the server stops (default: 5)",
    )
    group.add_argument(
        "--graceful-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="how long checkouts may take to end when the server drains (default: 30)",
    )
    group.add_argument(
        "--greeting-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="how long a peer that has connected may stay silent (default: 10)",
    )
    group.add_argument(
        "--nice", type=_number, metavar="N", help="how much workers yield to others, 0 to 19 (default: 0)"
    )
    group.add_argument("--no-freeze", action="store_true", help="do not exempt the loaded application from collection")


def _add_process(group: Any) -> None:
    group.add_argument("--chdir", metavar="DIRECTORY", help="where the application is loaded and runs")
    group.add_argument(
        "--pythonpath",
        metavar="DIRECTORY",
        action="append",
        help="searched for modules first; may be given several times",
    )
    group.add_argument(
        "--env",
        type=_variable,
        metavar="NAME=VALUE",
        action="append",
        help="a variable in the application's environment; may be given several times",
    )
    group.add_argument("--user", metavar="USER", help="whom the application runs as, a name or a number")
    group.add_argument("--group", metavar="GROUP", help="the same for the group (default: the user's own)")
    group.add_argument("--umask", type=_octal, metavar="MODE", help="of the application")
    group.add_argument("--pid", metavar="FILE", help="a file for the daemon's process id")
    group.add_argument("--daemon", action="store_true", help="go into the background as soon as it serves")


def _add_log(group: Any) -> None:
    group.add_argument("--log-file", metavar="FILE", help="where the log goes (default: stderr)")
    group.add_argument("--log-level", choices=LEVELS, metavar="LEVEL", help=f"{', '.join(LEVELS)} (default: info)")
    group.add_argument("--log-json", action="store_true", help="each line is a JSON object")


def _check_allow(target: str, allow: tuple[str, ...]) -> None:
    if target == FUNCTIONS and not allow:
        raise ValueError(f"allow=(): {FUNCTIONS} must know whose functions may be called: write --allow myapp.jobs")
    if allow and target != FUNCTIONS:
        raise ValueError(
            f"allow={allow[0]!r}: that is for {FUNCTIONS} alone, and {target} is to be served: serve the one, or "
            "leave out the other"
        )


def _epilog() -> str:
    effects: dict[str, list[str]] = {}
    for number, effect in SIGNALS.items():
        effects.setdefault(effect, []).append(number.name.removeprefix("SIG"))
    rows = [
        textwrap.fill(f"  {', '.join(names):<11}{effect}", 79, subsequent_indent=" " * 13, break_on_hyphens=False)
        for effect, names in effects.items()
    ]
    return "\n".join(
        [
            "Each option may also be a variable in the file, and an argument in the",
            f"environment variable {ARGUMENTS}. The command line wins, the file loses.",
            "\nsignals:",
            *rows,
            "\nexit status: 0 after an orderly stop, 1 if it cannot serve, 2 for wrong",
            "arguments.",
        ]
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").replace("ignored explicit argument", "it takes no value, not")
        raise BadOptions(message)


def _read(arguments: Sequence[str], where: str) -> dict[str, Any]:
    """The options in some arguments, those alone that are there."""
    try:
        found, unknown = parser().parse_known_args(arguments)
    except BadOptions as error:
        raise BadOptions(f"{where}{error}") from None
    if unknown:
        raise BadOptions(f"{where}{_unknown(unknown[0])}")
    return vars(found)


def _unknown(argument: str) -> str:
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}: write one MODULE or MODULE:ATTRIBUTE, and options"
    name = argument.partition("=")[0]
    known = [option for action in parser()._actions for option in action.option_strings]
    close = difflib.get_close_matches(name, known, 1)
    return f"unknown option {name}{f'; did you mean {close[0]}?' if close else '; --help lists all'}"


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadOptions(f"{ARGUMENTS}={text!r}: {error}") from None


def _arguments_of_file(path: str) -> list[str]:
    """The options of a file, as arguments."""
    try:
        variables = runpy.run_path(path)
    except OSError as error:
        raise BadOptions(f"the configuration {path!r} cannot be read: {error.strerror}") from None
    except Exception as error:  # whatever its code does
        raise BadOptions(f"the configuration {path!r} raised {type(error).__name__}: {error}") from error
    arguments: list[str] = []
    for name, value in variables.items():
        if name.startswith("_") or type(value) is type(os) or callable(value):
            continue
        if name in _NOT_IN_FILE:
            raise BadOptions(f"{path}: {name}={value!r}: only for the command line")
        if value is None:
            if name != "hung_worker_timeout":  # where it is not the default
                continue
            value = 0
        option = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, bool):
                arguments += [option] if one else []
            elif name == "target":
                arguments.append(str(one))
            else:
                is_mode = name in ("socket_mode", "umask") and isinstance(one, int)
                arguments.append(f"{option}={one:o}" if is_mode else f"{option}={one}")
        if isinstance(value, dict):
            raise BadOptions(f"{path}: {name}={value!r}: write a list of 'NAME=VALUE'")
    return arguments


# --- the types of values: what makes no sense is told with what is allowed ------------------------------


def _number(text: str) -> int:
    with contextlib.suppress(ValueError):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: write a whole number")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: write a number of seconds")


def _seconds_or_none(text: str) -> float | None:
    return _seconds(text) or None


def _size(text: str) -> int:
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    with contextlib.suppress(ValueError, OverflowError):
        return int(float(text if factor == 1 else text[:-1]) * factor)
    raise argparse.ArgumentTypeError(f"{text!r}: write a number of bytes, such as 500M or 2G")


def _octal(text: str) -> int:
    with contextlib.suppress(ValueError):
        return int(text, 8)
    raise argparse.ArgumentTypeError(f"{text!r}: write permissions in octal, such as 660")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    return name, value


def _address(text: str) -> addresses.Address | OpenSocket:
    return OpenSocket(_number(text[len("fd:") :])) if text.startswith("fd:") else _new_address(text)


def _new_address(text: str) -> addresses.Address:
    try:
        return addresses.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
