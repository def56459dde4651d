"""The point of this test is to ensure that --print-completion gives a script that completes gtask-server in each shell,
or says what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from gtask.server.daemon.options import parser

SYNTAX_CHECKS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}
LONG = {option for action in parser()._actions for option in action.option_strings if option.startswith("--")}


def needs(shell):
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")


@pytest.fixture
def script(operator):
    """``script(shell)`` prints its script into a file; gives the path."""

    def script(shell):
        if shell != "fish":
            pytest.importorskip("shtab")
        done = operator.run("--print-completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        operator.write("script", done.stdout)
        return operator.directory / "script"

    return script


def output(*command):
    """What a shell prints; it must not complain."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("shell", SYNTAX_CHECKS)
def test_the_shell_can_read_it(script, shell):
    """Its syntax is right."""
    needs(shell)
    assert output(*SYNTAX_CHECKS[shell], str(script(shell))) == ""


@pytest.mark.parametrize("shell", SYNTAX_CHECKS)
def test_each_option_is_in_it(script, shell):
    """None is left out."""
    text = script(shell).read_text()
    assert {option for option in LONG if (f"-l {option[2:]}" if shell == "fish" else option) not in text} == set()


def test_bash_completes(script):
    """The options that begin with what is typed, and the values of an option that has few."""
    needs("bash")
    line = (
        'source "$0"; words=("$@"); COMP_WORDS=("${words[@]}"); COMP_CWORD=$(($# - 1)); '
        'function=$(complete -p gtask-server | grep -o -- "-F [^ ]*"); ${function#-F } gtask-server "${words[-1]}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    found = output("bash", "-c", line, str(script("bash")), "gtask-server", "--max-")
    assert set(found.split()) == {"--max-workers", "--max-memory"}
    found = output("bash", "-c", line, str(script("bash")), "gtask-server", "--log-level", "")
    assert set(found.split()) == {"debug", "info", "warning", "error"}


def test_fish_completes(script, monkeypatch, tmp_path):
    """The options with what they are for, and the values of an option that has few."""
    needs("fish")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = str(script("fish"))
    found = output("fish", "--no-config", "-c", f"source {path}; complete -C 'gtask-server --max-'")
    assert {line.partition("\t")[0] for line in found.splitlines()} == {"--max-workers", "--max-memory"}
    assert "more connections wait" in found
    found = output("fish", "--no-config", "-c", f"source {path}; complete -C 'gtask-server --log-level '")
    assert {line.partition("\t")[0] for line in found.splitlines()} == {"debug", "info", "warning", "error"}


@pytest.fixture
def without_shtab(operator):
    """The environment of a gtask-server whose Python has no shtab."""
    (operator.directory / "hidden").mkdir()
    operator.write("hidden/shtab.py", "raise ImportError('hidden')\n")
    return {**os.environ, "PYTHONPATH": f"{operator.directory}/hidden:{os.environ['PYTHONPATH']}"}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shtab_is_missing(operator, without_shtab, shell):
    """The status is 1; what is missing is said on stderr, and nothing is printed that a shell would run."""
    done = operator.run("--print-completion", shell, env=without_shtab)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gtask-server: --print-completion needs shtab: pip install gtask[completion]\n"


def test_fish_needs_no_shtab(operator, without_shtab):
    """Its script is made without it."""
    done = operator.run("--print-completion", "fish", env=without_shtab)
    assert done.returncode == 0
    assert "complete -c gtask-server -l listen -r" in done.stdout


def test_another_shell(operator):
    """One that is not known is named, with those that are."""
    done = operator.run("--print-completion", "csh")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gtask-server: --print-completion: invalid choice: 'csh' (choose from ")
