"""The point of this test is to ensure that docs/logging.rst does not lie: its programs write what stands there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import gtask
from gtask import logdefer
from gtask import running_call as current
from gtask.aspects.logs import reporter
from tests.support.documents import named_blocks
from tests.support.program import run_program

ROOT = Path(gtask.__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "logging.rst").read_text(encoding="utf-8")
BLOCKS = named_blocks(DOCUMENT)


@pytest.mark.parametrize("program", ["teller", "request"])
def test_the_programs(tmp_path, program):
    """Run beside their applications, they write what the document shows."""
    for name, body in BLOCKS.items():
        if name.endswith(".py"):
            (tmp_path / name).write_text(body)
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    ran = run_program(f"{program}.py", directory=tmp_path, options=(), env=environment)
    assert ran.stdout == BLOCKS[f"{program}.txt"]


def test_the_numbers():
    """Each limit is the code's."""
    text = " ".join(DOCUMENT.split())
    assert f"{reporter.LIMIT >> 20} MiB of records for each call" in text
    assert f"nothing has left for {reporter.PAUSE} s" in text
    characters = logdefer.CHARACTERS >> 20
    assert f"{logdefer.MESSAGES:,} messages of {characters} Mi characters and {logdefer.TIMERS:,} timers" in text


def test_the_parts_of_a_call():
    """All that ``current_call`` gives is told."""
    public = {name for name in dir(current.CurrentCall) if not name.startswith("_")}
    for name in public:
        assert re.search(rf"^\* .*``{name}[`(]", DOCUMENT, re.MULTILINE) or f"and ``{name}``" in DOCUMENT, name
