"""The point of this test is to ensure that SIGUSR1 opens the log file anew, and that SIGUSR2 writes the status to it.

So logrotate can move the file away: who writes, writes to the new one then, keeper, masters and workers alike.
"""

import os
import re
import shutil
import signal

import pytest

from tests.support.daemon import APPLICATION, daemons, write
from tests.support.waiting import wait_until

SAYING = """
import logging
import sys

def say(text):
    logging.getLogger("application").warning("%s", text)
    print(f"printed: {text}", file=sys.stderr, flush=True)
"""


@pytest.fixture
def logs(tmp_path):
    """The directory of the log file."""
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


@pytest.fixture
def start(tmp_path, logs, nothing_is_left_behind):
    """``start(*arguments)`` starts a daemon that writes logs/daemon.log, and ends with the test."""

    def start(*arguments, **options):
        daemon = begin("--log-file", "logs/daemon.log", *arguments, wait=False, **options)
        wait_until(lambda: "serves" in written(logs), "a master that serves")
        return daemon

    with daemons(tmp_path) as begin:
        write(tmp_path, APPLICATION + SAYING)
        yield start


def written(logs, name="daemon.log"):
    """What is in a file there."""
    return (logs / name).read_text() if (logs / name).exists() else ""


def master(logs):
    """The process id of the master that serves."""
    found = [
        pid for name in sorted(os.listdir(logs)) for pid in re.findall(r"master (\d+) serves", written(logs, name))
    ]
    return int(found[-1])


def rotate(daemon, logs):
    """Move the file away, and have it opened anew."""
    (logs / "daemon.log").rename(logs / "daemon.log.1")
    daemon.send(signal.SIGUSR1)
    wait_until((logs / "daemon.log").exists)


def test_all_write_to_the_new_file(start, connect, logs):
    """Keeper, master, and a worker that was there before; the old file stays as it is. Nobody is disturbed."""
    daemon = start()
    with connect(daemon).checkout() as worker:
        pid = worker.pid()
        worker.say("before")
        assert "before" in written(logs)
        rotate(daemon, logs)
        old = written(logs, "daemon.log.1")

        def worker_writes():
            worker.say("after")
            return f"WARNING {pid} application: after\nprinted: after\n" in written(logs)

        wait_until(worker_writes)
        other = connect(daemon).checkout()
        with pytest.raises(Exception, match="SIGKILL"):
            other.die(signal.SIGKILL)
        wait_until(lambda: "was ended by SIGKILL in die" in written(logs), what="the master's line")
        daemon.send(signal.SIGHUP)
        wait_until(lambda: re.search(r"keeper: master \d+ serves", written(logs)), "the keeper's line")
        assert worker.pid() == pid
    assert written(logs, "daemon.log.1").replace("after", "").startswith(old)
    assert "SIGKILL" not in written(logs, "daemon.log.1")
    assert daemon.end() == 0
    assert written(logs).endswith("application has ended\n")


def test_a_master_that_drains(start, connect, logs):
    """After a reload it and its workers write to the new file, too."""
    daemon = start()
    with connect(daemon).checkout() as worker:
        pid = worker.pid()
        daemon.send(signal.SIGHUP)
        wait_until(lambda: "1 drain" in written(logs))
        rotate(daemon, logs)

        def worker_writes():
            worker.say("from the old")
            return "from the old" in written(logs)

        wait_until(worker_writes)
        assert worker.pid() == pid
    wait_until(lambda: "has stopped" in written(logs), what="the old master's last line")


def test_a_master_that_starts(start, connect, logs, tmp_path):
    """It writes to the new file as soon as it serves."""
    daemon = start()
    os.mkfifo(tmp_path / "gate")
    write(tmp_path, "open('begun', 'w').close()\nwith open('gate') as gate: gate.read()\n" + APPLICATION + SAYING)
    daemon.send(signal.SIGHUP)
    wait_until((tmp_path / "begun").exists)
    rotate(daemon, logs)
    with open(tmp_path / "gate", "w"):
        pass
    wait_until(lambda: "1 drain" in written(logs))
    with connect(daemon).checkout() as worker:

        def worker_writes():
            worker.say("from the new")
            return "from the new" in written(logs)

        wait_until(worker_writes)


def test_a_file_that_cannot_be_opened(start, connect, logs):
    """All go on, with the file that they have, and say so there."""
    daemon = start()
    with connect(daemon).checkout() as worker:
        pid = worker.pid()
        shutil.move(logs, logs.parent / "elsewhere")
        for _ in range(3):
            daemon.send(signal.SIGUSR1)
        elsewhere = logs.parent / "elsewhere"
        wait_until(lambda: "cannot be opened anew: No such file" in written(elsewhere))
        worker.say("still here")
        assert worker.pid() == pid
        assert "still here" in written(elsewhere)
    assert connect(daemon).call("master") == master(elsewhere)
    assert daemon.end() == 0


def test_a_daemon_without_a_log_file(tmp_path, connect, nothing_is_left_behind):
    """SIGUSR1 changes nothing."""
    with daemons(tmp_path) as start:
        daemon = start()
        with connect(daemon).checkout() as worker:
            pid = worker.pid()
            daemon.send(signal.SIGUSR1)
            daemon.send(signal.SIGUSR2)
            daemon.wait_for("workers:")
            assert worker.pid() == pid
        assert daemon.end() == 0
        assert "ended by" not in daemon.log


def test_the_status(start, connect, logs):
    """One line: since when it is up, how often it was reloaded, what the workers do, and what there has been."""
    daemon = start("--name", "night-shift")
    client = connect(daemon)
    with client.checkout() as one, client.checkout() as two:
        assert one.pid() != two.pid()
        before = written(logs).count("\n")
        daemon.send(signal.SIGUSR2)
        wait_until(lambda: "workers:" in written(logs))
        assert written(logs).count("\n") == before + 1
        assert re.search(
            rf" INFO {master(logs)} gtask\.server: night-shift: up \d+ s, 0 reloads; workers: (\d (lent|call)(, )?)+; "
            r"2 forked, 0 ended, 0 refused, 2 calls, 0 setup failures\n$",
            written(logs),
        )
