"""A gtask-server in every form: with sockets handed over, or behind a launcher; and what to measure it by."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import gtask
from gtask import testing

ROOT = Path(gtask.__file__).parents[1]
COMMAND = [sys.executable, str(ROOT / "bin" / "gtask-server")]

SOURCE = """
import os

def pid():
    return os.getpid()

def pids():
    return [os.getpid(), os.getppid()]
"""

PATIENCE = 30.0
"""Seconds that it gets to start, and to end."""


class Daemon:
    """A running gtask-server; it serves the module ``app`` in its directory, which is its working directory.

    Args:
        directory: where the module, the socket ``sock`` and the log are.
        arguments: of gtask-server; without an address among them it listens at the socket.
        source: of the module, which is not written if it is empty.
        target: what is served.
        launcher: a command that starts the command, which comes behind it.
        wait: whether to wait until it serves.
        env, pass_fds: more of the environment, and descriptors to be inherited.
    """

    def __init__(
        self, directory, *arguments, source=SOURCE, target="app", launcher=(), wait=True, env=None, pass_fds=()
    ):
        if source:
            (directory / "app.py").write_text(textwrap.dedent(source))
        self.address = f"unix:{directory}/sock"
        self._log = directory / "log"
        self._begin = self._log.stat().st_size if self._log.exists() else 0
        listen = () if "--listen" in arguments or launcher else ("--listen", self.address)
        with open(self._log, "a") as log:
            self.process = subprocess.Popen(
                [*launcher, *COMMAND, target, *listen, *arguments],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(env or {})},
                stdin=subprocess.DEVNULL,
                stderr=log,
                pass_fds=pass_fds,
            )
        self.pid = self.process.pid
        if wait:
            try:
                self.wait_for(" serves")
            except BaseException:
                self.kill()
                raise

    @property
    def log(self):
        """What it has written so far."""
        return self._log.read_bytes()[self._begin :].decode()

    @property
    def masters(self):
        return children(self.pid)

    @property
    def master(self):
        (master,) = self.masters
        return master

    @property
    def workers(self):
        return [worker for master in self.masters for worker in children(master)]

    def wait_for(self, text):
        """Wait until its log contains this; fail at once if it ends before."""

        def said():
            return text in self.log or self.process.poll() is not None

        testing.wait_until(said, PATIENCE, f"{text!r} in the log")
        assert text in self.log, f"it ended with status {self.process.returncode}: {self.log}"

    def ends(self):
        """Wait for its end; gives its exit status."""
        testing.wait_until(lambda: self.process.poll() is not None, PATIENCE, "the daemon's end")
        return self.process.returncode

    def end(self, number=signal.SIGTERM):
        """Send it a signal that ends it; gives its exit status."""
        self.process.send_signal(number)
        return self.ends()

    def kill(self):
        """Whatever there is left of it."""
        for pid in [*self.workers, *self.masters, self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def daemon(directory, *arguments, **options):
    """A :class:`Daemon` for a ``with`` block, stopped at once at its end."""
    running = Daemon(directory, *arguments, **options)
    try:
        yield running
        if running.process.poll() is None:
            for pid in [running.pid, *running.masters]:
                os.kill(pid, signal.SIGCONT)
            running.end(signal.SIGQUIT)
    finally:
        running.kill()


def refused(directory, *arguments, **options):
    """The status of a gtask-server that cannot serve, and the one line that it says why."""
    running = Daemon(directory, *arguments, wait=False, **options)
    try:
        status = running.ends()
    finally:
        running.kill()
    assert "Traceback" not in running.log
    line = running.log.rstrip("\n").rpartition("\n")[2]
    assert line.startswith("gtask-server: "), running.log
    return status, line


def children(pid):
    """The living and the dead children of a single-threaded process; none if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def state_of(pid):
    """The state of a process: R, S, T for stopped, Z for a zombie; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_gone(pid):
    """For processes whose parent may not be ours."""
    return state_of(pid) in ("", "Z")


def cpu_time(pid):
    """Seconds of a processor that a single-threaded process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
