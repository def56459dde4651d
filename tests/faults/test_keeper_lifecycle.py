"""Rows 45 to 47 and 52 to 57 of the table of faults, for the daemon with its keeper.

What befalls its two processes, or its path, from without. (An embedded or forked server: test_server_lifecycle.)
"""

import os
import signal
import socket

import gevent
import pytest

import gtask
from tests.support.daemon import SOURCE, daemon, refused
from tests.support.process import check_that_it_rests, children, is_gone, stop
from tests.support.waiting import stays, turn_hub, wait_until

from .conftest import raised_by

WAITING = (
    SOURCE
    + """
def wait_for(path):
    with open(path) as gate:
        return gate.read()
"""
)


def kill(pid):
    os.kill(pid, signal.SIGKILL)


# --- its path --------------------------------------------------------------------------------------------


def test_all_of_it_is_killed(connect, tmp_path):
    """Row 45: keeper and master are killed with -9; the next daemon takes the path, the lock and the pid file over."""
    with daemon(tmp_path, "--pid", "pid") as first:
        master = first.master
        first.process.kill()
        kill(master)
        first.process.wait()
        wait_until(lambda: is_gone(master), what="the master's end")
        assert {"sock", "sock.lock", "pid"} <= set(os.listdir(tmp_path))
        with daemon(tmp_path, "--pid", "pid") as second:
            assert connect(second.address).call("pids")[1] == second.master
            assert int((tmp_path / "pid").read_text()) == second.pid
            assert second.end() == 0
    assert not {"sock", "sock.lock", "pid"} & set(os.listdir(tmp_path))


def test_its_path_is_taken(connect, tmp_path):
    """Row 46: a second daemon is refused, with the reason; also while the first one's application is still loaded."""
    os.mkfifo(tmp_path / "gate")
    loading = f"open({str(tmp_path / 'gate')!r}).read()\n" + SOURCE
    with daemon(tmp_path, source=loading, wait=False) as first:
        with open(tmp_path / "gate", "w"):  # opens when the application is being loaded
            status, line = refused(tmp_path, source="")
            assert (status, "another server does" in line) == (1, True)
        first.wait_for(" serves")
        with connect(first.address).checkout() as worker:
            pid = worker.pid()
            assert refused(tmp_path, source="")[0] == 1
            assert worker.pid() == pid
        assert connect(first.address).call("pids")[1] == first.master


@pytest.mark.parametrize("kind", ["file", "directory", "another program's socket"])
def test_something_else_has_its_path(tmp_path, kind):
    """Rows 46 and 47: it is left alone, and no lock file is left beside it."""
    with socket.socket(socket.AF_UNIX) as other:
        if kind == "file":
            (tmp_path / "sock").write_text("precious")
        elif kind == "directory":
            (tmp_path / "sock").mkdir()
        else:
            other.bind(f"{tmp_path}/sock")
            other.listen()
        before = os.lstat(tmp_path / "sock")
        status, line = refused(tmp_path)
        after = os.lstat(tmp_path / "sock")
        assert status == 1
        assert ("another server does" if "socket" in kind else "no socket") in line
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


# --- its processes ---------------------------------------------------------------------------------------


def test_the_master_is_killed(connect, tmp_path):
    """Row 52: another one serves at once; held checkouts finish, and their workers exit afterwards."""
    with daemon(tmp_path, source=WAITING) as server:
        client, master = connect(server.address, timeout=30), server.master
        os.mkfifo(tmp_path / "gate")
        with client.checkout() as held:
            pid = held.pid()
            running = held.wait_for.submit(str(tmp_path / "gate"))
            with open(tmp_path / "gate", "w") as gate:
                kill(master)
                other = connect(server.address, timeout=30).call("pids")
                assert other[1] not in (master, pid)
                assert other[1] == server.master
                gate.write("finished")
            assert running.get() == "finished"
            assert held.pid() == pid
        client.close()
        wait_until(lambda: is_gone(pid), what="the end of the orphaned worker")
        assert f"master {master} was ended by SIGKILL; another is started" in server.log


