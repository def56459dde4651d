"""The point of this test is to ensure that a daemon copes with how operators start it and lay out their files.

Releases behind a link, a terminal that is closed, nohup, a user without a name, a device as the log, several reloads in
a row while checkouts are held, and a machine that is short of memory.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import tempfile
import termios
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, daemon, refused
from tests.support.process import ROOT, children, is_gone, processes
from tests.support.waiting import wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do that")

SOURCE = """
    import os

    def ids():
        return os.getuid(), os.getgid(), os.getgroups()

    def pid():
        return os.getpid()

    def scores():
        return [int(open(f"/proc/{pid}/oom_score_adj").read()) for pid in (os.getpid(), os.getppid())]
"""


# --- releases behind a link --------------------------------------------------------------------------------


def release(directory, number):
    """Make a release, and let ``current`` lead to it."""
    place = directory / f"release-{number}"
    place.mkdir()
    (place / "app.py").write_text(
        f"import os\n\ndef number():\n    return {number}\n\ndef where():\n    return os.getcwd()\n"
    )
    (directory / "new").symlink_to(place)
    (directory / "new").rename(directory / "current")
    return place


@pytest.fixture
def released(tmp_path):
    """A daemon that was started in ``current``, as a shell does it; it is stopped at the end."""
    first = release(tmp_path, 1)
    command = f'cd {tmp_path}/current && exec "$@" --listen unix:{tmp_path}/sock'
    running = Daemon(
        tmp_path, source="", launcher=["bash", "-c", command, "bash"], wait=False, env={"PYTHONPATH": str(ROOT)}
    )
    try:
        running.wait_for(" serves")
        yield running, first
        running.end()
    finally:
        running.kill()


def test_a_reload_loads_the_new_release(released, tmp_path, connect):
    """Also when the old one has been cleaned up meanwhile."""
    running, first = released
    client = connect(f"unix:{tmp_path}/sock")
    assert client.call("number") == 1
    second = release(tmp_path, 2)
    running.reload()
    fresh = connect(f"unix:{tmp_path}/sock")
    assert (fresh.call("number"), fresh.call("where")) == (2, str(second))
    shutil.rmtree(first)
    shutil.rmtree(second)
    release(tmp_path, 3)
    running.reload()
    assert connect(f"unix:{tmp_path}/sock").call("number") == 3


def test_a_directory_that_is_gone_is_named(released, tmp_path, connect):
    """The old code goes on serving."""
    running, _ = released
    (tmp_path / "current").unlink()
    running.send(signal.SIGHUP)
    running.wait_for(f"could not be started ({tmp_path}/current: no such file or directory)")
    assert connect(f"unix:{tmp_path}/sock").call("number") == 1


# --- terminals ---------------------------------------------------------------------------------------------


@pytest.fixture
def at_a_terminal(tmp_path):
    """``start(*arguments, **options)`` starts a daemon with a terminal of its own; gives it and our end."""
    started = []

    def start(*arguments, **options):
        mine, theirs = os.openpty()

        def begin():
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        started.append(Daemon(tmp_path, *arguments, source=SOURCE, preexec_fn=begin, **options))
        os.close(theirs)
        return started[-1], mine

    yield start
    for running in started:
        running.kill()


def test_a_closed_terminal_ends_the_server(at_a_terminal, tmp_path, connect):
    """It drains: who has a checkout may end it."""
    server, terminal = at_a_terminal()
    with connect(server).checkout() as held:
        pid = held.pid()
        os.close(terminal)
        server.wait_for("the terminal was closed")
        assert held.pid() == pid
    assert server.wait() == 0
    wait_until(lambda: processes(tmp_path) == [], "the end of all")


def test_a_hangup_while_the_terminal_is_there_reloads(at_a_terminal):
    """An operator sends it from there."""
    server, terminal = at_a_terminal()
    server.reload()
    os.close(terminal)
    assert server.wait() == 0


def test_nohup_keeps_it_running(at_a_terminal, connect):
    """SIGHUP was ignored when it started, and stays so."""
    server, terminal = at_a_terminal(launcher=["nohup", "bash", "-c", 'exec "$@" --listen unix:sock', "bash"])
    os.close(terminal)
    server.send(signal.SIGHUP)
    server.send(signal.SIGUSR2)
    server.wait_for("reloads; workers:")
    assert connect(server).call("pid")
    assert server.log.count(" serves") == 1
    assert server.end() == 0


# --- users, logs, memory -----------------------------------------------------------------------------------


@pytest.fixture
def open_directory():
    """A directory that everybody may enter and write to."""
    directory = Path(tempfile.mkdtemp(prefix="gtask-test-"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@as_root
def test_a_user_who_is_but_a_number(open_directory, connect):
    """In a container there is no entry for it. The group is that of the same number, unless another is named."""
    with daemon(open_directory, "--user", "10001", source=SOURCE) as server:
        assert connect(server).call("ids") == [10001, 10001, [10001]]
    with daemon(open_directory, "--user", "10001", "--group", "10002", source=SOURCE) as server:
        assert connect(server).call("ids") == [10001, 10002, [10002]]


@as_root
def test_a_number_that_nobody_can_have(tmp_path):
    """It stands for no user."""
    assert "there is no such user" in refused(tmp_path, "--user", str((1 << 32) - 1))[1]


@as_root
def test_a_device_as_the_log_keeps_its_owner(open_directory, connect):
    """So does a file that was there; a file that is made belongs to the user."""
    os.mknod(open_directory / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (open_directory / "there").write_text("")
    for name, owner in (("null", 0), ("there", 0), ("made", 10001)):
        log = open_directory / name
        with daemon(open_directory, "--user", "10001", "--log-file", str(log), source=SOURCE, wait=False) as server:
            assert connect(server).call("pid")
        assert os.stat(log).st_uid == owner


def test_workers_are_killed_before_their_master(tmp_path, connect):
    """Where memory is short."""
    with daemon(tmp_path, source=SOURCE) as server:
        worker, master = connect(server).call("scores")
        assert worker == min(master + 100, 1000)


# --- reloads -----------------------------------------------------------------------------------------------


def test_reloads_are_bounded(tmp_path, connect):
    """Each old master that a checkout holds costs memory. The last reload is not lost."""
    with daemon(tmp_path, "--graceful-timeout", "60", source=SOURCE) as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(server).checkout()).pid()
            server.reload()
        stack.enter_context(connect(server).checkout()).pid()
        server.send(signal.SIGHUP)
        server.wait_for("the reload waits until one of them has ended")
        (tmp_path / "app.py").write_text("def answer(): return 42\n")
        for _ in range(3):
            server.send(signal.SIGHUP)
        assert len(children(server.pid)) == 4
        old = server.serving
        stack.close()
        wait_until(lambda: is_gone(old), "the last of the old masters")
        assert connect(server).call("answer") == 42
