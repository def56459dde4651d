"""The point of this test is to ensure that Client("spawn:module") has a server of its own while it needs one.

The server is started at the first use, not at construction; it ends with ``client.close()``, and with the program.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import gevent
import pytest

import gtask
from gtask import testing
from tests.support.waiting import wait_until

APPLICATION = """
import os
import signal
from pathlib import Path

Path("loaded").touch()

def pids():
    return [os.getpid(), os.getppid()]

def greet(name):
    return f"hello {name}"

def wait_for(path):
    with open(path) as fifo:
        return fifo.readline()

mapping = {"double": lambda number: 2 * number}

class Stubborn:
    def __init__(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def pids(self):
        return pids()

    def teardown(self):
        Path("tearing_down").touch()
        open("may_end").read()
        Path("torn_down").touch()
"""


@pytest.fixture(autouse=True)
def application(tmp_path, monkeypatch):
    """A module ``application`` along the Python path; the server works in this test's directory, as this process."""
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "private").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "private"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(*pids):
    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid), f"the end of process {pid}")


def private_directories():
    return list(Path("private").iterdir())


def test_nothing_is_started_at_construction(connect):
    """Construction makes no process, directory or descriptor; the first call makes the server."""
    before = testing.Leftovers()
    client = connect("spawn:application")
    assert before.since() == []
    assert private_directories() == []
    assert client.call("greet", "ada") == "hello ada"
    assert Path("loaded").exists()


def test_open_starts_it(connect):
    """``client.open()`` is a first use, too."""
    client = connect("spawn:application", min_workers=1)
    client.open()
    assert len(private_directories()) == 1
    wait_until(Path("loaded").exists, "the load of the application")


def test_an_attribute(connect):
    """``spawn:module:attribute`` serves that attribute."""
    assert connect("spawn:application:mapping").call("double", 21) == 42


def test_a_target_must_be_named():
    """``spawn:`` alone is a ValueError that shows the form."""
    with pytest.raises(ValueError, match="spawn:module"):
        gtask.Client("spawn:")


def test_all_its_workers_have_one_server(connect):
    """Several checkouts of a client are served by several workers of one master, a child of this process."""
    client = connect("spawn:application")
    with client.checkout() as one, client.checkout() as other:
        (first, master), (second, same_master) = one.pids(), other.pids()
    assert first != second
    assert master == same_master
    assert master in testing.Leftovers().children


def test_two_clients_have_two_servers(connect):
    """A spawned server is its client's alone; closing one client leaves the other's."""
    one, other = connect("spawn:application"), connect("spawn:application")
    first, second = one.call("pids")[1], other.call("pids")[1]
    assert first != second
    one.close()
    wait_until_gone(first)
    assert other.call("pids")[1] == second


def test_it_ends_with_close(connect):
    """After ``client.close()`` the server, its worker and its private directory go."""
    client = connect("spawn:application")
    pids = client.call("pids")
    client.close()
    wait_until_gone(*pids)
    wait_until(lambda: not private_directories(), "the end of the private directory")


def test_it_ends_with_the_with_block(connect):
    """A client is a context manager that closes it."""
    with connect("spawn:application") as client:
        pids = client.call("pids")
    wait_until_gone(*pids)


def test_a_held_checkout_is_served_to_its_end(connect):
    """A client that is closed while a call runs lets the call finish; then the server ends."""
    os.mkfifo("may_go_on")
    fifo = os.open("may_go_on", os.O_RDWR)  # to open it for writing alone would wait for the worker
    client = connect("spawn:application")
    checkout = client.checkout()
    pids = checkout.pids()
    result = checkout.wait_for.submit("may_go_on")
    client.close()
    os.write(fifo, b"go on\n")
    assert result.get() == "go on\n"
    os.close(fifo)
    assert checkout.pids() == pids
    checkout.release()
    wait_until_gone(*pids)


def test_a_dropped_client_ends_its_server():
    """A client that nothing refers to any more ends its server, as ``close()`` does."""
    client = gtask.Client("spawn:application", min_workers=0, timeout=30)
    pids = client.call("pids")
    del client
    wait_until_gone(*pids)


def test_close_does_not_stop_the_hub(connect):
    """While a server takes its time to end, other greenlets of this program run on."""
    os.mkfifo("may_end")
    client = connect("spawn:application:Stubborn")
    pids = client.call("pids")

    def let_it_end():
        wait_until(Path("tearing_down").exists, "the teardown of the worker")
        Path("may_end").write_text("end now")

    other = gevent.spawn(let_it_end)
    client.close()
    other.get()
    wait_until(Path("torn_down").exists, "the end of the teardown")
    wait_until_gone(*pids)


def test_an_application_that_fails_to_load(connect, capfd):
    """The error says that the private server ended, and why; stderr has it, too."""
    Path("broken.py").write_text("raise ImportError('no licence')\n")
    client = connect("spawn:broken", min_workers=1)
    before = testing.Leftovers()
    client.open()
    (server,) = testing.Leftovers().children - before.children
    wait_until_gone(server)
    with pytest.raises(gtask.SetupError, match="the private server ended with status 1") as caught:
        client.checkout(timeout=60).anything()
    assert "ImportError: no licence" in str(caught.value)
    assert "ImportError: no licence" in capfd.readouterr().err
    client.close()
    wait_until(lambda: not private_directories(), "the end of the private directory")


def test_a_killed_server_is_told(connect, caplog):
    """When the server was killed, a warning says so, and callers get another one."""
    client = connect("spawn:application", max_checkouts=1)
    worker, server = client.call("pids")
    os.kill(server, signal.SIGKILL)
    wait_until_gone(server, worker)
    assert client.call("pids")[1] != server
    assert [text for text in caplog.messages if "the private server was killed by SIGKILL" in text]


PROGRAM = """
import json, os, signal, sys
import gtask

client = gtask.Client("spawn:application", min_workers=2)
checkout = client.checkout()
with open("pids", "w") as file:
    json.dump(checkout.pids(), file)
{end}
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [("", 0), ("sys.exit(3)", 3), ("os._exit(4)", 4), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
    ids=["at its last line", "by sys.exit", "by os._exit", "by SIGKILL"],
)
def test_it_ends_with_the_program(end, status):
    """A program that ends without ``close()``, in whatever way, leaves no server, worker or directory."""
    Path("program.py").write_text(PROGRAM.format(end=end))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": tempfile.gettempdir()}
    done = subprocess.run([sys.executable, "program.py"], env=environment, timeout=50)
    assert done.returncode == status
    wait_until_gone(*json.loads(Path("pids").read_text()))
    assert private_directories() == []
