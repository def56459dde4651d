"""The point of this test is to ensure that a newcomer who types what the README shows, in that order, on a bare Python
of the oldest or the newest version, sees what it promises; and that each page names the packages that it needs.

The folder is a copy of the project, the virtual environment is new, and gtask comes into it by the README's command.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import named_blocks
from tests.support.needs import fail_or_skip
from tests.support.process import ROOT, Background
from tests.support.waiting import PATIENCE

README = (ROOT / "README.rst").read_text(encoding="utf-8")
SOURCES = ("pyproject.toml", "setup.py", "setup.cfg", "README.rst", "LICENSE", "gtask", "bin", "docs")
ELSEWHERE = {"bin/demo", "bin/test"}
"""Commands of the README that other tests run."""

STEP = re.compile(r"^    \$ (?P<command>.+)$|^   :name: (?P<file>\S+)$", re.MULTILINE)

INSTALL = 10 * PATIENCE
"""Seconds for pip, which may have to fetch packages from far away."""


def bare_python(version):
    """The directory of a ``python3`` of this version that can make virtual environments."""
    candidates = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    found = shutil.which(f"python{version}")
    for python in [*candidates, *([Path(found)] if found else [])]:
        tried = subprocess.run([python, "-c", "import ensurepip, venv"], env={}, capture_output=True)
        if tried.returncode == 0:
            return python
    return fail_or_skip(f"Python {version} (pyenv install {version})")


class Newcomer:
    """Does what the README says, in two terminals."""

    def __init__(self, python, home):
        self.folder = home / "gtask"
        self.folder.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.folder / name)
        tools = home / "bin"
        tools.mkdir()
        (tools / "python3").symlink_to(python)
        usual = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "VIRTUAL"))}
        self._environment = {**usual, "PATH": f"{tools}:/usr/bin:/bin"}
        self._terminals = {"first": [], "second": []}  # what each of them has been told that lasts
        self._here = "first"
        self._server = None

    def type(self, command):
        """Type a command into the terminal that the README means; gives what a program prints."""
        if command.startswith(". "):
            self._here = "second" if self._terminals["first"] else "first"
            self._terminals[self._here].append(command)
            return ""
        if command.startswith("gtask-server "):
            self.press_ctrl_c()
            line = self._shell("first", f"exec {command}")
            self._server = Background(line, self.folder / "server.log", cwd=self.folder, env=self._environment)
            return ""
        done = subprocess.run(
            self._shell(self._here, command),
            cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=INSTALL,
        )  # fmt: skip
        if command.startswith("pip ") and "No matching distribution" in done.stderr:
            fail_or_skip(f"package index that pip can reach: {done.stderr}")
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert not re.search("DEPRECATION|Traceback", done.stdout + done.stderr), done.stdout + done.stderr
        return done.stdout

    def _shell(self, terminal, line):
        return ["bash", "-c", "\n".join([*self._terminals[terminal], line])]

    def press_ctrl_c(self):
        """End the server, if one runs."""
        server, self._server = self._server, None
        if server is not None:
            server.process.send_signal(signal.SIGINT)
            try:
                assert server.wait() == 0, server.log
            finally:
                server.process.kill()
                server.process.wait()


@pytest.mark.timeout(2 * INSTALL)
@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_what_the_readme_shows(version, tmp_path):
    """The commands and files, in the order of the page, lead to what the page prints."""
    newcomer = Newcomer(bare_python(version), tmp_path)
    blocks, seen, printed = named_blocks(README), [], ""
    try:
        for step in STEP.finditer(README):
            command, name = step["command"], step["file"]
            if name and name.endswith(".out"):
                assert printed == blocks[name]
                seen.append(name)
            elif name:
                (newcomer.folder / name).write_text(blocks[name], encoding="utf-8")
            elif command not in ELSEWHERE:
                printed = newcomer.type(command)
    finally:
        newcomer.press_ctrl_c()
    assert seen == ["sign_in.out", "transfer.out"]


def test_install_comes_first():
    """It follows the two commands, and says that a second terminal needs the environment, too."""
    titles = re.findall(r"^(\S.*)\n-+$", README, re.MULTILINE)
    assert titles[:3] == ["Two commands", "Install", "Hash passwords"]
    section = README.partition("\nInstall\n")[2].partition("\nHash passwords\n")[0]
    assert section.count("$ . venv/bin/activate") == 2
    assert "pip install ." in section


# --- packages --------------------------------------------------------------------------------------------

WITH_GTASK = {"gtask", "gevent", "msgpack"}
PACKAGES = {"psycopg2": "psycopg2-binary", "opentelemetry": "opentelemetry-api"}
"""The name of a package whose module has another one."""

PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst")), *sorted((ROOT / "docs" / "howto").glob("*.rst"))]


def imported(source):
    """The top-level modules that a program imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def needed(page):
    """The modules that the programs of a page import and that neither Python, gtask nor the page itself has."""
    blocks = named_blocks(page.read_text(encoding="utf-8"))
    own = {name.removesuffix(".py").partition("/")[0] for name in blocks}
    own |= {path.stem for path in (ROOT / "docs" / "examples").glob("*.py")}
    found = {module for name, text in blocks.items() if name.endswith(".py") for module in imported(text)}
    return found - own - WITH_GTASK - sys.stdlib_module_names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_page_names_its_packages(page):
    """What its programs import, and what its commands start, is installed by a command that the page shows."""
    text = page.read_text(encoding="utf-8")
    installs = " ".join(re.findall(r"pip install ([^`\n]+)", text))
    named = set(re.findall(r"[\w-]+", installs))
    wanted = {PACKAGES.get(module, module) for module in needed(page)}
    wanted |= set(re.findall(r"^ +\$ (?:[A-Z_]+=\S+ )*(gunicorn|flask|uwsgi) ", text, re.MULTILINE))
    assert wanted - named == set()


def test_the_first_example_needs_python_alone():
    """No program of the README imports what has to be installed beside gtask."""
    assert needed(ROOT / "README.rst") == set()
