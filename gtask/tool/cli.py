"""``gtask ping|call|methods|status|top|version``: from the command line to what it prints."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata
from time import monotonic
from typing import Any

import gtask
from gtask import address as addresses
from gtask import shells
from gtask.errors import CallTimeout, EncodeError, Error, RemoteError, WorkerDied
from gtask.printable import printable_lines
from gtask.tool import tables, top
from gtask.tool.conversation import Session

__all__ = ["main", "parser"]

LONGEST = 1_000_000
"""Characters of an error that are shown."""

RAISED, USAGE_ERROR, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments, without the program's name; by default those of this process.

    Returns:
        the exit status: 0 if all went well, 1 if the worker raised, died or took too long, 2 for wrong arguments, 3 if
        there is no server.
    """
    options = _parse(argv)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except (RemoteError, CallTimeout, WorkerDied) as error:
        _show(error)
        return RAISED
    except Error as error:
        print(f"gtask: {printable_lines(str(error))}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, EncodeError) else UNREACHABLE
    except BadArguments as error:
        print(f"gtask: {error}", file=sys.stderr)
        return USAGE_ERROR
    except RecursionError:
        print("gtask: this is nested too deeply for JSON", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return RAISED
    except KeyboardInterrupt:
        return INTERRUPTED


class BadArguments(Exception):
    """An argument makes no sense; the message says why."""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    root = parser()
    options, rest = root.parse_known_args(argv)
    # argparse ends a list of arguments at the first option, and takes -1e3 for one.
    if rest and (not hasattr(options, "args") or any(one.startswith("-") and _value(one) == one for one in rest)):
        root.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.args += rest
    return options


def _show(error: BaseException) -> None:
    """The worker's traceback, without this program's part of it."""
    traceback_ = error.__traceback__
    while traceback_ is not None and str(traceback_.tb_frame.f_globals.get("__name__")).startswith("gtask.tool."):
        traceback_ = traceback_.tb_next
    text = "".join(traceback.format_exception(type(error), error, traceback_)).rstrip("\n")
    notes = getattr(error, "__notes__", ()) if sys.version_info < (3, 11) else ()
    print(printable_lines("\n".join([text, *notes]), LONGEST), file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The command line of ``gtask``."""
    root = argparse.ArgumentParser(prog="gtask", description="Look at gtask servers, and call them.", epilog=_EPILOG)
    root.add_argument("--version", action="version", version=f"gtask {gtask.__version__}")
    root.add_argument(
        "--print-completion", action=_PrintCompletion, metavar="SHELL", choices=shells.SHELLS,
        help="a completion script for a shell (bash, zsh, fish)",
    )  # fmt: skip
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")
    ping = _command(commands, "ping", _ping, "see whether a server answers, and how fast")
    ping.add_argument("--setup", action="store_true", help="have a worker run setup, too, as for a client")
    call = _command(commands, "call", _call, "call a method; arguments and value are JSON")
    call.add_argument("method", metavar="METHOD", help="what to call")
    call.add_argument("args", metavar="ARGUMENT", nargs="*", help="JSON; what is no JSON is taken as a string")
    call.add_argument(
        "--kw", metavar="NAME=VALUE", action="append", default=[], help="a keyword argument; may be given several times"
    )
    methods = _command(commands, "methods", _methods, "list what can be called")
    status = _command(commands, "status", _status, "show what a server does")
    for one in (methods, status):
        one.add_argument("--json", action="store_true", help="print JSON")
    live = _command(commands, "top", _top, "show what a server does, live; q quits (needs gtask[top])")
    live.add_argument("--interval", type=_seconds, default=1.0, metavar="SECONDS", help="default: %(default)g")
    text = "tell the versions of gtask, of Python, and of what gtask needs"
    commands.add_parser("version", help=text, description=text).set_defaults(run=_version)
    return root


class _PrintCompletion(argparse.Action):
    """Prints a completion script, and ends the program as ``--version`` does."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        script = shells.script(parser, values)
        if script is None:
            parser.exit(RAISED, f"gtask: {shells.MISSING}\n")
        print(script, end="" if script.endswith("\n") else "\n")
        parser.exit()


_EPILOG = (
    "exit status: 0 if all went well, 1 if the worker raised or died, 2 for wrong arguments, 3 if no server is there"
)


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("address", metavar="ADDRESS", type=_address, help="unix:/path/to/the.sock or tcp://host:port")
    command.add_argument("--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="default: %(default)g")
    command.set_defaults(run=run)
    return command


def _address(text: str) -> addresses.Address:
    try:
        return addresses.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number of seconds over 0")
    return seconds


def _ping(options: argparse.Namespace) -> int:
    began = monotonic()
    with Session(options.address, options.timeout, about=True) as server:
        connected = monotonic()
        answer = server.call("ping")
        done = monotonic()
    if options.setup:
        with Session(options.address, options.timeout):
            ready = f"; setup has run within {(monotonic() - done) * 1e3:.1f} ms"
    else:
        ready = ""
    print(
        f"{tables.shown(answer['name'])} at {options.address}: master {tables.shown(answer['master'])}; "
        f"a worker after {(connected - began) * 1e3:.1f} ms, its answer after {(done - connected) * 1e3:.1f} ms{ready}"
    )
    return 0


def _call(options: argparse.Namespace) -> int:
    args = [_value(text) for text in options.args]
    kwargs = {}
    for text in options.kw:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise BadArguments(f"--kw {text!r}: write NAME=VALUE")
        kwargs[name] = _value(value)
    with Session(options.address, options.timeout) as worker:
        value = worker.call(options.method, *args, **kwargs)
    text = json.dumps(_plain(value), ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
        is_shown = text.isprintable()
    except UnicodeEncodeError:
        is_shown = False
    if not is_shown:
        text = json.dumps(_plain(value))
    print(text)
    return 0


def _plain(value: Any) -> Any:
    """What JSON has: sets and numpy's arrays become lists, bytes and all else text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(_plain(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _methods(options: argparse.Namespace) -> int:
    with Session(options.address, options.timeout, about=True) as server:
        methods = server.call("methods")
    print(json.dumps(methods, indent=2) if options.json else tables.methods(methods))
    return 0


def _status(options: argparse.Namespace) -> int:
    with Session(options.address, options.timeout, about=True) as server:
        status = server.call("status")
    print(json.dumps(status, indent=2) if options.json else tables.status(status))
    return 0


def _version(options: argparse.Namespace) -> int:
    print(f"gtask {gtask.__version__}")
    print(f"Python {platform.python_version()}, {platform.python_implementation()}, {platform.platform()}")
    for package in ("gevent", "greenlet", "msgpack"):
        print(package, metadata.version(package))
    return 0


def _top(options: argparse.Namespace) -> int:
    return top.run(options.address, options.timeout, options.interval)
