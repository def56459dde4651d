"""The point of this test is to ensure that docs/howto/legacy.rst does not lie: its programs do what it shows.

A monkey-patched program calls old code, unchanged, whose blocking functions run in workers; and a plain script has a
client.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.documents import named_blocks
from tests.support.program import run_program
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "howto" / "legacy.rst").read_text(encoding="utf-8")
BLOCKS = named_blocks(DOCUMENT)


@pytest.fixture
def run(tmp_path, unmeasured):
    """``run(program)`` runs a program of the page, with the others beside it; gives what it prints, and what it says
    but for the log of its private server."""
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    def run(program):
        ran = run_program(program, directory=tmp_path, status=None)
        wait_until(lambda: not list(tmp_path.glob("gtask-*")), "the end of the private server")
        said = re.sub(r".* (INFO|WARNING) .* gtask.server: .*\n", "", ran.stderr)
        return ran.status, ran.stdout, said

    return run


@pytest.mark.parametrize("program", ["app", "plain"])
def test_programs_print_what_the_page_shows(run, program):
    """The patched one and the plain one, as they stand."""
    assert run(f"{program}.py") == (0, BLOCKS[f"{program}.out"], "")


def test_the_old_code_does_stop_the_hub(run, tmp_path):
    """Without the replacement the same program prints that nothing else has run: the page is about something."""
    source = BLOCKS["app.py"]
    unhelped = source.replace("    setattr(ledger, name, getattr(client.remote, name))\n", "    pass\n")
    assert unhelped != source
    (tmp_path / "app.py").write_text(unhelped, encoding="utf-8")
    status, printed, said = run("app.py")
    assert (status, said) == (0, "")
    assert printed.splitlines()[:3] == BLOCKS["app.out"].splitlines()[:3]
    assert "other threads ran meanwhile: False" in printed


def test_old_code_is_served_and_called_as_it_is():
    """No module of the old code knows of gtask or gevent."""
    for name in ("ledger.py", "monthly.py"):
        assert not re.search(r"import .*(gtask|gevent)", BLOCKS[name])
