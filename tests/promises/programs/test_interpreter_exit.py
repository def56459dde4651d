"""The point of this test is to ensure that a program may simply end, whatever it has under way in its workers.

Without a ``close()``, with a checkout held and results pending it exits promptly, with its own status, without a
traceback on stderr, and its workers go. Each test is a program of its own.
"""

import json
import os
import textwrap
from pathlib import Path

import pytest

from tests.support.program import run_program
from tests.support.waiting import wait_until

APPLICATION = """
import os

def pid():
    return os.getpid()

def wait_for(path):
    open(path).read()
    return "waited"
"""

PLAIN = "import gevent\n"
PATCHED = "from gevent import monkey; monkey.patch_all()\nimport gevent\n"

BEGINNING = """
import json, os, sys
import gtask

client = gtask.Client(sys.argv[1], min_workers=2)

def tell(**facts):
    with open("facts.new", "w") as file:
        json.dump(facts, file)
    os.rename("facts.new", "facts")

"""

HELD = "checkout = client.checkout()\ntell(workers=[checkout.pid()])\n"
PENDING = HELD + "pending = [checkout.wait_for.submit(os.path.abspath('never')) for _ in range(3)]\ngevent.sleep(0)\n"
IN_LINE = PENDING + "more = [client.checkout().wait_for.submit(os.path.abspath('never')) for _ in range(30)]\n"
IN_GREENLETS = (
    HELD
    + "greenlets = [gevent.spawn(checkout.wait_for, os.path.abspath('never')) for _ in range(3)]\ngevent.sleep(0)\n"
)
IN_A_CYCLE = PENDING + "cycle = [client, checkout, pending]\ncycle.append(cycle)\ndel client, checkout, pending\n"
IN_A_MODULE = PENDING + "import this_one\nthis_one.kept = client, checkout, pending\n"


@pytest.fixture(params=[PLAIN, PATCHED], ids=["plain", "patched"])
def run(request, tmp_path):
    """``run(source, address, status=0)`` runs a program whose stderr must stay empty; gives what it told."""
    os.mkfifo(tmp_path / "never")
    (tmp_path / "this_one.py").write_text("")

    def run(source, address, status=0):
        source = request.param + BEGINNING + textwrap.dedent(source)
        # 20 s are far more than an exit takes and less than any time-out in a client or server.
        ran = run_program(source, address, directory=tmp_path, status=status, deadline=20)
        return json.loads((tmp_path / "facts").read_text()), ran.stderr

    return run


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pids):
    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid), f"the end of worker {pid}")


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    "source",
    [HELD, PENDING, IN_LINE, IN_GREENLETS, IN_A_CYCLE, IN_A_MODULE],
    ids=["held", "pending", "in line", "in greenlets", "in a cycle", "in a module"],
)
def test_the_end_of_the_program(run, serve, source):
    """The program ends with status 0 and an empty stderr; its workers go, also in the middle of a call."""
    server = serve(APPLICATION)
    facts, stderr = run(source, server.address)
    assert stderr == ""
    wait_until_gone(facts["workers"])
    wait_until(lambda: not children(server.pid), "the end of all workers")


@pytest.mark.parametrize("source", [HELD, PENDING, IN_LINE], ids=["held", "pending", "in line"])
def test_a_private_server_goes_with_it(run, tmp_path, source):
    """The server of a ``Client("spawn:...")`` goes, with workers that are in the middle of a call."""
    (tmp_path / "application.py").write_text(APPLICATION)
    facts, stderr = run(source, "spawn:application")
    assert "Traceback" not in stderr
    wait_until_gone(facts["workers"])
    wait_until(lambda: not list(tmp_path.glob("gtask-*")), "the end of the private socket")


def test_the_status_is_the_programs(run, shared):
    """``sys.exit(3)`` in the middle of a checkout is status 3, without a word on stderr."""
    _, stderr = run(PENDING + "with checkout: sys.exit(3)\n", shared(APPLICATION).address, status=3)
    assert stderr == ""


def test_an_exception_of_the_program(run, shared):
    """An exception that ends the program is shown, and nothing after it."""
    facts, stderr = run(HELD + "with checkout: 1 / 0\n", shared(APPLICATION).address, status=1)
    wait_until_gone(facts["workers"])
    assert stderr.count("Traceback") == 1
    assert stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_system_exit_in_a_greenlet(run, shared):
    """A greenlet that exits the program ends it while the main greenlet waits for a call."""
    source = HELD + "gevent.spawn(sys.exit, 5)\ncheckout.wait_for(os.path.abspath('never'))\n"
    facts, stderr = run(source, shared(APPLICATION).address, status=5)
    assert "Error" not in stderr
    wait_until_gone(facts["workers"])