def test_the_keeper_is_killed(connect, tmp_path):
    """Row 53: its master serves on for a while, then drains: what runs may end, and then nothing of it is left."""
    with daemon(tmp_path, "--orphan-timeout", "1", source=WAITING) as server:
        client, master = connect(server.address), server.master
        os.mkfifo(tmp_path / "gate")
        with client.checkout() as held:
            pid = held.pid()
            running = held.wait_for.submit(str(tmp_path / "gate"))
            with open(tmp_path / "gate", "w") as gate:
                kill(server.pid)
                server.process.wait()
                wait_until(lambda: "has lost its keeper; it serves on" in server.log, what="the master's notice")
                gate.write("finished")
            assert running.get() == "finished"
        client.close()
        wait_until(lambda: is_gone(master) and is_gone(pid), "the end of master and worker")


def test_keeper_and_master_are_stopped_and_continued(connect, tmp_path):
    """Row 54: stopped for longer than hung_worker_timeout, they kill nobody and replace nobody."""
    with daemon(tmp_path, "--hung-worker-timeout", "0.3", source=WAITING) as server:
        client, master = connect(server.address), server.master
        os.mkfifo(tmp_path / "gate")
        with client.checkout() as idle, client.checkout() as ended:
            pids = [idle.pid(), ended.pid()]
            ending = ended.wait_for.submit(str(tmp_path / "gate"))
            with open(tmp_path / "gate", "w") as gate:
                stop(master)
                stop(server.pid)
                gate.write("ended meanwhile")
            assert ending.get() == "ended meanwhile"
            stays(lambda: not any(map(is_gone, pids)), 0.6)
            os.kill(server.pid, signal.SIGCONT)
            os.kill(master, signal.SIGCONT)
            assert connect(server.address).call("pids")[1] == master
            assert [idle.pid(), ended.pid()] == pids
        assert server.masters == [master]
        assert "WARNING" not in server.log


def test_fifty_workers_are_killed_at_once(connect, tmp_path):
    """Row 55: no zombie stays, neither with the master nor with the keeper."""
    with daemon(tmp_path) as server:
        client, master = connect(server.address, max_workers=50, timeout=30), server.master
        checkouts = [client.checkout() for _ in range(50)]
        pids = [worker.pid() for worker in checkouts]
        stop(master)
        for pid in pids:
            kill(pid)
        os.kill(master, signal.SIGCONT)
        wait_until(lambda: not children(master), what="a master without zombies")
        assert children(server.pid) == [master]
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
        for worker in checkouts:
            worker.release()
        assert client.call("pids")[1] == master


def test_it_starts_late(connect, tmp_path):
    """Row 56: who called before it was there is served by it, also by one that takes its time to load."""
    client = connect(f"unix:{tmp_path}/sock", timeout=30)
    early = [gevent.spawn(client.call, "pids") for _ in range(5)]
    turn_hub()
    os.mkfifo(tmp_path / "gate")
    with daemon(tmp_path, source=f"open({str(tmp_path / 'gate')!r}).read()\n" + SOURCE, wait=False) as server:
        with open(tmp_path / "gate", "w"):  # opens when the application is being loaded; the keeper listens already
            late = gevent.spawn(client.call, "pids")
            turn_hub()
            assert not any(one.ready() for one in early)
        assert {one.get()[1] for one in [*early, late]} == {server.master}


def test_it_loads_for_ever(connect, tmp_path):
    """Row 57: it listens and does not serve: callers are told at their deadline, and nobody is busy meanwhile."""
    os.mkfifo(tmp_path / "gate")
    with daemon(tmp_path, source=f"open({str(tmp_path / 'gate')!r}).read()\n", wait=False) as server:
        with open(tmp_path / "gate", "w"):
            caller = gevent.spawn(raised_by, connect(server.address, timeout=1).call, "pid")
            check_that_it_rests(server.pid, 0.4)
            check_that_it_rests(server.master, 0.4)
            error = caller.get()
            assert isinstance(error, gtask.AcquireTimeout)
        assert server.end(signal.SIGINT) in (0, 1)
