"""The point of this test is to ensure that docs/security.rst promises nothing that no test holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gtask.aspects.logs import replay
from gtask.wire import limits, mark
from gtask.wire.exceptions import tracebacks
from gtask.wire.values import collisions

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "security.rst").read_text(encoding="utf-8")
TABLES = re.findall(r"^=+ =+\npromise +test\n=+ =+\n(.*?)^=+ =+$", TEXT, re.MULTILINE | re.DOTALL)


def rows(table):
    """The promise and the test of each row; both may have several lines."""
    found = []
    for line in table.splitlines():
        promise, test = line[:73].rstrip(), line[74:].strip()
        if "``tests/" in test:
            found.append([promise, test])
        else:
            found[-1][0] += f" {promise.strip()}"
            found[-1][1] += test
    return [(promise.strip(), test) for promise, test in found]


ROWS = [row for table in TABLES for row in rows(table)]


@pytest.mark.parametrize(("promise", "test"), ROWS, ids=[test for _, test in ROWS])
def test_each_promise_has_its_test(promise, test):
    """The file is there, and begins with a promise of its own."""
    (path,) = re.findall(r"``(tests/[\w/.]+)``", test)
    assert (ROOT / path).read_text(encoding="utf-8").startswith('"""')
    assert promise.endswith(".")


def test_there_are_promises():
    """The tables were found."""
    assert len(TABLES) == 3
    assert len(ROWS) >= 8


def test_numbers():
    """They are those of the code."""
    text = " ".join(TEXT.split())
    assert f"at most {tracebacks._READ_LIMIT >> 20} MiB for one traceback" in text
    assert f"at most {mark.LONGEST >> 10} KiB are kept" in text
    assert f"for at most {replay.MOST_MADE:,} that" in text
    assert f"longer than {replay.LONGEST >> 20} MiB" in text
    assert f"at most {collisions.MOST_COLLISIONS:,} may have the" in text
    assert f"at most {limits.DEFAULTS.items:,} lists" in text
    assert f"A greeting has at most {limits.DEFAULTS.first_message >> 10} KiB" in text
    assert limits.DEFAULTS.extension == 24 * 3600


def test_the_readme_links_it():
    """A reader who asks for security finds it."""
    assert "docs/security.rst" in (ROOT / "README.rst").read_text(encoding="utf-8")
