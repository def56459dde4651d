"""The point of this test is to ensure that docs/howto/moving.rst does not lie: old and new ways give the same.

Its program runs both of them for multiprocessing, gipc and gevent.threadpool, and the new one for zerorpc and Celery.
"""

from __future__ import annotations

import inspect
import re
from importlib.util import find_spec
from pathlib import Path

import gtask
from tests.support.documents import named_blocks
from tests.support.needs import fail_or_skip
from tests.support.program import run_program
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "howto" / "moving.rst").read_text(encoding="utf-8")
BLOCKS = named_blocks(DOCUMENT)


def test_the_program_prints_what_the_page_shows(tmp_path, unmeasured):
    """Without a warning, and it leaves no private server behind."""
    if find_spec("gipc") is None:
        fail_or_skip("gipc: pip install gipc")
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    ran = run_program("moving.py", directory=tmp_path)
    assert re.sub(r".* (INFO|WARNING) .* gtask.server: .*\n", "", ran.stderr) == ""
    assert ran.stdout == BLOCKS["moving.out"]
    wait_until(lambda: not list(tmp_path.glob("gtask-*")), "the end of the private servers")


def test_each_library_has_its_section():
    """With what was written, and what is written now."""
    titles = re.findall(r"^(\S.*)\n-+$", DOCUMENT, re.MULTILINE)
    assert titles[:-1] == ["gevent.threadpool", "gipc", "multiprocessing", "zerorpc", "Celery"]
    assert len(re.findall(r"^=+  =+\n(?:``.*\n|nothing.*\n|a .*\n)+=+  =+$", DOCUMENT, re.MULTILINE)) == 5


def test_options_are_those_of_the_client():
    """Each ``gtask.Client(..., option=)`` of the tables exists."""
    named = set(re.findall(r"gtask\.Client\(\.\.\., (\w+)=", DOCUMENT))
    assert named == {"max_workers", "max_checkouts", "timeout"}
    assert named <= set(inspect.signature(gtask.Client).parameters)
    assert set(re.findall(r"``--(\w+)``", DOCUMENT)) == {"insecure"}


def test_functions_of_the_page_are_those_of_its_module():
    """What the snippets call is what jobs.py has."""
    called = set(re.findall(r'client\.call\("(\w+)"', DOCUMENT)) | set(re.findall(r"client\.remote\.(\w+)", DOCUMENT))
    assert called == {"digits", "root"}
    assert all(f"\ndef {name}(" in BLOCKS["jobs.py"] for name in called)
