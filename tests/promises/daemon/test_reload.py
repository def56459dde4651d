"""The point of this test is to ensure that SIGHUP brings new code and a new configuration, and that no client notices.

Rows 49 and 50 of the table of faults. A new master loads what there is now; when it is ready it takes over, on the same
sockets, and the old one drains. If it does not get ready, nothing has happened, but for a line in the log.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import gevent
import gevent.socket
import pytest

import gtask
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.messages import Greeting, Request, Retire, Value
from tests.support.daemon import APPLICATION, daemons, write
from tests.support.process import ROOT, children, is_gone
from tests.support.waiting import stays, wait_until


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(*arguments)`` starts a daemon in tmp_path that ends with the test."""
    with daemons(tmp_path) as start:
        yield start


def test_new_code(start, connect, tmp_path):
    """Whoever connects after the reload is served by the code as it is now, also by way of a pool with idle workers."""
    daemon = start()
    client = connect(daemon)
    assert client.call("version") == 1
    write(tmp_path, VERSION=2)
    assert client.call("version") == connect(daemon).call("version") == 1  # nothing happens by itself
    daemon.reload()
    assert connect(daemon).call("version") == 2
    wait_until(lambda: client.call("version") == 2, what="a new worker for the pool")


def test_a_new_configuration(start, connect, tmp_path):
    """The file is read again; what it has lost is as if it had never been; the command line and the environment win."""
    write(tmp_path, APPLICATION + "\ndef variables():\n    return [os.environ.get(name) for name in 'ABC']\n")
    (tmp_path / "gtask.conf.py").write_text("env = ['A=old', 'B=old']\nname = 'old'\nnice = 3\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GTASK_SERVER_ARGS": "--max-workers 7"}
    daemon = start("--umask", "077", env=environment)
    with connect(daemon).checkout() as worker:
        assert worker.variables() == ["old", "old", None]
    (tmp_path / "gtask.conf.py").write_text(
        "env = ['A=new', 'C=new']\nname = 'renamed'\nmax_workers = 1\numask = 0o22\n"
    )
    daemon.reload()
    client = connect(daemon)
    with client.checkout() as one, client.checkout() as two:  # so the environment's max-workers still wins
        assert one.variables() == two.variables() == ["new", None, "new"]
        masks = re.findall(r"Umask:\s*(\d+)", Path(f"/proc/{one.pid()}/status").read_text())
        assert masks == ["0077"]
        assert os.getpriority(os.PRIO_PROCESS, two.pid()) == os.getpriority(os.PRIO_PROCESS, 0)
        with pytest.raises(AttributeError) as caught:
            two.missing()
        assert " of renamed at " in "".join(caught.value.__notes__)


def test_pid_sockets_and_lock_stay(start, connect, tmp_path):
    """The daemon is the same process; it listens at the same socket, and nobody can take its place meanwhile."""
    daemon = start()
    status = [os.stat(tmp_path / name) for name in ("server.sock", "server.sock.lock")]
    first = daemon.serving
    daemon.reload()
    wait_until(lambda: children(daemon.pid) == [daemon.serving], what="the end of the first master")
    sockets = {os.readlink(f"/proc/{daemon.pid}/fd/{name}") for name in os.listdir(f"/proc/{daemon.pid}/fd")}
    for _ in range(2):
        daemon.reload()
    assert daemon.process.poll() is None
    assert daemon.serving != first
    assert [os.stat(tmp_path / name).st_ino for name in ("server.sock", "server.sock.lock")] == [
        one.st_ino for one in status
    ]
    wait_until(lambda: children(daemon.pid) == [daemon.serving], what="the end of the old masters")

    def opened():
        with contextlib.suppress(FileNotFoundError):  # closed since the listing
            return {os.readlink(f"/proc/{daemon.pid}/fd/{name}") for name in os.listdir(f"/proc/{daemon.pid}/fd")}

    wait_until(lambda: opened() == sockets, what="the same descriptors as before")
    second = start(wait=False)
    assert second.wait() == 1
    assert "another server does" in second.log
    assert connect(daemon).call("master") == daemon.serving


def test_held_checkouts_finish_on_old_code(start, connect, tmp_path):
    """A checkout keeps its worker, while others already meet the new one; then the old worker and master go."""
    daemon = start()
    client, old = connect(daemon), daemon.serving
    with client.checkout() as held:
        pid = held.pid()
        write(tmp_path, VERSION=2)
        daemon.reload()
        assert connect(daemon).call("version") == 2
        stays(lambda: (held.version(), held.pid(), held.master()) == (1, pid, old), 0.05)
    wait_until(lambda: is_gone(pid) and is_gone(old), what="the end of the old worker and its master")
    assert client.call("version") == 2


