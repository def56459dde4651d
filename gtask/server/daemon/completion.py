"""Prints a script that completes ``gtask-server`` in a shell."""

from __future__ import annotations

import sys

from gtask import shells
from gtask.server.daemon.options import parser

__all__ = ["main"]

FAILED = 1


def main() -> int:
    """Print the script for the shell that the first argument names."""
    script = shells.script(parser(), sys.argv[1])
    if script is None:
        print(f"gtask-server: {shells.MISSING}", file=sys.stderr)
        return FAILED
    print(script, end="" if script.endswith("\n") else "\n")
    return 0
