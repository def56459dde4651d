"""The point of this test is to ensure that --help is complete, and tells of the signals what all others tell."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

import gtask
from gtask.server.config import SIGNALS, ServerConfig
from gtask.server.daemon import keeper, options

ROOT = Path(gtask.__file__).parents[1]
BY_ANOTHER_NAME = {"addresses": "listen", "freeze": "no_freeze"}


@pytest.fixture
def shown(operator):
    """What the command prints on a terminal of 80 columns."""
    done = operator.run("--help", env={**os.environ, "COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_field_has_its_option(shown):
    """All that a server can be told, but what only gtask itself sets, is there to be told."""
    fields = {field.name for field in dataclasses.fields(ServerConfig)} - {"private"}
    wanted = {f"--{BY_ANOTHER_NAME.get(field, field).replace('_', '-')}" for field in fields}
    assert wanted - set(re.findall(r"^  (--[\w-]+)", shown, re.MULTILINE)) == set()


def test_it_is_grouped(shown):
    """The options stand in groups with names, in an order that goes from the outside in."""
    headings = re.findall(r"^(\w[\w ]*):$", shown, re.MULTILINE)
    groups = ["what and how", "sockets", "workers", "process", "log"]
    assert [heading for heading in headings if heading in groups] == groups
    assert headings[-1] == "signals"


def test_it_fits_a_terminal(shown):
    """No line is longer than 80 columns."""
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def test_defaults_are_those_of_the_code(shown):
    """Each number that is told as a default is one."""
    told = re.findall(r"--([\w-]+) \S+\s+(?:(?!\n  --).)*?\(default:\s+([\d.]+)\)", shown, re.DOTALL)
    config = ServerConfig((gtask.address.parse("unix:x"),))
    assert {name for name, _ in told} >= {"backlog", "socket-mode", "stop-timeout", "graceful-timeout", "nice"}
    for name, default in told:
        actual = getattr(config, name.replace("-", "_"))
        assert (f"{actual:o}" if name == "socket-mode" else f"{actual:.10g}") == default, name


def rows_of_help(text):
    """The table of signals: names, and what they do."""
    table = text[text.index("\nsignals:\n") : text.index("\nexit status:")]
    rows = re.findall(r"^  (\w[\w, ]*?)  +(\S.*(?:\n {13}.*)*)", table, re.MULTILINE)
    return {names: " ".join(effect.split()) for names, effect in rows}


def rows_of_code():
    """The same of the table in the code."""
    names: dict[str, list[str]] = {}
    for number, effect in SIGNALS.items():
        names.setdefault(effect, []).append(number.name.removeprefix("SIG"))
    return {", ".join(together): effect for effect, together in names.items()}


def test_the_signals_are_those_that_the_keeper_hears(shown):
    """The table of --help, that of the keeper, and that of docs/signals.rst are one."""
    assert keeper.SIGNALS is SIGNALS
    document = (ROOT / "docs" / "signals.rst").read_text(encoding="utf-8")
    table = document.split("========= ")[2].partition("\n")[2]
    assert rows_of_help(shown) == rows_of_code()
    assert dict(re.findall(r"^([A-Z][\w, ]*?) +([a-z].*)$", table, re.MULTILINE)) == rows_of_code()


def test_exit_statuses_are_told(shown):
    """All three, in one sentence."""
    sentence = " ".join(shown[shown.index("exit status:") :].split())
    assert sentence == "exit status: 0 after an orderly stop, 1 if it cannot serve, 2 for wrong arguments."


def test_the_three_sources_are_told(shown):
    """The file and the variable are named, and who wins."""
    text = " ".join(shown.split())
    assert f"./{options.DEFAULT_FILE}" in text
    assert f"environment variable {options.ARGUMENTS}" in text
    assert "The command line wins" in text


def test_help_needs_nothing_else(operator):
    """It is shown whatever else is wrong, and from the environment as well."""
    operator.write("gtask.conf.py", "1 / 0\n")
    assert operator.run("--help").stdout.startswith("usage: gtask-server ")
    done = operator.run(env={**os.environ, "GTASK_SERVER_ARGS": "--help"})
    assert done.stdout.startswith("usage: gtask-server ")
