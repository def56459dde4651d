"""The point of this test is to ensure that the manual pages of gtask and gtask-server have all that --help has.

``bin/man`` writes them; it is to be run after a change of an option.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from gtask.server.daemon import options
from gtask.tool import cli
from tests.support.needs import fail_or_skip

FOLDER = Path(__file__).parents[3] / "docs" / "man"
PARSERS = {"gtask.1": cli.parser, "gtask-server.1": options.parser}


def actions(parser):
    """All arguments, those of the commands included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)
        else:
            yield action


@pytest.mark.parametrize("name", PARSERS)
def test_all_is_there(name):
    """Each option and each argument with its help, and each command."""
    text = (FOLDER / name).read_text(encoding="utf-8").replace("\\-", "-").replace("\\&", "")
    parser = PARSERS[name]()
    for action in actions(parser):
        for option in action.option_strings:
            assert option in text, option
        assert (action.help or "") % {**vars(action), "prog": parser.prog} in text, f"run bin/man: {action}"
    commands = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for command in commands[0] if commands else ():
        assert f"\n.SS gtask {command}\n" in text


@pytest.mark.parametrize("name", PARSERS)
def test_man_can_show_it(name):
    """Without a warning."""
    if not shutil.which("groff"):
        fail_or_skip("groff (apt-get install groff-base)")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", str(FOLDER / name)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert name.removesuffix(".1") in done.stdout
