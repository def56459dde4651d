"""The point of this test is to ensure that the log has one line for each event worth knowing, and none for a call.

Row 64 of the table of faults: where nobody can read it, all goes on.
"""

import json
import os
import re
import signal
import subprocess

import gevent
import pytest

import gtask
from tests.support.daemon import APPLICATION, COMMAND, daemons, write
from tests.support.process import children, processes
from tests.support.waiting import wait_until


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(*arguments)`` starts a daemon in tmp_path that ends with the test."""
    with daemons(tmp_path) as start:
        yield start


LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) (\d+) (gtask\.server(?:\.keeper)?): (.*)")


def lines(daemon):
    """What was said, as (level, message), each pid replaced by what it is."""
    found = []
    for line in daemon.log.splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        found.append((match[1], re.sub(r"(master|worker|process) \d+", r"\1 N", match[4])))
    return found


LISTENING = ("INFO", "application is listening at unix:server.sock")


def test_a_quiet_life(start, connect):
    """It starts, listens and serves, and ends: five lines, however many calls there were."""
    daemon = start()
    client = connect(daemon)
    for _ in range(20):
        with client.checkout() as worker:
            worker.pid()
            worker.version()
            with pytest.raises(AttributeError):
                worker.missing()
    connect(daemon).call("pid")
    assert daemon.end() == 0
    (level, bound), *others = lines(daemon)
    assert (level, bound.partition(" workers (--max-workers), for ")[1] != "") == ("INFO", True)
    assert others == [
        LISTENING,
        ("INFO", "master N serves"),
        ("INFO", "application has stopped"),
        ("INFO", "application has ended"),
    ]


def test_a_reload(start):
    """That it begins, that the new master serves, and that the old one has stopped."""
    daemon = start()
    before = len(lines(daemon))
    daemon.reload()
    daemon.wait_for("has stopped")
    reload = lines(daemon)[before:]
    assert reload[:2] == [("INFO", "application reloads"), LISTENING]
    # The keeper and the old master, which has nothing to wait for, may write in either order.
    assert sorted(reload[2:]) == [("INFO", "application has stopped"), ("INFO", "master N serves, and 1 drain")]


def test_a_worker_died(start, connect):
    """One line tells how, in which method, and after how long."""
    daemon = start()
    before = len(lines(daemon))
    with pytest.raises(gtask.WorkerDied):
        connect(daemon).call("die", signal.SIGSEGV)
    daemon.wait_for("SIGSEGV")
    ((level, line),) = lines(daemon)[before:]
    assert level == "WARNING"
    assert re.fullmatch(r"worker N was ended by SIGSEGV in die after \S+ s", line)


def test_a_worker_was_hung(start, connect):
    """One line, with the method and the time."""
    daemon = start("--hung-worker-timeout", "0.2")
    before = len(lines(daemon))
    with pytest.raises(gtask.Error):
        connect(daemon).call("sleep")
    daemon.wait_for("hung")
    ((level, line),) = lines(daemon)[before:]
    assert level == "WARNING"
    assert re.fullmatch(
        r"worker N was interrupted in sleep, because it was hung for \S+ s \(hung_worker_timeout\)", line
    )


def test_a_refused_connection(start, connect):
    """One line for each, with who it was."""
    daemon = start("--allow-uid", str(os.getuid() + 1))
    before = len(lines(daemon))
    with gevent.socket.socket(gevent.socket.AF_UNIX) as sock:
        sock.connect(f"{daemon.directory}/server.sock")
        assert sock.recv(1) == b""
    expected = f"refused: process N of user {os.getuid()} may not connect to unix:server.sock (allow_uid)"
    assert lines(daemon)[before:] == [("WARNING", expected)]


def test_max_workers(start, connect):
    """That connections wait is said once, not for each of them."""
    daemon = start("--max-workers", "1")
    client = connect(daemon)
    before = len(lines(daemon))
    with client.checkout() as worker:
        worker.pid()
        others = [gevent.spawn(connect(daemon, timeout=0.3).call, "pid") for _ in range(3)]
        gevent.joinall(others)
        assert all(isinstance(other.exception, gtask.AcquireTimeout) for other in others)
    full = ("WARNING", "there are 1 workers (max_workers), and more connections wait")
    assert lines(daemon)[before:] == [full]


def entries(text):
    """The lines of a log, each a JSON object."""
    return [json.loads(line) for line in text.splitlines()]


def test_json(start, connect, tmp_path):
    """Each line is an object, whatever happens: a death, a traceback, a reload onto broken code or bad options."""
    daemon = start("--log-json")
    with pytest.raises(gtask.WorkerDied):
        connect(daemon).call("die", signal.SIGKILL)
    daemon.wait_for("SIGKILL")
    for source in (APPLICATION + "\n1 / 0\n", "import os\n", "raise SystemExit('no licence')\n"):
        write(tmp_path, source)
        count = daemon.log.count("goes on serving")
        daemon.send(signal.SIGHUP)
        daemon.wait_for("goes on serving", count + 1)
    write(tmp_path, VERSION=2)
    (tmp_path / "gtask.conf.py").write_text("max_workers = 0\n")
    daemon.send(signal.SIGHUP)
    daemon.wait_for("goes on serving", 4)
    assert daemon.end() == 0
    found = entries(daemon.log)
    assert all({"time", "level", "pid", "logger", "message"} <= set(entry) for entry in found)
    assert {entry["pid"] for entry in found} > {daemon.pid, daemon.serving}
    told = "".join(entry["message"] + entry.get("exception", "") for entry in found)
    for cause in ("was ended by SIGKILL in die", "ZeroDivisionError", "offers nothing", "no licence", "max_workers=0"):
        assert cause in told


def test_json_of_a_daemon_that_cannot_start(tmp_path, start):
    """Also then, if the options could be read at all."""
    write(tmp_path, "1 / 0\n")
    daemon = start("--log-json", wait=False)
    assert daemon.wait() == 1
    assert "ZeroDivisionError" in entries(daemon.log)[0]["exception"]


SPEAKING = """
import logging

