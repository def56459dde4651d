"""The point of this test is to ensure that the README does not lie: what it shows runs and prints what it says.

Its two synopses are taken out of README.rst and run as a reader would: the modules are written into a folder, the
server is started there by the command of the README, and the programs are run beside it.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gtask

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text(encoding="utf-8")
BLOCKS = {
    name: textwrap.dedent(body)
    for name, body in re.findall(
        r"^\.\. code-block:: \w+\n   :name: (\S+)\n\n((?:   .*\n|\n(?=\n*   ))+)", README, re.MULTILINE
    )
}
COMMANDS = re.findall(r"^    \$ (.+)$", README, re.MULTILINE)
SECTIONS = [
    "gtask",
    "Two commands",
    "Hash passwords",
    "A transaction",
    "When to use it, and when not",
    "Concepts",
    "Compared with",
    "Read on",
]

PATH = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / "bin"), os.environ.get("PATH", os.defpath)])
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
ENVIRONMENT = {**os.environ, "PATH": PATH, "PYTHONPATH": PYTHONPATH}


@pytest.fixture
def run_command(tmp_path):
    """``run_command(line)`` starts a program in the test's folder; at the end it is asked to stop, and must."""
    processes = []

    def start(line):
        process = subprocess.Popen(shlex.split(line), cwd=tmp_path, env=ENVIRONMENT)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("server", "program", "first_call"),
    [("hasher", "sign_in", ("hash", "x")), ("bank", "transfer", ("execute", "SELECT 1"))],
)
def test_synopsis_runs(server, program, first_call, run_command, connect, tmp_path):
    """A synopsis, typed in as it stands, prints what the README says."""
    for name in (f"{server}.py", f"{program}.py"):
        (tmp_path / name).write_text(BLOCKS[name], encoding="utf-8")
    (command,) = (line for line in COMMANDS if line.startswith(f"gtask-server {server}"))
    run_command(command)
    connect(f"unix:{tmp_path}/{server}.sock", timeout=30).call(*first_call)  # waits for the server
    ran = subprocess.run(
        [sys.executable, f"{program}.py"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=50
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == (BLOCKS[f"{program}.out"], "", 0)


def test_examples_are_those_of_the_readme():
    """The programs of the README are in docs/examples as they stand, to be copied from there."""
    shown = {name: text for name, text in BLOCKS.items() if name.endswith(".py")}
    assert set(shown) == {"hasher.py", "sign_in.py", "bank.py", "transfer.py"}
    assert {name: (ROOT / "docs/examples" / name).read_text(encoding="utf-8") for name in shown} == shown


def test_sections_are_in_order():
    """What it is comes first, then the commands, the synopses, when to use it, the concepts, the comparison, links."""
    assert re.findall(r"^(\S.*)\n(?:=+|-+)$", README, re.MULTILINE) == SECTIONS


def test_commands_and_links_lead_somewhere():
    """Each command but gtask-server, which another test runs, and each link is a file of this project."""
    commands = {line for line in COMMANDS if not line.startswith("gtask-server ")}
    assert commands == {"bin/demo", "bin/test"}
    assert {name for name in commands if not os.access(ROOT / name, os.X_OK)} == set()
    links = re.findall(r"`[^`<]+\s<([^>]+)>`_", README)
    assert len(links) == 6
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_names_and_numbers_are_those_of_the_code():
    """Every ``gtask.name`` of the README exists, and the defaults that it tells are the client's."""
    names = set(re.findall(r"\bgtask\.([A-Za-z_]+)", README))
    assert {"Client", "Server", "fork_server", "spawn_server", "RemoteError", "Error"} <= names
    assert {name for name in names if not hasattr(gtask, name)} == set()
    assert all(name in README and hasattr(gtask, name) for name in ("CallTimeout", "WorkerDied", "Cancelled"))
    options = inspect.signature(gtask.Client).parameters
    told = dict(re.findall(r"``(m\w+_workers)`` \((\d+)\)", README))
    assert told == {name: str(options[name].default) for name in ("min_workers", "max_workers")}
    assert f"A call has {options['timeout'].default:g} seconds" in " ".join(README.split())
