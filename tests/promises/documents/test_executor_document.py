"""The point of this test is to ensure that docs/executor.rst does not lie: its programs run as they stand there."""

from __future__ import annotations

import re
import shlex

from gtask.server import functions
from gtask.server.daemon import options
from tests.support.documents import named_blocks
from tests.support.process import ROOT
from tests.support.program import run_program

DOCUMENT = (ROOT / "docs" / "executor.rst").read_text(encoding="utf-8")
BLOCKS = named_blocks(DOCUMENT)


def test_the_program(operator):
    """Beside the server of the command that is shown, it prints what is shown."""
    for name in ("pages.py", "book.py"):
        operator.write(name, BLOCKS[name])
    (command,) = re.findall(r"^    \$ gtask-server (.*)$", DOCUMENT, re.MULTILINE)
    operator.address = f"unix:{operator.directory}/pages.sock"
    target, *arguments = shlex.split(command)
    operator.start(*arguments[: arguments.index("--listen")], target=target)
    ran = run_program("book.py", directory=operator.directory, options=())
    assert (ran.stdout, ran.stderr) == (BLOCKS["book.out"], "")


def test_the_commands_are_understood():
    """Each gtask-server that is shown."""
    for command in re.findall(r"^    \$ gtask-server (.*)$", DOCUMENT, re.MULTILINE):
        assert options.parse(shlex.split(command), {}, default_file="").target == options.FUNCTIONS


def test_names_and_numbers_are_those_of_the_code():
    """The mark of chunks, and how many names a worker remembers, which docs/design.rst tells; links lead somewhere."""
    assert f'client.call("{functions.EACH}pages:digest"' in DOCUMENT
    design = " ".join((ROOT / "docs" / "design.rst").read_text(encoding="utf-8").split())
    assert f"a worker remembers at most {functions.REMEMBERED:,} names" in design
    assert [line for line in DOCUMENT.splitlines() if len(line) > 120] == []
