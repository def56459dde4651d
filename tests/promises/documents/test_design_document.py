"""The point of this test is to ensure that docs/design.rst speaks of files that exist, and names each of a call."""

from __future__ import annotations

import re

from tests.promises.house.test_size import RING_1
from tests.promises.house.test_walls import RINGS
from tests.support.process import ROOT

DESIGN = (ROOT / "docs" / "design.rst").read_text(encoding="utf-8")
ORDER = DESIGN.partition("ring 1 in reading order\n")[2].partition("\nRoles\n")[0]


def in_reading_order():
    """The files that the section tells to read, as modules of gtask."""
    folder = ""
    for line in ORDER.splitlines():
        heading = re.match(r"\w.*``gtask/([\w/]+)/``", line)
        folder = heading[1].replace("/", ".") if heading else folder
        item = re.match(r"\d+\. ``(\w+)\.py``", line)
        if item:
            yield f"{folder}.{item[1]}"


def test_the_call_is_read_in_order():
    """Each module of ring 1 is named once, and so is each file whose lines are counted."""
    named = list(in_reading_order())
    assert len(named) == len(set(named)) > 15
    assert set(RINGS[1].split()) - set(named) == set()
    counted = {f"{folder.replace('/', '.')}.{name}" for folder, names in RING_1.items() for name in names.split()}
    assert counted - set(named) == set()
    assert [name for name in named if not (ROOT / "gtask" / f"{name.replace('.', '/')}.py").exists()] == []


def test_the_files_exist():
    """Those of gtask and of the tests that the text names by a path; links lead somewhere."""
    paths = re.findall(r"``([\w/]+/(?:\w+\.py)?)``", DESIGN)
    assert len(paths) > 60
    assert [path for path in paths if not any((ROOT / at / path).exists() for at in ("", "gtask"))] == []
    lines = DESIGN.partition("The life of a call\n")[2].partition("The five seams\n")[0]
    shown = re.findall(r"[\w/]+/\w+\.py", lines)
    assert len(shown) > 20
    assert [path for path in shown if not (ROOT / "gtask" / path).exists()] == []
    links = re.findall(r"`[^`<]+\s<([^>]+)>`_", DESIGN)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert [line for line in DESIGN.splitlines() if len(line) > 120] == []
