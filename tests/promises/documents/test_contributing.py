"""The point of this test is to ensure that CONTRIBUTING.rst leads to what it promises.

Its commands and paths exist, its picture is that of docs/design.rst, the code that it quotes is that of the tests, and
who follows it to the letter has added an aspect of a call.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.run import HELP, LONG
from tests.support.documents import named_blocks
from tests.support.process import ROOT, environment

DOCUMENT = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs" / "design.rst").read_text(encoding="utf-8")
BLOCKS = named_blocks(DOCUMENT)
NEW = {name for name in BLOCKS if not (ROOT / name).exists()}
"""The files that a reader makes."""

IMPORTERS = ("aspects.caller", "server.worker.parts")
"""The modules that import the aspect of which the document tells."""

QUOTED = re.findall(
    r"From\n?\s*``(tests/\S+)``:\n\n\.\. code-block:: python\n\n((?:   .*\n|\n(?=\n*   ))+)", DOCUMENT
)  # fmt: skip
"""The code that stands in a test: its file, and the text."""


def picture(document):
    """The picture of the rings."""
    return re.search(r"^ +\+-+\+\n(?: +[|+].*\n)+", document, re.MULTILINE)[0]


def commands():
    """Each command that is shown, without what is said of it."""
    return [line.partition("#")[0].strip() for line in re.findall(r"^ +\$ (.*)$", DOCUMENT, re.MULTILINE)]


def patched(source, diff):
    """A file after a change that is shown as lines with "+" and "-"; other lines only say where."""
    for hunk in diff.split("@@\n"):
        lines = hunk.rstrip("\n").split("\n")
        old = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
        new = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def test_the_commands_exist():
    """Programs are there, options and parts are known, and nothing that pytest is given is missing."""
    bench = (ROOT / "docs" / "performance.rst").read_text(encoding="utf-8")
    for command in commands():
        program, *arguments = shlex.split(command)
        if program.startswith("bin/"):
            assert (ROOT / program).exists(), command
        if program == "bin/test":
            for argument in arguments:
                known = argument in HELP or argument in LONG or argument in NEW or (ROOT / argument).exists()
                assert known or argument in ("-k", "frame"), command
        if program == "bin/bench":
            for argument in arguments:
                assert f"``{argument}" in bench, command
        for path in re.findall(r"tests/\S+", command):
            assert path in NEW or (ROOT / path).exists(), command
    assert {command.split()[0] for command in commands()} >= {"bin/venv", "bin/test", "bin/bench", ".venv/bin/python"}


def test_the_paths_exist():
    """Each file and folder that is named."""
    named = re.findall(r"``((?:gtask|tests|docs|bench|bin|\.ci)/[\w./-]*)``", DOCUMENT)
    assert len(named) > 30
    assert [name for name in named if name not in NEW and not (ROOT / name).exists() and "NAME" not in name] == []
    links = re.findall(r"`[^`<]+\s<([^>]+)>`_", DOCUMENT)
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert [line for line in DOCUMENT.splitlines() if len(line) > 120] == []


def test_it_is_found():
    """The README and the design lead to it."""
    assert "<CONTRIBUTING.rst>" in (ROOT / "README.rst").read_text(encoding="utf-8")
    assert "<../CONTRIBUTING.rst>" in DESIGN


def test_the_picture_is_that_of_the_design():
    """Both pages show the rings in the same way."""
    assert picture(DOCUMENT) == picture(DESIGN)


@pytest.mark.parametrize(("path", "code"), QUOTED, ids=[f"{path} {code.split()[1]}" for path, code in QUOTED])
def test_quoted_code_is_that_of_the_tests(path, code):
    """Line by line, at whatever depth it stands there."""
    first, *rest = (re.escape(line) for line in textwrap.dedent(code).strip().split("\n"))
    pattern = "\n".join(["(?P<depth> *)" + first, *("(?P=depth)" + line if line else "" for line in rest)])
    assert re.search(f"^{pattern}$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), path


def test_all_seams_have_an_example():
    """The toys of aspects on both sides, of a dialect, of a kind and of an attendant."""
    assert [code.split()[1].partition("(")[0] for _, code in QUOTED] == ["User", "Diary", "lines", "=", "Echo"]


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A copy of the project in which a reader has added the aspect."""
    tree = tmp_path_factory.mktemp("followed")
    for name in ("gtask", "tests", "docs", "bin", "setup.cfg"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    for name, text in BLOCKS.items():
        path = tree / name
        path.write_text(text if name in NEW else patched(path.read_text(encoding="utf-8"), text), encoding="utf-8")
    walls = tree / "tests/promises/house/test_walls.py"
    source = walls.read_text(encoding="utf-8")
    for importer in IMPORTERS:
        assert source.count(f'    "{importer}": "') == 1
        source = source.replace(f'    "{importer}": "', f'    "{importer}": "aspects.origin ')
    walls.write_text(source, encoding="utf-8")
    return tree


def run(tree, *arguments):
    """Run a Python program in the copy."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tree,
        env=environment(PYTHONPATH=str(tree)),
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_who_follows_it_has_added_an_aspect(followed, unmeasured):
    """The new test passes, the walls and the map know the new module, and the linters have nothing to say of it."""
    house = "tests/promises/house"
    walls = [f"test_imports_are_those_of_the_table[{name}]" for name in ("aspects.origin", *IMPORTERS)]
    run(
        followed, "pytest", "-q", "-p", "no:cacheprovider", *sorted(name for name in NEW if "test_" in name),
        f"{house}/test_layout.py", f"{house}/test_walls.py::test_every_module_has_its_place",
        *(f"{house}/test_walls.py::{name}" for name in walls),
    )  # fmt: skip
    for what in (["check"], ["format", "--check"]):
        changed = [name for name in BLOCKS if name.endswith(".py") and "walls" not in name]
        run(followed, "ruff", *what, "--config", str(ROOT / "ruff.toml"), *changed)
