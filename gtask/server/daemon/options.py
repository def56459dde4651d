"""From the command line, the environment and a file to one configuration.

The command line wins over ``GTASK_SERVER_ARGS``, and the variable over the file. The file is Python. Each of its
variables is an option, under the name of the command line with underscores. The options themselves stand in
:mod:`gtask.server.config`.
"""

from __future__ import annotations

import argparse
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
from gtask import shells
from gtask.server import custody
from gtask.server.config import (
    DEFAULTS,
    HOW,
    LOG,
    OPTIONS,
    PROCESS,
    SIGNALS,
    SOCKETS,
    WORKERS,
    ServerConfig,
)
from gtask.server.daemon.values import PARSERS
from gtask.server.option import Kind, Option
from gtask.target import FUNCTIONS, check_allow, check_target

__all__ = ["ARGUMENTS", "DEFAULT_FILE", "BadOptions", "Completion", "Options", "parse", "parser"]

ARGUMENTS = "GTASK_SERVER_ARGS"
"""The environment variable that holds further arguments."""

DEFAULT_FILE = "gtask.conf.py"
"""The file that is read if it is there, unless ``--config`` names another."""

_NOT_IN_FILE = {"config", "help", "print_completion", "version"}


class BadOptions(Exception):
    """An option is unknown or makes no sense. The message has the option, the value, the allowed values, the source."""


class Completion(Exception):
    """``--print-completion`` was given; the argument is the name of the shell."""


