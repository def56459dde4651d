"""Rows 59, 61, 63, 74, 77 and 79 of the table of faults: the server runs out of something, or somebody wants too much.

The server waits, says so once, costs no processor time meanwhile, and goes on when there is enough again.
"""

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import socket
import tempfile
import traceback
from pathlib import Path
from posix import fork

import gevent
import gevent.socket
import pytest

from gtask.wire.frames import Encoder
from gtask.wire.messages import Greeting
from tests.support.daemon import SOURCE, daemon
from tests.support.process import check_that_it_rests, children, state_of, stop
from tests.support.waiting import wait_until

IS_ROOT = os.geteuid() == 0
NOBODY = 65534


@contextlib.contextmanager
def limited(pid, what, number):
    """A resource limit of another process, set by one of the same user: root may not everywhere."""
    soft, hard = resource.getrlimit(what)  # it has inherited them
    as_owner_of(pid, lambda: resource.prlimit(pid, what, (number, hard)))
    try:
        yield
    finally:
        as_owner_of(pid, lambda: resource.prlimit(pid, what, (soft, hard)))


def as_owner_of(pid, function):
    status = Path(f"/proc/{pid}/status").read_text()
    uid, gid = (int(re.search(rf"^{name}:\t(\d+)", status, re.M)[1]) for name in ("Uid", "Gid"))

    def run():
        function()
        return 0

    assert in_child(uid, gid, run) == 0


def in_child(uid, gid, function):
    """The status that a function gives in a child process of this user; 99 if it raises."""
    pid = fork()
    if not pid:
        status = 99
        try:
            if os.geteuid() == 0:
                os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            status = function()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def descriptors(pid):
    return os.listdir(f"/proc/{pid}/fd")


# --- the server runs out of something ------------------------------------------------------------------


def test_no_descriptors(connect, tmp_path):
    """Row 59: EMFILE in the master. Held checkouts go on, new ones wait and are served later."""
    with daemon(tmp_path) as server:
        client, others = connect(server.address), connect(server.address, timeout=30, max_workers=5)
        with client.checkout() as held:
            pid, master = held.pids()
            with limited(master, resource.RLIMIT_NOFILE, len(descriptors(master))):
                waiting = [gevent.spawn(others.call, "pids") for _ in range(5)]
                server.wait_for("hardly any descriptors are left")
                check_that_it_rests(master)
                assert held.pids() == [pid, master]
                assert not all(one.ready() for one in waiting)
                assert server.log.count("hardly any descriptors are left") == 1
            assert {one.get()[1] for one in waiting} == {master}
            assert held.pids() == [pid, master]
        assert server.log.count("hardly any descriptors are left") == 1


def test_no_processes(connect, tmp_path):
    """Row 61: fork fails with EAGAIN. Who has connected keeps its place, and gets its worker later."""
    other = ["--user", str(NOBODY)] if IS_ROOT else []  # root may have any number of processes
    with daemon(tmp_path, *other, target="json:dumps", source="") as server:
        client, others = connect(server.address), connect(server.address, timeout=30, max_workers=5)
        with client.checkout() as held:
            assert held.call("a") == '"a"'
            with limited(server.master, resource.RLIMIT_NPROC, 1):
                waiting = [gevent.spawn(others.call, "b") for _ in range(5)]
                server.wait_for("cannot fork a worker: resource temporarily unavailable")
                check_that_it_rests(server.master)
                assert held.call("a") == '"a"'
                assert not any(one.ready() for one in waiting)
            assert [one.get() for one in waiting] == ['"b"'] * 5
        assert server.log.count("cannot fork a worker") == 1


