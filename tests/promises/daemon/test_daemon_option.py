"""The point of this test is to ensure that --daemon returns when it is known whether it serves, and then lets go of the
terminal; and that the pid file and the log file are what scripts rely on.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

TALKING = """
import logging
import os

def pids():
    return [os.getpid(), os.getppid()]

def say(text):
    logging.getLogger("app").warning(text)
"""


def descriptor(pid, number):
    """Where one of a process's descriptors leads."""
    return os.readlink(f"/proc/{pid}/fd/{number}")


def test_it_serves_when_the_command_returns(operator, connect):
    """Status 0 means that clients can call: the first call needs no patience. Nothing is left on the terminal."""
    pid = operator.daemon()
    worker, master = connect(operator.address, timeout=5).call("pids")
    assert operator.children_of(pid) == [master]
    assert worker in operator.children_of(master)


def test_it_is_no_child_of_the_terminal(operator, connect):
    """Daemon, master and worker have left the session, and hold nothing of the terminal open."""
    pid = operator.daemon()
    with connect(operator.address).checkout() as checkout:
        processes = [pid, *checkout.pids()]
        assert {os.getsid(process) for process in processes}.isdisjoint({os.getsid(0)})
        assert {descriptor(process, number) for process in processes for number in range(3)} == {"/dev/null"}


def test_it_stops_in_order(operator):
    """SIGTERM to the process in the pid file ends it, and removes pid file, socket and lock."""
    pid = operator.daemon()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: operator.is_gone(pid), "the daemon's end")
    assert sorted(path.name for path in operator.directory.glob("a.*")) == []


@pytest.mark.parametrize(
    ("source", "last_line"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0"),
        ("import os\nos._exit(0)\n", "before it was ready"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "was ended by SIGKILL before it was ready"),
    ],
)
def test_an_application_that_cannot_be_loaded(operator, source, last_line):
    """Status 1, the reason on stderr, and nothing is left behind: no daemon, no pid file, no socket."""
    operator.write("app.py", source)
    done = operator.run("app", "--listen", "unix:a.sock", "--daemon", "--pid", "a.pid")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(last_line)
    assert sorted(path.name for path in operator.directory.glob("a.*")) == []


def test_an_address_that_is_taken(operator):
    """Status 1, and no pid file of a server that does not run; the other server's is as it was."""
    pid = operator.daemon()
    done = operator.run("app", "--listen", "unix:a.sock", "--daemon", "--pid", "b.pid")
    assert done.returncode == 1
    assert "another server" in done.stderr
    assert not (operator.directory / "b.pid").exists()
    assert (operator.directory / "a.pid").read_text() == f"{pid}\n"


def test_the_pid_file_is_held(operator):
    """A second server with the same file is refused, with the first one's process id; the first goes on."""
    pid = operator.daemon()
    for arguments in (["--daemon"], []):
        done = operator.run("app", "--listen", "unix:b.sock", "--pid", "a.pid", *arguments)
        assert done.returncode == 1
        assert f"a.pid is held by another server, process {pid}" in done.stderr
        assert not (operator.directory / "b.sock").exists()
    assert (operator.directory / "a.pid").read_text() == f"{pid}\n"
    assert not operator.is_gone(pid)


def test_after_kill_9(operator, connect):
    """The files that a killed daemon has left are taken over by the next, though its master still drains."""
    first = operator.daemon()
    (master,) = operator.children_of(first)
    with connect(operator.address).checkout() as checkout:
        assert checkout.pids()[1] == master
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: operator.is_gone(first), "the daemon's end")
        second = operator.daemon()
        assert (operator.directory / "a.pid").read_text() == f"{second}\n"
        assert checkout.pids()[1] == master
    assert connect(operator.address).call("pids")[1] in operator.children_of(second)
    wait_until(lambda: operator.is_gone(master), "the old master's end")


def test_a_pid_file_without_daemon(operator):
    """It holds the process that was started, and goes with it."""
    server = operator.start("--pid", "a.pid")
    assert (operator.directory / "a.pid").read_text() == f"{server.pid}\n"
    assert server.end() == 0
    assert not (operator.directory / "a.pid").exists()


def test_a_pid_file_that_cannot_be_made(operator):
    """It is named, with the reason."""
    done = operator.run("app", "--listen", "unix:a.sock", "--pid", "no/a.pid")
    assert (done.returncode, done.stderr) == (
        1,
        f"gtask-server: {operator.directory}/no/a.pid: No such file or directory\n",
    )


def test_the_log_goes_to_its_file(operator, connect):
    """What keeper, master and worker log is there, and nothing on the terminal."""
    operator.write("app.py", TALKING)
    operator.daemon("--log-file", "a.log")
    connect(operator.address).call("say", "hello")
    log = (operator.directory / "a.log").read_text()
    for text in ("is listening at unix:", " serves", "app: hello"):
        assert log.count(text) == 1
    assert (operator.directory / "a.log").stat().st_mode & 0o777 == 0o640


def test_the_log_file_is_opened_anew(operator, connect):
    """After it was moved away SIGUSR1 makes another; keeper, master and the workers that live write there, wherever the
    application's directory is.
    """
    operator.write("app.py", TALKING)
    (operator.directory / "inner").mkdir()
    pid = operator.daemon("--log-file", "a.log", "--chdir", "inner", "--pythonpath", "..")
    new, old = operator.directory / "a.log", operator.directory / "a.log.1"
    with connect(operator.address).checkout() as checkout:
        worker, master = checkout.pids()
        new.rename(old)
        before = old.read_text()
        os.kill(pid, signal.SIGUSR1)
        for process in (pid, master, worker):
            wait_until(lambda process=process: descriptor(process, 2) == str(new), "the new log file")
        checkout.say("in the worker")
        os.kill(pid, signal.SIGUSR2)
        wait_until(lambda: "workers: 1 " in new.read_text(), "the status in the log")
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: "app reloads" in new.read_text(), "the keeper's line in the log")
    assert "app: in the worker" in new.read_text()
    assert old.read_text() == before
    assert not (operator.directory / "inner" / "a.log").exists()


def test_a_log_file_that_cannot_be_opened_anew(operator, connect):
    """The log goes on in the old file, and everybody lives; the worker's call is not disturbed."""
    (operator.directory / "logs").mkdir()
    pid = operator.daemon("--log-file", "logs/a.log")
    with connect(operator.address).checkout() as checkout:
        worker, master = checkout.pids()
        (operator.directory / "logs").rename(operator.directory / "moved")
        os.kill(pid, signal.SIGUSR1)
        log = operator.directory / "moved" / "a.log"
        wait_until(lambda: log.read_text().count("cannot be opened anew") == 2, "what the two say")
        os.kill(worker, signal.SIGUSR1)
        assert checkout.pids() == [worker, master]
    assert operator.children_of(pid) == [master]


def test_a_log_file_that_cannot_be_made(operator):
    """It is named, with the reason, before anything is done."""
    done = operator.run("app", "--listen", "unix:a.sock", "--log-file", "no/a.log", "--daemon")
    assert (done.returncode, done.stderr) == (
        1,
        f"gtask-server: {operator.directory}/no/a.log: No such file or directory\n",
    )


def test_why_it_cannot_serve_is_in_the_log_file(operator):
    """With a log file the reason stands there, for that is where one looks later, too."""
    operator.write("app.py", "1 / 0\n")
    done = operator.run("app", "--listen", "unix:a.sock", "--log-file", "a.log", "--daemon")
    assert done.returncode == 1
    assert Path(operator.directory, "a.log").read_text().splitlines()[-1] == "ZeroDivisionError: division by zero"
