"""The point of this test is to ensure that the programs of docs/howto/databases.rst do what the page says."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import gtask
from tests.support.documents import named_blocks
from tests.support.program import run_program

ROOT = Path(gtask.__file__).parents[1]
BLOCKS = named_blocks((ROOT / "docs" / "howto" / "databases.rst").read_text(encoding="utf-8"))


def run(operator, program):
    """What a program of the page's writes, beside the server that runs."""
    operator.write(program, BLOCKS[program])
    ran = run_program(program, directory=operator.directory, options=())
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def test_the_program(operator):
    """A server from a module of the page's, and a program beside it: no cent is lost, whoever is broke."""
    operator.write("bank.py", BLOCKS["bank.py"])
    command, target, listen, operator.address = BLOCKS["start"].split()
    assert (command, listen) == ("gtask-server", "--listen")
    operator.start(target=target)
    ann, bob, total, broke = run(operator, "transfer.py")
    assert ann.startswith("ann ")
    assert bob.endswith(" EUR")
    assert (total, broke) == ("total 20000", "broke True")


def test_sqlalchemy(operator):
    """Two hundred sessions over four workers spend what there is, and no more."""
    pytest.importorskip("sqlalchemy", "2.1.0")
    if not metadata.entry_points(group="sqlalchemy.dialects", name="sqlite.gtask"):
        pytest.skip("gtask is not installed, so SQLAlchemy does not find its dialect")
    operator.address = "unix:shop.sock"
    operator.start(target="gtask.server.dbapi:sqlite3")
    assert run(operator, "shop.py") == ["100 spent, 100 broke, 0 left"]
