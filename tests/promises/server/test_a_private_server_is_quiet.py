"""The point of this test is to ensure that the server of a program adds nothing to what the program writes.

The program's stdout is its own, each record of a worker comes once, and the server's own log shows warnings alone.
"""

from __future__ import annotations

import pytest

from tests.support.program import run_program

JOBS = """
import logging
import os
import subprocess
import sys

print("printed by the module")

def work():
    print("printed by a call")
    sys.stdout.flush()
    os.write(1, b"written by a call\\n")
    subprocess.run(["echo", "echoed by a call"])
    for level in ("info", "warning", "error"):
        getattr(logging.getLogger("jobs"), level)("a record of level %s", level)
    return "value"

def setup():
    logging.getLogger("jobs").warning("a record of setup")
"""

PROGRAM = """
import logging
import sys

import gtask

def program():
    with START as server, gtask.Client(server, max_workers=1) as client:
        print(client.call("work"))

if __name__ == "__main__":
    LOGGING
    program()
"""

PRIVATE = "__import__('contextlib').nullcontext('spawn:jobs_of_it{}')"
STARTS = {
    "spawn": PRIVATE.format(""),
    "reload": PRIVATE.format("?reload"),
    "spawn_server": "__import__('contextlib').nullcontext(gtask.spawn_server('jobs_of_it').address)",
    "fork_server": "__import__('contextlib').nullcontext(FORKED.address)",
}
"""How a program may come by a server. Each gives an address, and the server ends with the program."""


def run(start, logging, directory):
    """What the program writes: to stdout and to stderr."""
    (directory / "jobs_of_it.py").write_text(JOBS)
    source = PROGRAM.replace("START", STARTS[start]).replace("LOGGING", logging)
    if start == "fork_server":
        source = source.replace("import gtask\n", "import gtask\nimport jobs_of_it\nFORKED = None\n")
        source = source.replace("    program()\n", "    FORKED = gtask.fork_server(jobs_of_it)\n    program()\n")
    return run_program(source, directory=directory)


@pytest.mark.parametrize("start", STARTS)
def test_stdout_is_the_programs(start, tmp_path):
    """What is printed in a worker, by whatever means, comes on stderr."""
    ran = run(start, "pass", tmp_path)
    own = "printed by the module\nvalue\n" if start == "fork_server" else "value\n"  # which imports the module itself
    assert ran.stdout == own
    for text in ("printed by a call", "written by a call", "echoed by a call"):
        assert ran.stderr.count(text) == 1


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("logging", ["pass", "logging.basicConfig(level='INFO')"])
def test_each_record_comes_once(start, logging, tmp_path):
    """As the program's logging wants it, and beside it only what it cannot know: a warning outside of a call."""
    ran = run(start, logging, tmp_path)
    wants_info = "INFO" in logging
    for level, times in (("info", int(wants_info)), ("warning", 1), ("error", 1)):
        assert ran.stderr.count(f"a record of level {level}") == times, ran.stderr
    assert ran.stderr.count("a record of setup") == 1
    if start != "fork_server":  # whose log is that of the program, configured as that is
        assert "is listening" not in ran.stderr
        assert "has stopped" not in ran.stderr


def test_the_log_can_be_seen(tmp_path):
    """Where somebody asks for it."""
    (tmp_path / "jobs_of_it.py").write_text(JOBS)
    source = PROGRAM.replace("START", PRIVATE.format("?log_level=info")).replace("LOGGING", "pass")
    ran = run_program(source, directory=tmp_path)
    assert "jobs_of_it is listening at unix:" in ran.stderr


def test_handlers_of_the_application_get_what_they_got(tmp_path):
    """A handler that the module itself adds has all records, also those that go to the caller."""
    source = JOBS + "\nlogging.getLogger().addHandler(logging.FileHandler('of_the_application'))\n"
    (tmp_path / "jobs_of_it.py").write_text(source)
    program = PROGRAM.replace("START", STARTS["spawn"]).replace("LOGGING", "pass")
    run_program(program, directory=tmp_path)
    written = (tmp_path / "of_the_application").read_text()
    assert "a record of level warning" in written
    assert "a record of setup" in written