@dataclass(frozen=True, slots=True)
class Options:
    """The outcome of the three sources.

    Attributes:
        target: the application, ``module`` or ``module:attribute``.
        config: the options of the server.
        check: whether to print what the daemon would do, and no more.
        allow: the modules whose functions may be called, if the target is :data:`gtask.target.FUNCTIONS`.
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
    """Put the three sources together.

    Args:
        argv: the arguments, without the program's name.
        environ: the environment.
        inherited: addresses of sockets that were handed to this process; they make ``--listen`` unnecessary.
        default_file: the file that is read if it is there and ``--config`` names no other; "" for none.

    Raises:
        BadOptions: an option makes no sense.
        Completion: ``--print-completion`` was given.
        SystemExit: ``--help`` or ``--version`` was given, and has been answered.
    """
    sources = _sources(argv, environ, default_file)
    chosen: dict[str, Any] = {}
    for source in reversed(sources):
        chosen.update(source.options)
    target = chosen.pop("target", None)
    if not target:
        raise BadOptions("what is to be served? Write MODULE or MODULE:ATTRIBUTE, such as: gtask-server hasher")
    chosen["listen"] = list(dict.fromkeys([*inherited, *chosen.get("listen", [])]))
    if not chosen["listen"]:
        raise BadOptions("where is it to listen? Write --listen unix:/path/to/the.sock")
    check, allow = chosen.pop("check_config", False), tuple(chosen.pop("allow", ()))
    chosen.pop("config", None)
    try:
        check_target(target)
        check_allow(target, allow)
        return Options(target, _config(target, chosen), check, allow)
    except (ValueError, TypeError) as error:
        option = str(error).partition("=")[0]
        option = option if option in {*chosen, "allow"} else "target" if repr(target) in option else "listen"
        where = next((source.where for source in sources if option in source.options), "")
        raise BadOptions(f"{where}{error}") from None


@dataclass(frozen=True, slots=True)
class _Source:
    """The options of one place, and the name of that place in front of an error."""

    options: dict[str, Any]
    where: str


def _sources(argv: Sequence[str], environ: Mapping[str, str], default_file: str) -> list[_Source]:
    """Command line, environment and file: the first that has an option wins."""
    command_line = _Source(_read(argv, ""), "")
    _print_completion(command_line)
    where = f"{ARGUMENTS}: "
    environment = _Source(_read(_split(environ.get(ARGUMENTS, "")), where), where)
    _print_completion(environment)
    named = command_line.options.get("config") or environment.options.get("config")
    path = named or default_file
    if not named and not os.path.exists(path):
        return [command_line, environment]
    where = f"{path}: "
    return [command_line, environment, _Source(_read(_arguments_of_file(path), where), where)]


def _print_completion(source: _Source) -> None:
    if "print_completion" in source.options:
        raise Completion(source.options["print_completion"])


def _config(target: str, chosen: Mapping[str, Any]) -> ServerConfig:
    """The configuration of these options, which have the names of the command line."""
    values: dict[str, Any] = {"name": target}
    for name, option in OPTIONS.items():
        given = chosen.get(_variable_of(name, option))
        if given is None:
            if option.kind is Kind.SECONDS_OR_NONE and _variable_of(name, option) in chosen:
                values[name] = None
        elif option.kind is Kind.VARIABLE:
            values[name] = dict(given)
        elif option.kind is Kind.SWITCH:
            values[name] = not option.flag.startswith("no-")
        else:
            values[name] = tuple(given) if option.several else given
    if values.get("log_file"):
        values["log_file"] = os.path.abspath(values["log_file"])  # --chdir comes later
    return ServerConfig(**values)


def _variable_of(name: str, option: Option) -> str:
    """The name of an option in the file, and in argparse."""
    return option.flag.replace("-", "_") or name


_BY_VARIABLE = {_variable_of(name, option): option for name, option in OPTIONS.items()}


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
    _add_general(root.add_argument_group(HOW))
    for title in (SOCKETS, WORKERS, PROCESS, LOG):
        group = root.add_argument_group(title)
        for name, option in OPTIONS.items():
            if option.group == title:
                _add(group, name)
    return root


def _add_general(group: Any) -> None:
    group.add_argument(
        "--allow",
        metavar="PREFIX",
        action="append",
        help=f"for {FUNCTIONS}: a module whose functions may be called, and those of the modules under it; may be "
        "given several times",
    )
    _add(group, "name")
    group.add_argument(
        "--config", metavar="FILE", help=f"a Python file with further options (default: ./{DEFAULT_FILE} if it exists)"
    )
    group.add_argument("--check-config", action="store_true", help="load the application, say what would be done")
    _add(group, "reload")
    group.add_argument("--version", action="version", version=f"gtask {gtask.__version__}")
    group.add_argument(
        "--print-completion", metavar="SHELL", choices=shells.SHELLS, help="a completion script for a shell"
    )


def _add(group: Any, name: str) -> None:
    """Add the option of a field of the configuration."""
    option = OPTIONS[name]
    flag = f"--{_variable_of(name, option).replace('_', '-')}"
    if option.kind is Kind.SWITCH:
        group.add_argument(flag, action="store_true", help=option.sentence)
        return
    value = getattr(DEFAULTS, name)
    default = option.default_text or ("" if value is None or value == "" or option.several else option.written(value))
    group.add_argument(
        flag,
        metavar=option.metavar,
        action="append" if option.several else "store",
        type=PARSERS.get(option.kind, str),
        choices=option.choices or None,
        help=option.sentence
        + ("; may be given several times" if option.several else "")
        + (f" (default: {default})" if default else ""),
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
    """The options in these arguments, without defaults."""
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


def _check_file(path: str) -> None:
    """Refuse a file that root would run and others may write."""
    if os.geteuid() or not os.path.exists(path):
        return
    status, other = os.stat(path), custody.foreigner(path)
    uid = status.st_uid or (other[0] if other is not None else 0)
    if uid or status.st_mode & 0o002:
        who = f"user {uid} can change it" if uid else "everybody can write it"
        raise BadOptions(
            f"the configuration {path!r} would be run as root, and {who}, or what its path leads to: give the file and "
            "its directory to root, run gtask-server as that user, or name another file with --config"
        )


def _arguments_of_file(path: str) -> list[str]:
    """The options of a file, as arguments."""
    _check_file(path)
    try:
        variables = runpy.run_path(path)
    except OSError as error:
        raise BadOptions(f"the configuration {path!r} cannot be read: {error.strerror}") from None
    except Exception as error:  # the file is code, and may raise anything
        raise BadOptions(f"the configuration {path!r} raised {type(error).__name__}: {error}") from error
    arguments: list[str] = []
    for name, value in variables.items():
        if name.startswith("_") or type(value) is type(os) or callable(value):
            continue
        if name in _NOT_IN_FILE:
            raise BadOptions(f"{path}: {name}={value!r}: only for the command line")
        if isinstance(value, dict):
            raise BadOptions(f"{path}: {name}={value!r}: write a list of 'NAME=VALUE'")
        arguments += _arguments(name, value)
    return arguments


def _arguments(name: str, value: object) -> list[str]:
    """One variable of a file, as arguments. None stands for the default, or for no limit where that is not it."""
    option, flag = _BY_VARIABLE.get(name), f"--{name.replace('_', '-')}"
    if value is None:
        return [f"{flag}=0"] if option is not None and option.kind is Kind.SECONDS_OR_NONE else []
    arguments: list[str] = []
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, bool):
            arguments += [flag] if one else []
        else:
            text = str(one) if option is None else option.written(one)
            arguments.append(text if name == "target" else f"{flag}={text}")
    return arguments