def test_a_connection_that_waits_for_a_process_may_come_from_anywhere(connect, tmp_path):
    """Row 61 with ``allow-uid``, which TCP has not: it is not asked of a connection that was let in already."""
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        other = ["--user", str(NOBODY)] if IS_ROOT else []
        arguments = ["--listen", f"unix:{tmp_path}/sock", "--listen", f"fd:{tcp.fileno()}"]
        arguments += ["--allow-uid", str(os.geteuid()), *other]
        with daemon(tmp_path, *arguments, target="json:dumps", source="", pass_fds=[tcp.fileno()]) as server:
            with limited(server.master, resource.RLIMIT_NPROC, 1):
                waiting = gevent.spawn(connect(f"tcp://127.0.0.1:{tcp.getsockname()[1]}", timeout=30).call, "b")
                server.wait_for("cannot fork a worker")
            assert waiting.get() == '"b"'
        assert "refused" not in server.log


def test_max_workers(connect, tmp_path):
    """Row 63: at ``--max-workers`` the next connection waits until a worker has gone; that is said once."""
    with daemon(tmp_path, "--max-workers", "2") as server:
        busy = connect(server.address, max_workers=2)
        for _ in range(2):
            with busy.checkout() as one, busy.checkout() as two:
                pids = {one.pid(), two.pid()}
                other = connect(server.address, timeout=30)
                waiting = gevent.spawn(other.call, "pids")
                server.wait_for("there are 2 workers (max_workers)")
                check_that_it_rests(server.master, 0.4)
                assert not waiting.ready()
                assert set(server.workers) == pids
            busy.resize(0, 1)
            assert waiting.get()[0] not in pids
            other.close()
            busy.resize(0, 2)
        assert server.log.count("(max_workers)") == 1


def test_max_workers_with_several_addresses(tmp_path):
    """Row 63: connections that come at several addresses in the same moment do not get more workers either."""
    addresses = [f"{tmp_path}/{name}" for name in "abc"]
    arguments = [part for path in addresses for part in ("--listen", f"unix:{path}")]
    with daemon(tmp_path, "--max-workers", "1", *arguments) as server, contextlib.ExitStack() as stack:
        master = server.master
        stop(master)
        for path in addresses:
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(path)
            peer.sendall(b"x")
        os.kill(master, signal.SIGCONT)
        server.wait_for("there are 1 workers (max_workers)")
        wait_until(lambda: state_of(master) == "S", what="the master's rest")
        assert len(children(master)) == 1


# --- somebody wants too much ---------------------------------------------------------------------------


def test_silent_peers(connect, tmp_path):
    """Row 74: peers that connect and say nothing hold no worker, and are hung up on after ``--greeting-timeout``."""
    with daemon(tmp_path, "--max-workers", "2", "--greeting-timeout", "0.3") as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(gevent.socket.socket(socket.AF_UNIX)) for _ in range(6)]
        for peer in peers:
            peer.connect(f"{tmp_path}/sock")
        client = connect(server.address, timeout=30)
        assert client.call("pid")  # behind them all
        assert [peer.recv(1) for peer in peers] == [b""] * 6
        with client.checkout() as worker:
            assert worker.pid()


@pytest.fixture
def open_directory():
    """A directory that every user may enter; the one of a test is its user's alone."""
    directory = tempfile.mkdtemp(prefix="gtask-test-")
    os.chmod(directory, 0o755)
    yield Path(directory)
    shutil.rmtree(directory)


def as_another_user(path):
    """What a process of another user gets at a unix socket: a worker's greeting, a refusal or the end, or an error."""

    def connect():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            try:
                sock.connect(path)
                sock.sendall(Encoder().encode(Greeting()))
                answer = sock.recv(4096)
                return SERVED if answer and b"PermissionError" not in answer else CLOSED
            except ConnectionError:
                return CLOSED
            except OSError as error:
                return error.errno

    return in_child(NOBODY, NOBODY, connect)


CLOSED, SERVED, FORBIDDEN = 200, 201, errno.EACCES


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        ([], FORBIDDEN),
        (["--socket-mode", "660"], FORBIDDEN),
        (["--socket-mode", "666"], SERVED),
        (["--socket-mode", "666", "--allow-uid", "0"], CLOSED),
        (["--socket-mode", "666", "--allow-uid", "0", "--allow-uid", str(NOBODY)], SERVED),
        (["--user", str(NOBODY)], SERVED),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_another_user(open_directory, arguments, outcome):
    """Row 77: the socket's permissions keep others out, and so does ``--allow-uid``; its file is ``--user``'s."""
    os.chmod(open_directory, 0o755)
    with daemon(open_directory, *arguments) as server:
        assert as_another_user(f"{open_directory}/sock") == outcome
        if outcome == CLOSED:
            server.wait_for("refused: process ")
            assert f" of user {NOBODY} may not connect to {server.address} (allow_uid)" in server.log
        else:
            assert "refused" not in server.log


