"""Programs that tests run: Python in a process of its own, in a directory, with a deadline and a clear complaint."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass

from tests.support.process import environment
from tests.support.waiting import PATIENCE

DEADLINE = 2 * PATIENCE
"""Seconds that a program gets: it may wait for several things itself."""


@dataclass(frozen=True)
class Ran:
    """What has come of a program: its status, and what it wrote."""

    status: int
    stdout: str
    stderr: str


def run_program(source, *arguments, directory, options=("-W", "error"), status=0, deadline=DEADLINE, env=None):
    """Run a Python program in a directory, which is also that of its temporary files; gives a :class:`Ran`.

    Its output goes into files, so that nobody waits for what it leaves behind.

    Args:
        source: its text, which is written to program.py; or the name of a file that is there, which ends with ".py".
        arguments: of the program; made to text.
        directory: where it runs.
        options: of the interpreter; usually warnings are errors.
        status: the exit status that it must have; None for any.
        deadline: seconds that it gets.
        env: variables of the environment that differ; None takes one away.
    """
    name = source if source.endswith(".py") else "program.py"
    if name != source:
        (directory / name).write_text(textwrap.dedent(source), encoding="utf-8")
    with open(directory / "stdout", "w+") as stdout, open(directory / "stderr", "w+") as stderr:
        done = subprocess.run(
            [sys.executable, *options, name, *map(str, arguments)],
            cwd=directory,
            env=environment(**{"TMPDIR": str(directory), **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            timeout=deadline,
        )
        stdout.seek(0)
        stderr.seek(0)
        ran = Ran(done.returncode, stdout.read(), stderr.read())
    assert status in (None, ran.status), f"{name} ended with status {ran.status}: {ran.stdout}{ran.stderr}"
    return ran
