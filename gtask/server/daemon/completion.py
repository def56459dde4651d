"""Prints a completion script for a shell; all but fish need the package shtab (extra ``completion``)."""

from __future__ import annotations

import sys

from gtask.server.daemon.options import parser

try:
    import shtab
except ImportError:
    shtab = None  # type: ignore[assignment]

__all__ = ["main"]

MISSING = 1


def main() -> int:
    """Print the script for the shell that the first argument names."""
    shell = sys.argv[1]
    if shell == "fish":
        print(fish(), end="")
        return 0
    if shtab is None:
        print("gtask-server: --print-completion needs shtab: pip install gtask[completion]", file=sys.stderr)
        return MISSING
    print(shtab.complete(parser(), shell), end="")
    return 0


def fish() -> str:
    """A script for fish, which shtab does not know."""
    lines = []
    for action in parser()._actions:
        for option in action.option_strings:
            if option.startswith("--"):
                value = "" if action.nargs == 0 else " -r"
                choices = f" -xa {' '.join(map(str, action.choices))!r}" if action.choices else ""
                text = (action.help or "").replace("'", "\\'") % vars(action)
                lines.append(f"complete -c gtask-server -l {option[2:]}{value}{choices} -d '{text}'")
    return "\n".join(lines) + "\n"
