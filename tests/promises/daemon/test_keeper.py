"""The point of this test is to ensure that a keeper keeps a master alive, and that its own death harms nobody.

Row 52 of the table of faults, in a daemon: held checkouts finish when the master is killed with -9, or the keeper is.
"""

import os
import re
import signal
import socket
import sys

import gevent
import gevent.socket
import pytest

from gtask.wire.frames import Encoder
from gtask.wire.messages import Greeting
from tests.support.daemon import APPLICATION, daemons, write
from tests.support.process import ROOT, children, is_gone, processes
from tests.support.waiting import stays, turn_hub, wait_until


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(*arguments)`` starts a daemon in tmp_path that ends with the test."""
    with daemons(tmp_path) as start:
        yield start


def kill_master(daemon):
    """Kill it with -9, and wait for the keeper's word."""
    deaths = daemon.log.count("another is started")
    os.kill(daemon.serving, signal.SIGKILL)
    daemon.wait_for("another is started", deaths + 1)


def test_a_killed_master_is_replaced_at_once(start, connect):
    """The log says how it ended; a checkout that is held finishes with its worker, which then goes."""
    daemon = start()
    client = connect(daemon)
    with client.checkout() as worker:
        pid, master = worker.pid(), daemon.serving
        kill_master(daemon)
        assert f"master {master} was ended by SIGKILL; another is started in 0 s" in daemon.log
        assert connect(daemon).call("master") == children(daemon.pid)[0] != master
        assert worker.pid() == pid
    daemon.wait_for(" serves", 2)
    client.close()
    wait_until(lambda: is_gone(pid), what="the end of the old worker")
    assert daemon.process.poll() is None


def test_a_running_call_finishes(start, connect, tmp_path):
    """Its caller gets the value, though the master that forked the worker is dead."""
    daemon = start()
    os.mkfifo(tmp_path / "gate")
    with connect(daemon).checkout() as worker:
        assert worker.pid()
        running = worker.wait_for.submit(str(tmp_path / "gate"))
        with open(tmp_path / "gate", "w") as gate:  # opens when the call has begun
            kill_master(daemon)
            gate.write("finished")
        assert running.get() == "finished"


def test_back_off_if_it_dies_again(start, connect):
    """The second death within a second makes a pause; whoever connects meanwhile waits, and is served after it."""
    daemon = start()
    kill_master(daemon)
    daemon.wait_for(" serves", 2)
    kill_master(daemon)
    pauses = re.findall(r"another is started in (\S+) s", daemon.log)
    assert pauses[-1] != "0"
    assert daemon.log.count(" serves") == 2
    assert connect(daemon, timeout=30).call("master") == children(daemon.pid)[0]


def test_masters_that_cannot_start_any_more(start, connect, tmp_path):
    """They are tried again, with pauses, not in a loop; when the code is mended, the next one serves."""
    daemon = start()
    write(tmp_path, APPLICATION + "\nopen('tries', 'a').write('x')\n1 / 0\n")
    kill_master(daemon)
    daemon.wait_for("exited with status 1; another is started in", 2)
    assert len((tmp_path / "tries").read_text()) <= 3
    write(tmp_path, VERSION=2)
    daemon.reload()  # which does not wait for the end of the pause
    assert connect(daemon).call("version") == 2


def test_the_master_drains_when_the_keeper_is_killed(start, connect, tmp_path):
    """It says so; a held checkout finishes; then all are gone."""
    daemon = start("--orphan-timeout", "1")
    with connect(daemon).checkout() as worker:
        pid, master = worker.pid(), daemon.serving
        daemon.process.kill()
        assert daemon.process.wait() == -signal.SIGKILL
        wait_until(lambda: "has lost its keeper" in daemon.log)
        assert worker.pid() == pid
        assert not is_gone(master)
    wait_until(lambda: processes(tmp_path) == [], "the end of all")
    assert "Traceback" not in daemon.log


def test_a_new_daemon_takes_over(start, connect, tmp_path):
    """On the same path, while connections come all the time: none is refused, and nobody loses a checkout."""
    first = start()
    refused, served, going = [], [], [True]
    hello = Encoder().encode(Greeting())

    def connects():
        while going:
            try:
                with gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.connect(f"{tmp_path}/server.sock")
                    sock.sendall(hello)
                    sock.settimeout(30)
                    assert sock.recv(65536)  # a worker's greeting
                    served.append(1)
            except (OSError, AssertionError) as error:
                refused.append(repr(error))
            turn_hub()

    hammers = [gevent.spawn(connects) for _ in range(4)]
    with connect(first).checkout() as worker:
        pid, master = worker.pid(), first.serving
        before = len(served)
        first.process.kill()
        first.process.wait()
        wait_until(lambda: len(served) > before + 20)  # the old master still serves
        second = start()
        wait_until(lambda: connect(second).call("master") == second.serving)
        before = len(served)
        wait_until(lambda: len(served) > before + 50)
        assert worker.pid() == pid
    wait_until(lambda: is_gone(pid) and is_gone(master), "the end of the old master")
    before = len(served)
    wait_until(lambda: len(served) > before + 50)
    going.clear()
    gevent.joinall(hammers, timeout=30)
    assert refused == []
    assert (tmp_path / "server.sock").exists()
    assert second.end() == 0
    assert not list(tmp_path.glob("server.sock*"))


