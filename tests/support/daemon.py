"""``gtask-server`` as an operator runs it: the real command, in a directory of its own, with its log in a file."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap

from tests.support.process import ROOT, Background, children, environment, is_gone, kill, processes, sockets
from tests.support.waiting import PATIENCE, wait_until

COMMAND = [sys.executable, str(ROOT / "bin" / "gtask-server")]

FOREIGN = dict.fromkeys(["PYTHONUNBUFFERED", "GTASK_SERVER_ARGS", "NOTIFY_SOCKET"])
"""Variables of the environment that an operator may not have: they change what a daemon does."""

SOURCE = """
import os

def pid():
    return os.getpid()

def pids():
    return [os.getpid(), os.getppid()]
"""

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


class Daemon(Background):
    """A running gtask-server, whose working directory is its own.

    Args:
        directory: where the served module, the socket and the log are.
        arguments: of gtask-server; without an address among them it listens at the socket ``sock``.
        source: of the module ``app``, which is not written if this is empty.
        target: what is served.
        command: how gtask-server is called; empty if a launcher calls it.
        launcher: a command that starts the command, which comes behind it, and names the address itself.
        wait: whether to wait until it serves.
        env: more of the environment.
        log: the name of the log's file.
        options: of the process, such as ``pass_fds``.
    """

    def __init__(
        self, directory, *arguments, source=SOURCE, target="app", command=COMMAND, launcher=(), wait=True, env=None,
        log="log", **options,
    ):  # fmt: skip
        if source:
            (directory / "app.py").write_text(textwrap.dedent(source))
        self.directory = directory
        self.address = f"unix:{directory}/sock"
        if "--listen" not in arguments and not launcher:
            arguments = ("--listen", self.address, *arguments)
        super().__init__(
            [*launcher, *command, target, *arguments],
            directory / log,
            **{"cwd": directory, "env": environment(**(env or {})), **options},
        )
        if wait:
            try:
                self.wait_for(" serves")
            except BaseException:
                self.kill()
                raise

    @property
    def masters(self):
        """The process ids of its masters, those that drain too."""
        return children(self.pid)

    @property
    def master(self):
        """The process id of its only master."""
        (master,) = self.masters
        return master

    @property
    def serving(self):
        """The process id of the master that serves, as the log says."""
        return int(re.findall(r"master (\d+) serves", self.log)[-1])

    @property
    def workers(self):
        """The process ids of all its masters' workers, zombies too."""
        return [worker for master in self.masters for worker in children(master)]

    def reload(self):
        """Send it SIGHUP, and wait until a new master serves, and the old one accepts no more."""
        old, count = self.serving, self.log.count(" serves")
        self.send(signal.SIGHUP)
        self.wait_for(" serves", count + 1)
        wait_until(lambda: not sockets(old) & sockets(self.pid), "the old master's last accept")


@contextlib.contextmanager
def daemon(directory, *arguments, **options):
    """A :class:`Daemon` for a ``with`` block, stopped at once at its end."""
    running = Daemon(directory, *arguments, **options)
    try:
        yield running
        if running.process.poll() is None:
            for pid in [running.pid, *running.masters]:
                with contextlib.suppress(ProcessLookupError):  # a master that a reload has replaced may end meanwhile
                    os.kill(pid, signal.SIGCONT)
            running.end(signal.SIGQUIT)
    finally:
        running.kill()


@contextlib.contextmanager
def daemons(directory):
    """``start(*arguments, **options)`` starts a :class:`Daemon` that serves application.py, which tests change by
    :func:`write`, at server.sock. At the end all processes in the directory are killed."""
    write(directory)
    started = []

    def start(*arguments, env=None, **options):
        options = {"source": "", "target": "application", "env": {**FOREIGN, **OPERATORS, **(env or {})}, **options}
        started.append(Daemon(directory, "--listen", "unix:server.sock", *arguments, **options))
        started[-1].address = f"unix:{directory}/server.sock"
        return started[-1]

    try:
        yield start
    finally:
        for running in started:
            running.process.kill()
            running.process.wait()
        wait_until(lambda: not kill(processes(directory)), "the end of all processes")


OPERATORS = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
"""What else is in the environment where an application changes."""


def write(directory, source=APPLICATION, **replacements):
    """Make the application, in one step, with some of its variables changed."""
    for name, value in replacements.items():
        source = re.sub(f"(?m)^{name} = .*$", f"{name} = {value!r}", source)
    (directory / "new").write_text(textwrap.dedent(source))
    (directory / "new").rename(directory / "application.py")


def refused(directory, *arguments, **options):
    """The status of a gtask-server that cannot serve, and the one line that says why."""
    running = Daemon(directory, *arguments, wait=False, **options)
    try:
        status = running.wait()
    finally:
        running.kill()
    assert "Traceback" not in running.log
    line = running.log.rstrip("\n").rpartition("\n")[2]
    assert line.startswith("gtask-server: "), running.log
    return status, line


class Operator:
    """A person who types commands in a directory, where ``app.py`` is.

    Attributes:
        directory: that directory.
        servers: the daemons that were started, but for those in the background.
        address: where the servers listen unless told otherwise.
    """

    is_gone = staticmethod(is_gone)
    children_of = staticmethod(children)

    def __init__(self, directory):
        self.directory = directory
        self.address = f"unix:{directory}/a.sock"
        self.servers = []
        self._started = contextlib.ExitStack()
        self.write("app.py", SOURCE)

    def write(self, name, text):
        """Put a file there."""
        (self.directory / name).write_text(textwrap.dedent(text))

    def run(self, *arguments, **options):
        """A gtask-server that ends by itself: what it returned and wrote."""
        return subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, cwd=self.directory, **options
        )

    def start(self, *arguments, target="app", **options):
        """A :class:`Daemon` that goes on until the end of the test, when its first master serves."""
        options = {"source": "", "log": f"stderr-{len(self.servers)}", "env": {"PYTHONPATH": str(ROOT)}, **options}
        running = Daemon(self.directory, "--listen", self.address, *arguments, target=target, **options)
        self.servers.append(running)
        self._started.callback(lambda: running.process.poll() is None and running.end(signal.SIGQUIT))
        return running

    def daemon(self, *arguments, target="app"):
        """``gtask-server --daemon`` has succeeded; gives the daemon's process id, which ends with the test."""
        done = self.run(target, "--listen", self.address, "--daemon", "--pid", "a.pid", *arguments)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        pid = int((self.directory / "a.pid").read_text())
        self._started.callback(self._quit, pid)
        return pid

    def close(self):
        """End what was started."""
        self._started.close()

    def _quit(self, pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: is_gone(pid), "the daemon's end")