def test_a_user_who_is_not_listed_is_refused_without_a_fork(connect, tmp_path):
    """Row 77: who is in no list gets no worker, and each is told in the log; the server goes on."""
    with daemon(tmp_path, "--allow-uid", str(os.geteuid() + 1)) as server:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(f"{tmp_path}/sock")
                peer.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    assert peer.recv(1) == b""
        assert server.log.count(f"refused: process {os.getpid()} of user {os.geteuid()} ") == 3
        assert server.workers == []


# --- what a worker has ---------------------------------------------------------------------------------

OPENED = (
    SOURCE
    + """
kept = open(__file__)
dropped = open(__file__, "rb")

def close():
    dropped.close()

def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            pass
    return found
"""
)


def test_a_workers_descriptors(connect, tmp_path):
    """Row 79: its own connection and what the application has opened, and nothing of its server's or of others'.

    Not a listening socket, lock or pid file, no pipe of keeper and master, nobody else's connection, nothing that
    was inherited from whoever started the server.
    """
    with open(tmp_path / "inherited", "w") as theirs, socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        arguments = ["--pid", "pid", "--listen", f"unix:{tmp_path}/sock", "--listen", f"fd:{tcp.fileno()}"]
        passed = [theirs.fileno(), tcp.fileno()]
        with daemon(tmp_path, *arguments, source=OPENED, pass_fds=passed) as server:
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(", and 1 drain")
            client = connect(server.address)
            with client.checkout() as one, client.checkout() as two, client.checkout() as three:
                pids = [one.pid(), two.pid(), three.pid()]
                os.kill(pids[0], signal.SIGKILL)
                for worker in (two, three):
                    found = worker.descriptors()
                    assert {0, 1, 2} <= set(found)
                    mine = sorted(path for number, path in found.items() if number > 2)
                    assert [path for path in mine if path.startswith("socket:")] == mine[-2:]  # with the channel
                    assert mine[:-2] == ["/memfd:gtask-stacks (deleted)", *[str(tmp_path / "app.py")] * 2]
                with socket.socket(socket.AF_UNIX) as peer:  # no worker holds the connection of another
                    peer.connect(f"{tmp_path}/sock")
                    peer.sendall(b"x")  # or it gets no worker
                    wait_until(lambda: len(server.workers) == 3, what="its worker")
                assert two.pid() == pids[1]


def test_a_masters_descriptors_are_flat(connect, tmp_path):
    """However many workers have come and gone, it has as many as before."""
    with daemon(tmp_path) as server:
        counts = set()
        for _ in range(3):
            client = connect(server.address, max_workers=5)
            checkouts = [client.checkout() for _ in range(5)]
            for worker in checkouts:
                worker.pid()
            for worker in checkouts:
                worker.release()
            client.close()
            wait_until(lambda: not server.workers, what="the end of the workers")
            wait_until(lambda: state_of(server.master) == "S", what="the master's rest")
            counts.add((len(descriptors(server.master)), len(descriptors(server.pid))))
        assert len(counts) == 1


def test_a_worker_does_not_keep_the_place_of_its_dead_server(serve, connect):
    """The lock of a private server's socket is not among the worker's descriptors: another server can listen there
    while that worker still serves.
    """
    server = serve(OPENED)
    client = connect(server)
    with client.checkout() as checkout:
        assert not [path for path in checkout.descriptors().values() if path.endswith(".lock")]
        os.kill(server.pid, signal.SIGKILL)
        server.stop()
        second = connect(serve(OPENED, address=server.address))
        assert second.call("pid") != checkout.pid()