@pytest.mark.parametrize("where", ["unix:server.sock", "unix:@{name}", "tcp://127.0.0.1:{port}"])
def test_an_orphan_serves_until_its_successor_serves(start, connect, tmp_path, where):
    """However long that takes to come, and then to load the application: who connects meanwhile is served. So it is
    where a socket has no path: it is handed over."""
    os.mkfifo(tmp_path / "gate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = where.format(name=tmp_path, port=free.getsockname()[1])
    listen = [] if where == "unix:server.sock" else ["--listen", where]
    address = f"unix:{tmp_path}/server.sock" if where == "unix:server.sock" else where
    first = start(*listen)
    orphan = first.serving
    first.process.kill()
    first.process.wait()
    wait_until(lambda: "it serves on until another one serves" in first.log)
    stays(lambda: not is_gone(orphan), 4)  # longer than an orphan waits that has no path
    write(tmp_path, "open('begun', 'w').close()\nwith open('gate') as gate: gate.read()\n" + APPLICATION, VERSION=2)
    second = start(*listen, wait=False)
    wait_until((tmp_path / "begun").exists)
    assert [connect(address).call("version") for _ in range(3)] == [1, 1, 1]
    with open(tmp_path / "gate", "w"):
        pass
    second.wait_for(" serves")
    wait_until(lambda: is_gone(orphan), "the end of the old master")
    assert connect(address).call("version") == 2


def test_a_successor_that_cannot_serve_leaves_the_orphan_alone(start, connect, tmp_path):
    """Its application cannot be loaded: the old master goes on, and the next daemon can take over."""
    listen = ["--listen", f"unix:@{tmp_path}"]
    first = start(*listen)
    orphan = first.serving
    first.process.kill()
    first.process.wait()
    write(tmp_path, "raise ValueError('broken')\n")
    assert start(*listen, wait=False).wait() == 1
    assert not is_gone(orphan)
    write(tmp_path, VERSION=3)
    third = start(*listen)
    wait_until(lambda: is_gone(orphan), "the end of the old master")
    assert [connect(one).call("version") for one in (third, listen[1])] == [3, 3]


def test_the_keeper_is_killed_while_its_master_starts(start, connect, tmp_path):
    """The master is told while it loads, whatever it waits for; a new daemon takes over."""
    os.mkfifo(tmp_path / "gate")
    mark = "open('begun', 'w').close()\nwith open('gate') as gate: gate.read()\n"
    write(tmp_path, mark + APPLICATION)
    first = start(wait=False)
    wait_until((tmp_path / "begun").exists)
    (old,) = children(first.pid)
    first.process.kill()
    first.process.wait()
    write(tmp_path, VERSION=2)
    second = start()
    wait_until(lambda: is_gone(old), "the end of the old master")
    assert connect(second).call("version") == 2
    assert "Traceback" not in first.log


def maps(pid):
    """The files that a process has mapped."""
    with open(f"/proc/{pid}/maps") as listing:
        return listing.read()


def test_the_keeper_is_small(start, connect, tmp_path, unmeasured):
    """It imports neither the application nor what that needs, nor msgpack, gevent or the master's code; ever."""
    write(tmp_path, APPLICATION + "\nimport decimal\nprint(os.getpid(), file=open('importers', 'a'), flush=True)\n")
    # Python tells on stderr of each import of the keeper; its masters are not told to.
    daemon = start(command=[sys.executable, "-X", "importtime", str(ROOT / "bin" / "gtask-server")])
    masters = [daemon.serving]
    daemon.reload()
    masters.append(daemon.serving)
    assert connect(daemon).call("pid")
    modules = {line.rpartition("|")[2].strip() for line in daemon.log.splitlines() if line.startswith("import time:")}
    assert {"gtask.server.daemon.keeper", "gtask.server.daemon.succession"} <= modules
    libraries = r"application|decimal|msgpack|gevent|greenlet"
    ours = r"gtask\.(wire\.frames|client|server\.(daemon\.application|master|worker))"
    assert [module for module in modules if re.match(rf"({libraries}|{ours})(\.|$)", module)] == []
    for library in ("msgpack", "gevent", "greenlet"):
        assert library not in maps(daemon.pid)
    assert "msgpack" in maps(daemon.serving)
    assert "gevent" not in maps(daemon.serving)
    assert [int(pid) for pid in (tmp_path / "importers").read_text().split()] == masters
