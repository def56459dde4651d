"""The point of this test is to ensure that gtask can be read: ring 1 says what a call is, and nothing is long.

Thirteen files of ring 1 have what happens in every call. Together they have 1,500 lines of code at the most,
and this number may only go down. No file has more than 400 lines, and no function more than 40.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

import gtask

PACKAGE = Path(gtask.__file__).parent

RING_1 = {
    "client": "checkout lease calls connection stream outcomes",
    "wire": "conversation frames messages",
    "server/worker": "worker interruption interface replies",
}
"""Folder to files, in reading order: what happens in every call."""

CODE_OF_RING_1 = 1_500
"""Lines, without docstrings, comments and blank ones."""

LONGEST_FILE, LONGEST_FUNCTION = 400, 40
"""Lines: of a file all, of a function all but its docstring."""

LONG = {"client/pool/ledger.py"}
"""Pure, and in one piece."""

FILES = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}

NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def docstrings(tree):
    """The numbers of the lines of all strings that stand alone: docstrings, and those of attributes."""
    return {
        number
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno, node.end_lineno + 1)
    }


def lines_of_code(source):
    """The number of lines with code."""
    numbers = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            numbers.update(range(token.start[0], token.end[0] + 1))
    return len(numbers - docstrings(ast.parse(source)))


def functions(source):
    """The name and the number of lines of each function and method, docstrings not counted."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, len(set(range(node.lineno, node.end_lineno + 1)) - docstrings(node))


def test_what_is_counted():
    """A statement over two lines counts as two; docstrings, comments and blank lines do not count."""
    source = '"""A."""\n\nx = 1  # one\n\n\ndef f():\n    """Two\n    lines."""\n    # no\n    return (x,\n        x)\n'
    assert lines_of_code(source) == 4
    assert list(functions(source)) == [("f", 4)]


def test_ring_1_is_short():
    """All its files are there, and have no more lines of code together than they had."""
    names = [f"{folder}/{name}.py" for folder, files in RING_1.items() for name in files.split()]
    assert [name for name in names if name not in FILES] == []
    counts = {name: lines_of_code(FILES[name]) for name in names}
    assert sum(counts.values()) <= CODE_OF_RING_1, counts


@pytest.mark.parametrize("name", FILES)
def test_no_file_and_no_function_is_long(name):
    """But the pure ledger."""
    length = FILES[name].count("\n")
    assert length <= LONGEST_FILE or name in LONG
    assert [(function, lines) for function, lines in functions(FILES[name]) if lines > LONGEST_FUNCTION] == []
