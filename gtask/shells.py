"""Completion scripts for shells, made of the command line of a program; all but fish's need the package shtab."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

__all__ = ["MISSING", "SHELLS", "script"]

SHELLS = ("bash", "zsh", "fish")

MISSING = "--print-completion needs shtab: pip install gtask[completion]"
"""What to say where there is no script."""


def script(parser: argparse.ArgumentParser, shell: str) -> str | None:
    """The script that completes a program's arguments; None without shtab.

    Args:
        parser: the program's command line.
        shell: one of :data:`SHELLS`.
    """
    if shell == "fish":  # which shtab does not know
        return "".join(f"{line}\n" for line in _fish(parser.prog, parser, ""))
    try:
        shtab = importlib.import_module("shtab")  # only now: each server that starts would wait for it
    except ImportError:  # the extra "completion" is not installed
        return None
    return str(shtab.complete(parser, shell))


def _fish(program: str, parser: argparse.ArgumentParser, command: str) -> Iterator[str]:
    """The lines for a program, or for one of its commands."""
    condition = f" -n '__fish_seen_subcommand_from {command}'" if command else ""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield f"complete -c {program} -n __fish_use_subcommand -xa {choice.dest} -d '{_quoted(choice)}'"
                yield from _fish(program, action.choices[choice.dest], choice.dest)
            continue
        for option in action.option_strings:
            if option.startswith("--"):
                value = "" if action.nargs == 0 else " -r"
                choices = f" -xa {' '.join(map(str, action.choices))!r}" if action.choices else ""
                yield f"complete -c {program}{condition} -l {option[2:]}{value}{choices} -d '{_quoted(action)}'"


def _quoted(action: argparse.Action) -> str:
    return (action.help or "").replace("'", "\\'") % vars(action)
