"""The point of this test is to ensure that docs/troubleshooting.rst speaks of messages and numbers that there are."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
from dataclasses import fields
from pathlib import Path

from gtask import stats

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "troubleshooting.rst").read_text(encoding="utf-8")
TABLES = re.findall(r"^=+ =+ =+\n.*\n=+ =+ =+\n((?:.+\n)+?)=+ =+ =+\n", DOCUMENT, re.MULTILINE)


def texts_of_the_code():
    """All strings of gtask but its docstrings, with N for what is put in; without blanks."""
    for path in (ROOT / "gtask").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, (ast.JoinedStr, ast.Constant)) and node not in docstrings:
                parts = getattr(node, "values", [node])
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "N" for part in parts)
                yield squeezed(re.sub(r"%[.\d]*[a-z]", "N", text))


def squeezed(text):
    """Whether a blank stands before what is put in is a matter of what is put in."""
    return re.sub("N+", "N", "".join(text.split()))


def test_every_message():
    """What is quoted as a message is part of a text in the code."""
    _, *tables, _ = TABLES
    quoted = [text for table in tables for text in re.findall(r"^``(.+?)``(?=[, ])", table, re.MULTILINE)]
    assert len(quoted) > 35
    of_the_system = {squeezed(f"{os.strerror(number).lower()} at N") for number in errno.errorcode}
    code = set(texts_of_the_code()) | of_the_system
    assert [text for text in quoted if not any(squeezed(text) in known for known in code)] == []


def test_every_number():
    """What is quoted as a number of client.stats() is one, and the causes are the code's or signals."""
    *_, numbers = TABLES
    names = set(re.findall(r"^``(\w+)", numbers, re.MULTILINE))
    assert len(names) > 5
    assert names <= {field.name for field in fields(stats.ClientStats)}
    causes = re.findall(r'(retirements|deaths)\["([^"]+)"\]', DOCUMENT)
    assert {counter for counter, _ in causes} == {"retirements", "deaths"}
    code = set(texts_of_the_code()) | set(signal.Signals.__members__)
    assert [cause for _, cause in causes if squeezed(cause) not in code] == []
