"""The point of this test is to ensure that spawn_server gives a program a server that it can rely on to come and go.

It returns at once, wherever the program stands (threads, a hub); its server ends when it is stopped or when its
program dies, however that dies; and its private socket goes with it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import gtask
from gtask import address
from tests.support.waiting import wait_until

APPLICATION = """
import os

def pids():
    return [os.getpid(), os.getppid()]

def greet(name):
    return f"hello {name}"

mapping = {"double": lambda number: 2 * number}
"""


@pytest.fixture(autouse=True)
def application(tmp_path, monkeypatch):
    """A module ``application`` along the Python path, and a temporary directory of this test's own."""
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "private").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "private"))
    monkeypatch.syspath_prepend(str(tmp_path))


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(*pids):
    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid), f"the end of process {pid}")


def private_directories(tmp_path):
    return list((tmp_path / "private").iterdir())


def test_it_serves_until_it_is_stopped(connect, tmp_path):
    """``.address`` can be connected to, ``.pid`` is the master's, and after ``.stop()`` nothing of it is left."""
    server = gtask.spawn_server("application")
    worker, master = connect(server.address).call("pids")
    assert master == server.pid
    assert isinstance(server.address, address.UnixAddress)
    assert private_directories(tmp_path) == [Path(server.address.path).parent]
    server.stop()
    assert is_gone(server.pid)
    wait_until_gone(worker)
    assert private_directories(tmp_path) == []
    server.stop()


def test_it_is_a_context_manager(connect):
    """Leaving the ``with`` block stops it, also by an exception."""
    with pytest.raises(KeyError, match="on purpose"), gtask.spawn_server("application") as server:
        raise KeyError("on purpose", connect(server.address).call("greet", "ada"))
    assert is_gone(server.pid)
    assert not os.path.exists(server.address.path)


def test_it_returns_before_the_application_is_loaded(connect, tmp_path):
    """A server whose application loads for long is there at once; clients wait for it."""
    os.mkfifo(tmp_path / "may_go_on")
    (tmp_path / "slow.py").write_text(f"open({str(tmp_path / 'may_go_on')!r}).read()\n\ndef answer():\n    return 42\n")
    with gtask.spawn_server("slow") as server, connect(server.address).checkout() as worker:
        result = worker.answer.submit()
        assert not result.ready()
        (tmp_path / "may_go_on").write_text("go on")
        assert result.get() == 42


def test_an_address_and_an_attribute(connect, tmp_path):
    """It listens where it is told to, and serves what ``module:attribute`` names."""
    where = f"unix:{tmp_path}/given.sock"
    with gtask.spawn_server("application:mapping", where) as server:
        assert str(server.address) == where
        assert connect(where).call("double", 21) == 42
    assert not (tmp_path / "given.sock").exists()
    assert private_directories(tmp_path) == []


def test_its_name_is_in_errors(connect):
    """``name=`` is what errors call the server; by default it is the target."""
    for options, name in (({"name": "greetings"}, "greetings"), ({}, "application")):
        with gtask.spawn_server("application", **options) as server:
            with pytest.raises(AttributeError) as caught:
                connect(server.address).call("missing")
            assert f" of {name} at " in caught.value.__notes__[-1]


def test_a_bad_address_is_refused():
    """What is no address is a ValueError, and no process is started."""
    with pytest.raises(ValueError, match="is no address"):
        gtask.spawn_server("application", "somewhere")


def test_where_threads_run(connect):
    """Other threads in the program, which would make a fork unsafe, do not matter."""
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with gtask.spawn_server("application") as server:
            assert connect(server.address).call("greet", "ada") == "hello ada"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_an_application_that_fails_to_load(connect, tmp_path, capfd):
    """A waiting client is told within its time-out that the server cannot be reached; stderr has the traceback."""
    (tmp_path / "broken.py").write_text("raise ImportError('no licence')\n")
    with gtask.spawn_server("broken") as server:
        wait_until_gone(server.pid)
        with pytest.raises(gtask.AcquireTimeout, match="server unreachable"):
            connect(server.address, timeout=0.3).call("anything")
        assert "ended with status 1" in repr(server)
    assert "ImportError: no licence" in capfd.readouterr().err
    assert private_directories(tmp_path) == []


def test_a_killed_server_leaves_no_private_directory(connect, tmp_path):
    """The private directory goes, too, when the server could not remove it itself."""
    with gtask.spawn_server("application") as server:
        connect(server.address).call("greet", "ada")
        os.kill(server.pid, signal.SIGKILL)
    assert private_directories(tmp_path) == []


def test_no_process_could_be_started(monkeypatch, tmp_path):
    """The OSError is the caller's, and neither a descriptor nor a directory is left."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no_python"))
    with pytest.raises(FileNotFoundError):
        gtask.spawn_server("application")
    assert private_directories(tmp_path) == []


PROGRAM = """
import json, os, posix, signal, sys
import gtask

when, with_sibling = sys.argv[1:]
if when == "before it has started":
    with open("python", "w") as file:
        file.write(f"#!/bin/sh\\nread line < may_go_on\\nexec {sys.executable} \\"$@\\"\\n")
    os.chmod("python", 0o700)
    os.mkfifo("may_go_on")
    sys.executable = os.path.abspath("python")
server = gtask.spawn_server("application")
pids = [server.pid]
if when == "while it serves":
    client = gtask.Client(server.address, min_workers=2)
    checkouts = client.checkout(), client.checkout()
    pids += [checkout.pids()[0] for checkout in checkouts]
sibling = 0
if with_sibling == "with a sibling":
    sibling = posix.fork()  # it inherits the writing end of the pipe that tells the server of its parent's end
    if not sibling:
        signal.pause()
        os._exit(0)
with open("pids", "w") as file:
    json.dump([sibling, pids], file)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["while it serves", "before it has started"])
@pytest.mark.parametrize("sibling", ["alone", "with a sibling"])
def test_it_dies_with_its_parent(tmp_path, when, sibling):
    """When its program is killed by SIGKILL, the server and its workers end; also while a sibling holds the pipe."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": tempfile.gettempdir()}
    command = [sys.executable, "program.py", when, sibling]
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=50).returncode == -signal.SIGKILL
    sibling_pid, pids = json.loads((tmp_path / "pids").read_text())
    if when == "before it has started":
        (tmp_path / "may_go_on").write_text("go on\n")
    try:
        wait_until_gone(*pids)
        assert private_directories(tmp_path) == []
    finally:
        for pid in [*pids, sibling_pid]:
            if pid and not is_gone(pid):
                os.kill(pid, signal.SIGKILL)
