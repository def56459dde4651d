"""The point of this test is to ensure that the command gtask says what it is, and completes in each shell.

``python -m gtask`` is the same command.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

import gtask
from gtask.tool.cli import parser
from tests.support.process import environment

SYNTAX_CHECKS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}
COMMANDS = ["ping", "call", "methods", "status", "top", "version"]


def run(*arguments, status=0):
    """What ``python -m gtask`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "gtask", *arguments], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def test_version():
    """Of gtask, of Python and of what gtask needs: what a report of a fault should have."""
    lines = run("version").splitlines()
    assert lines[0] == f"gtask {gtask.__version__}" == run("--version").strip()
    assert lines[1].startswith(f"Python {sys.version_info[0]}.{sys.version_info[1]}.")
    assert [line.split()[0] for line in lines[2:]] == ["gevent", "greenlet", "msgpack"]


@pytest.mark.parametrize("shell", SYNTAX_CHECKS)
def test_completion(shell, tmp_path):
    """Each command and each of its options is in the script, which the shell can read."""
    if shell != "fish":
        pytest.importorskip("shtab")
    script = run("--print-completion", shell)
    for command in COMMANDS:
        assert command in script
    for option in ("timeout", "kw", "json", "interval"):
        assert (f"-l {option}" if shell == "fish" else f"--{option}") in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        done = subprocess.run([*SYNTAX_CHECKS[shell], str(tmp_path / "script")], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell():
    """Is refused with those that there are."""
    run("--print-completion", "csh", status=2)


def test_the_commands_are_these():
    """So that the others of this file have all of them."""
    (choices,) = [action.choices for action in parser()._actions if action.choices and "ping" in action.choices]
    assert list(choices) == COMMANDS