def speak():
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("application").log(level, "a word")
"""


@pytest.mark.parametrize("least", ["debug", "info", "warning", "error"])
def test_levels(start, connect, tmp_path, least):
    """``--log-level`` leaves out what is below it, for keeper, master and worker."""
    write(tmp_path, APPLICATION + SPEAKING)
    daemon = start("--log-level", least, "--log-json", wait=False)
    client = connect(daemon, timeout=30)
    client.call("speak")
    with pytest.raises(gtask.WorkerDied):
        client.call("die", signal.SIGKILL)
    (master,) = children(daemon.pid)
    os.kill(master, signal.SIGKILL)
    assert connect(daemon, timeout=30).call("pid")
    assert daemon.end() == 0
    found = {
        (entry["logger"].replace("gtask.server", "master"), entry["level"].lower()) for entry in entries(daemon.log)
    }
    levels = ["debug", "info", "warning", "error"]
    heard = levels[levels.index(least) :]
    assert {level for who, level in found if who == "application"} == set(heard)
    assert {level for who, level in found if who == "master"} == {"info", "warning"} & set(heard)
    assert {level for who, level in found if who == "master.keeper"} == {"info", "warning"} & set(heard)


def ask(daemon):
    """The version that is served."""
    with gtask.Client(daemon.address, min_workers=0, timeout=30) as client:
        return client.call("version")


def happen(daemon, directory):
    """One of each event; nothing comes of it but what should."""
    assert ask(daemon) == 1
    with gtask.Client(daemon.address, min_workers=0, timeout=30) as client, pytest.raises(gtask.WorkerDied):
        client.call("die", signal.SIGKILL)
    (master,) = children(daemon.pid)
    daemon.send(signal.SIGUSR1)
    daemon.send(signal.SIGUSR2)
    write(directory, APPLICATION + "\nopen('tried', 'w').close()\n1 / 0\n")
    daemon.send(signal.SIGHUP)
    wait_until((directory / "tried").exists, "the next master")
    wait_until(lambda: children(daemon.pid) == [master], "its end")
    assert ask(daemon) == 1
    write(directory, VERSION=2)
    daemon.send(signal.SIGHUP)
    wait_until(lambda: ask(daemon) == 2, "the reload")
    wait_until(lambda: master not in children(daemon.pid), "the end of the old master")
    os.kill(children(daemon.pid)[0], signal.SIGKILL)
    assert ask(daemon) == 2
    assert daemon.end() == 0
    assert processes(directory) == []


def test_a_broken_stderr(start, tmp_path):
    """Row 64: whoever read it is gone. All goes on, to the orderly end."""
    daemon = start(stderr=subprocess.PIPE, wait=False)
    log = b""
    while b"serves" not in log:
        log += os.read(daemon.process.stderr.fileno(), 65536)
    daemon.process.stderr.close()
    happen(daemon, tmp_path)


def test_no_stderr_at_all(start, connect, tmp_path):
    """It was closed by whoever has started the daemon: nothing else gets its number."""
    daemon = start(command=["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND], wait=False)
    with connect(daemon, timeout=30).checkout() as worker:
        pid = worker.pid()
        for one in (daemon.pid, *children(daemon.pid), pid):
            assert os.readlink(f"/proc/{one}/fd/2") == "/dev/null"
    happen(daemon, tmp_path)


def test_a_log_file_without_stderr(start, tmp_path):
    """``--log-file`` is written all the same."""
    daemon = start("--log-file", "own.log", command=["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND], wait=False)
    assert ask(daemon) == 1
    assert daemon.end() == 0
    log = (tmp_path / "own.log").read_text()
    assert all(text in log for text in ("is listening at", " serves", "has stopped", "has ended"))


def test_a_full_disk(start, tmp_path):
    """A log that cannot be written stops nothing, either."""
    with open("/dev/full", "wb") as full:
        daemon = start(stderr=full, wait=False)
        happen(daemon, tmp_path)