def test_idle_workers_are_replaced(start, connect, tmp_path):
    """Without a call from the client: the workers in its pool leave, and those that it keeps in stock come anew."""
    daemon = start()
    client = connect(daemon, min_workers=2)
    workers = [client.checkout() for _ in range(2)]
    old = [worker.pid() for worker in workers]
    for worker in workers:
        worker.release()
    first = daemon.serving
    daemon.reload()
    wait_until(lambda: all(map(is_gone, [*old, first])), what="the end of the old master and its workers")
    wait_until(lambda: len(children(daemon.serving)) == 2, what="two new workers")


BROKEN = {
    "an exception": ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
    "a syntax error": ("def f(:\n", "SyntaxError"),
    "an end": ("import sys\nsys.exit('no licence')\n", "exited with status 1"),
    "a death": ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "was ended by SIGSEGV"),
    "nothing to offer": ("import os\n", "offers nothing"),
}


@pytest.mark.parametrize(("source", "why"), BROKEN.values(), ids=BROKEN)
def test_broken_code_changes_nothing(start, connect, tmp_path, source, why):
    """Row 50: the old master goes on, undisturbed; the log says why; when the code is mended the next reload works."""
    daemon = start()
    client, master = connect(daemon), daemon.serving
    with client.checkout() as held:
        pid = held.pid()
        write(tmp_path, source)
        daemon.send(signal.SIGHUP)
        daemon.wait_for("the old one goes on serving")
        assert why in daemon.log
        assert held.pid() == pid
    assert client.call("pid") == pid  # it is not even replaced
    assert connect(daemon).call("master") == master
    assert children(daemon.pid) == [master]
    write(tmp_path, VERSION=3)
    daemon.reload()
    assert connect(daemon).call("version") == 3


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ("max_workers = 0\n", "max_workers=0: write a number of at least 1"),
        ("max_workrs = 5\n", "--max-workrs"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_broken_configuration_changes_nothing(start, connect, tmp_path, configuration, why):
    """The same for the file of options."""
    daemon = start()
    master = daemon.serving
    (tmp_path / "gtask.conf.py").write_text(configuration)
    daemon.send(signal.SIGHUP)
    daemon.wait_for("the old one goes on serving")
    assert why in daemon.log
    assert connect(daemon).call("master") == master


def test_reloads_under_load(unmeasured, start, connect):
    """Row 49: 25 reloads while clients call: not one error, not one answer from another's worker."""
    daemon = start()
    pool = connect(daemon, max_workers=4, timeout=30)
    going, calls, masters = [True], [0], set()

    def user(client):
        while going:
            with client.checkout() as worker:
                pid = worker.pid()
                masters.add(worker.master())
                assert worker.pid() == pid
                calls[0] += 1
            gevent.sleep(0.01)  # the pace of the calls

    def newcomer():
        while going:
            with gtask.Client(daemon.address, min_workers=0, timeout=30) as client:
                assert client.call("version") == 1
                calls[0] += 1
            gevent.sleep(0.01)  # the pace of the calls

    users = [gevent.spawn(user, pool) for _ in range(8)] + [gevent.spawn(newcomer) for _ in range(2)]
    for _ in range(25):
        daemon.reload()
    going.clear()
    gevent.joinall(users, timeout=30)
    assert [user.exception for user in users] == [None] * 10
    assert calls[0] > 100
    assert len(masters) > 20
    pool.close()
    wait_until(lambda: children(daemon.pid) == [daemon.serving], "the end of the old masters")
    assert "was ended by" not in daemon.log


def test_workers_that_were_forked_just_before(start, connect):
    """A worker that is told to leave before it has said its first word serves the checkout that it was forked for."""
    daemon = start()
    going, done = [True], [0]

    def newcomer():
        while going:
            with gtask.Client(daemon.address, min_workers=0, timeout=30) as client, client.checkout() as worker:
                assert worker.pid() == worker.pid()
                done[0] += 1

    newcomers = [gevent.spawn(newcomer) for _ in range(8)]
    for _ in range(8):
        daemon.reload()
    going.clear()
    gevent.joinall(newcomers, timeout=30)
    assert [newcomer.exception for newcomer in newcomers] == [None] * 8
    assert done[0] > 8
    assert "was ended by" not in daemon.log


def test_no_connect_waits_for_an_import(unmeasured, start, tmp_path):
    """While an application is being imported, new clients are served by the old master; then by the new one."""
    daemon = start()

    def version():
        with gtask.Client(daemon.address, min_workers=0, timeout=30) as client:
            return client.call("version")

    os.mkfifo(tmp_path / "gate")
    for number in (2, 3):
        write(tmp_path, f"open({str(tmp_path / 'gate')!r}).read()\n" + APPLICATION, VERSION=number)
        count = daemon.log.count(" serves")
        daemon.send(signal.SIGHUP)
        with open(tmp_path / "gate", "w"):  # opens when the import has begun, and holds it
            assert {version() for _ in range(20)} == {number - 1}
            assert daemon.log.count(" serves") == count
        seen = {number - 1}
        while daemon.log.count(" serves") == count or number not in seen:
            seen.add(version())
        assert seen == {number - 1, number}


@pytest.mark.parametrize("when", ["while the new one starts", "while another was refused"])
def test_a_reload_during_a_reload_is_not_lost(start, connect, tmp_path, when):
    """What has changed after the new master had read it is served in the end."""
    write(tmp_path, VERSION=1)
    daemon = start()
    broken = "\n1 / 0\n" if when == "while another was refused" else ""
    slow = (
        f"open({str(tmp_path / 'begun')!r}, 'w').close()\nwith open({str(tmp_path / 'gate')!r}) as gate: gate.read()\n"
    )
    os.mkfifo(tmp_path / "gate")
    write(tmp_path, slow + APPLICATION + broken, VERSION=2)
    daemon.send(signal.SIGHUP)
    wait_until((tmp_path / "begun").exists)
    write(tmp_path, VERSION=3)
    daemon.send(signal.SIGHUP)
    daemon.wait_for("reloads", 2)
    with open(tmp_path / "gate", "w"):
        pass
    wait_until(lambda: connect(daemon).call("version") == 3, "the last version")


def test_a_checkout_that_begins_as_the_server_drains(start, tmp_path):
    """A worker that is asked to be retired, while a request is under way to it, serves the whole checkout."""
    daemon = start()
    old = daemon.serving
    with gevent.socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(f"{tmp_path}/server.sock")
        encode, decoder = Encoder().encode, Decoder()
        sock.sendall(encode(Greeting()))
        heard = []

        def hear(kind):
            while not any(isinstance(message, kind) for message in heard):
                count = sock.recv_into(decoder.space)
                assert count, f"hung up after {heard}"
                heard.extend(decoder.received(count))
            found = next(message for message in heard if isinstance(message, kind))
            heard.remove(found)
            return found

        pid = hear(Greeting).pid
        daemon.send(signal.SIGHUP)
        hear(Retire)  # it crosses the first request
        os.kill(old, signal.SIGSTOP)  # so that time, which passes, changes nothing
        for _ in range(3):
            sock.sendall(encode(Request(("pid",))))
            assert hear(Value).value == pid
        os.kill(old, signal.SIGCONT)
        daemon.wait_for(" serves", 2)
        sock.sendall(encode(Request(("master",))))
        assert hear(Value).value == old
    wait_until(lambda: is_gone(pid) and is_gone(old), "the end of the old master and its worker")


def test_a_client_that_does_not_listen(start, tmp_path):
    """A program that is stopped, and holds a worker that it does not use, does not keep the old master for long."""
    write(tmp_path, APPLICATION + "\ndef checkout_done():\n    pass\n")
    daemon = start("--graceful-timeout", "60")
    program = f"""
import signal, sys, gtask
client = gtask.Client({daemon.address!r}, min_workers=0, timeout=30)
print(client.call("pid"), flush=True)
signal.pause()  # the hub does not run any more
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            pid, old = int(process.stdout.readline()), daemon.serving
            daemon.reload()
            wait_until(lambda: is_gone(pid) and is_gone(old), "the end of the old master and its worker")
        finally:
            process.kill()


def test_a_keeper_does_not_grow(start):
    """Its descriptors are as many as before, however often it reloads."""
    daemon = start()

    def is_settled():
        return children(daemon.pid) == [daemon.serving]

    daemon.reload()
    wait_until(is_settled)
    before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    for _ in range(5):
        daemon.reload()
    wait_until(lambda: is_settled() and len(os.listdir(f"/proc/{daemon.pid}/fd")) <= before)
