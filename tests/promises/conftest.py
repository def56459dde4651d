"""The command gtask-server as an operator runs it, in a directory of its own, with an application in it."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gtask
from gtask import testing
from tests import web

ROOT = Path(gtask.__file__).parents[1]
COMMAND = [sys.executable, str(ROOT / "bin" / "gtask-server")]

APPLICATION = """
import os

def pids():
    return [os.getpid(), os.getppid()]
"""


def is_running(pid):
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid):
    """The process ids of its children."""
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class Operator:
    """Whoever types in commands.

    Attributes:
        directory: where that is; ``app.py`` is there.
        address: at which the servers listen unless told otherwise.
    """

    def __init__(self, directory):
        self.directory = directory
        self.address = f"unix:{directory}/a.sock"
        self.servers = []
        self.write("app.py", APPLICATION)

    is_running = staticmethod(is_running)
    children_of = staticmethod(children_of)

    def write(self, name, text):
        """Put a file there."""
        (self.directory / name).write_text(textwrap.dedent(text))

    def run(self, *arguments, **options):
        """A gtask-server that ends by itself: what it returned and wrote."""
        return subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, timeout=30, cwd=self.directory, **options
        )

    def start(self, *arguments, target="app", **options):
        """A gtask-server that goes on, when its first master serves."""
        server = Started(self, [target, "--listen", self.address, *arguments], options)
        self.servers.append(server)
        server.wait_for(" serves")
        return server

    def daemon(self, *arguments, target="app"):
        """``gtask-server --daemon`` has succeeded; gives the daemon's process id, which ends with the test."""
        done = self.run(target, "--listen", self.address, "--daemon", "--pid", "a.pid", *arguments)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        pid = int((self.directory / "a.pid").read_text())
        self.servers.append(Background(pid))
        return pid


class Started:
    """A gtask-server that runs; ``log`` is what it has written to stderr."""

    def __init__(self, operator, arguments, options):
        self._path = operator.directory / f"stderr-{len(operator.servers)}"
        with open(self._path, "wb") as stderr:
            self.process = subprocess.Popen([*COMMAND, *arguments], stderr=stderr, cwd=operator.directory, **options)
        self.pid = self.process.pid

    @property
    def log(self):
        return self._path.read_text()

    def wait_for(self, text, times=1):
        """Wait until the log has this text, as often as that."""

        def there():
            assert self.process.poll() is None, f"the server ended: {self.log}"
            return self.log.count(text) >= times

        try:
            testing.wait_until(there, 20, f"{text!r} in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is: {self.log}") from None

    def masters(self):
        """The process ids of the masters."""
        return children_of(self.pid)

    def end(self, number=signal.SIGTERM):
        """Send it a signal; gives its exit status."""
        self.process.send_signal(number)
        testing.wait_until(lambda: self.process.poll() is not None, 20, "the server's end")
        return self.process.returncode

    def clean_up(self):
        if self.process.poll() is None:
            self.end(signal.SIGQUIT)


class Background:
    def __init__(self, pid):
        self._pid = pid

    def clean_up(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGQUIT)
        testing.wait_until(lambda: not is_running(self._pid), 20, "the daemon's end")


_numbers = itertools.count(1)


@pytest.fixture
def allow(tmp_path, monkeypatch, nothing_is_left_behind):
    """``allow(source, *others)`` writes a module with this source, imports it here, and serves its functions, and those
    of the other modules, by gtask.server.functions; gives the server and the module.

    The module finds its test's directory as ``DIR`` (a str), to leave marks in.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    with contextlib.ExitStack() as servers:

        def start(source, *others):
            name = f"jobs_{next(_numbers)}"
            (tmp_path / f"{name}.py").write_text(f"DIR = {str(tmp_path)!r}\n" + textwrap.dedent(source))
            module = importlib.import_module(name)
            allowed = [f"--allow={each}" for each in (name, *others)]
            return servers.enter_context(testing.running_server("gtask.server.functions", None, *allowed)), module

        yield start


@pytest.fixture
def operator(tmp_path, monkeypatch, nothing_is_left_behind):
    """Somebody in the test's directory who runs gtask-server; what is started ends with the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("GTASK_SERVER_ARGS", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    operator = Operator(tmp_path)
    yield operator
    for server in operator.servers:
        server.clean_up()


@pytest.fixture
def site(tmp_path, nothing_is_left_behind):
    """A gtask-server of ``tests/apps/jobs.py``, and web servers before it; see :class:`tests.web.Site`."""
    with web.site(tmp_path) as site:
        yield site
