"""The point of this test is to ensure that the program of docs/howto/databases.rst does what the page says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gtask
from tests.documents import named_blocks

ROOT = Path(gtask.__file__).parents[1]
BLOCKS = named_blocks((ROOT / "docs" / "howto" / "databases.rst").read_text(encoding="utf-8"))


def test_the_program(operator):
    """A server from a module of the page's, and a program beside it: no cent is lost, whoever is broke."""
    for name in ("bank.py", "transfer.py"):
        operator.write(name, BLOCKS[name])
    command, target, listen, operator.address = BLOCKS["start"].split()
    assert (command, listen) == ("gtask-server", "--listen")
    operator.start(target=target)
    done = subprocess.run(
        [sys.executable, "transfer.py"],
        cwd=operator.directory,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ann, bob, total, broke = done.stdout.splitlines()
    assert ann.startswith("ann ")
    assert bob.endswith(" EUR")
    assert (total, broke) == ("total 20000", "broke True")
