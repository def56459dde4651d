"""``gtask-server`` as an operator runs it: the real command, in a directory of its own, with its log in a file."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import gtask
from gtask import testing

ROOT = Path(gtask.__file__).parents[1]
COMMAND = [sys.executable, str(ROOT / "bin" / "gtask-server")]

FOREIGN = {"PYTHONUNBUFFERED", "GTASK_SERVER_ARGS", "NOTIFY_SOCKET"}
"""Variables of the environment that an operator may not have: they change what a daemon does."""

APPLICATION = """
import os
import signal
import time

VERSION = 1

def version():
    return VERSION

def pid():
    return os.getpid()

def master():
    return os.getppid()

def wait_for(path):
    with open(path) as gate:
        return gate.read()

def sleep(seconds=60):
    time.sleep(seconds)

def die(number):
    os.kill(os.getpid(), number)
"""


class Daemon:
    """A daemon that serves application.py of this directory, which the caller may change, at server.sock.

    Args:
        directory: where it is started.
        arguments: more arguments of gtask-server.
        command: how gtask-server is called.
        wait: whether to wait until it serves.
        options: of the process.
    """

    def __init__(self, directory, *arguments, command=COMMAND, wait=True, **options):
        self.directory = directory
        self.address = f"unix:{directory}/server.sock"
        self._log = directory / "log"
        self._begin = self._log.stat().st_size if self._log.exists() else 0
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        environment.update({"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"})
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [*command, "application", "--listen", "unix:server.sock", *arguments],
                **{"cwd": directory, "env": environment, "stderr": log, "stdin": subprocess.DEVNULL, **options},
            )
        self.pid = self.process.pid
        if wait:
            self.wait_for("serves")

    @property
    def log(self):
        """What it has written so far."""
        with open(self._log, encoding="utf-8") as log:
            log.seek(self._begin)
            return log.read()

    def wait_for(self, text, count=1):
        """Wait until it has written this, so many times."""

        def written():
            return self.log.count(text) >= count or self.process.poll() is not None

        testing.wait_until(written, 30, f"{text!r} in the log")
        assert self.log.count(text) >= count, f"the daemon has ended: {self.log}"

    @property
    def master(self):
        """The process id of the master that serves."""
        return int(re.findall(r"master (\d+) serves", self.log)[-1])

    def send(self, number):
        """Send it a signal."""
        self.process.send_signal(number)

    def reload(self):
        """Send it SIGHUP, and wait until a new master serves, and the old one accepts no more."""
        old, count = self.master, self.log.count(" serves")
        self.send(signal.SIGHUP)
        self.wait_for(" serves", count + 1)
        testing.wait_until(lambda: not sockets(old) & sockets(self.pid), 10, "the old master's last accept")

    def wait(self):
        """Wait for its end, while clients may hear of it; gives the exit status."""
        testing.wait_until(lambda: self.process.poll() is not None, 30, "the daemon's end")
        return self.process.returncode

    def end(self, number=signal.SIGTERM):
        """Send it a signal that ends it; gives the exit status."""
        self.send(number)
        return self.wait()


@contextlib.contextmanager
def daemons(directory):
    """``start(*arguments, **options)`` starts a daemon in this directory; at the end all processes there are killed."""
    write(directory)
    started = []

    def start(*arguments, **options):
        started.append(Daemon(directory, *arguments, **options))
        return started[-1]

    try:
        yield start
    finally:
        for daemon in started:
            daemon.process.kill()
            daemon.process.wait()
        testing.wait_until(lambda: not kill(processes(directory)), 10, "the end of all processes")


def write(directory, source=APPLICATION, **replacements):
    """Make the application, in one step, with some of its variables changed."""
    for name, value in replacements.items():
        source = re.sub(f"(?m)^{name} = .*$", f"{name} = {value!r}", source)
    (directory / "new").write_text(textwrap.dedent(source))
    (directory / "new").rename(directory / "application.py")


def processes(directory):
    """The processes that work in this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(directory):
                found.append(int(entry.name))
    return found


def children(pid):
    """The child processes of a process, zombies too. (The kernel's own list misses some while they come and go.)"""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(entry.name))
    return found


def is_gone(pid):
    """Whether there is no such process, or nobody has reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def sockets(pid):
    """The sockets that a process has open; those that it listens at are also its daemon's."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(entry))
    return {path for path in found if path.startswith("socket:")}


def kill(pids):
    """Kill these processes; gives them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids
