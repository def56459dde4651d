"""Web servers that tests start as real processes, and the load on them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass

from tests.support.daemon import COMMAND, Daemon
from tests.support.documents import named_blocks
from tests.support.needs import fail_or_skip
from tests.support.process import ROOT, Background, children, is_gone
from tests.support.waiting import PATIENCE

APPS = ROOT / "tests" / "apps"
GUNICORN = [
    *(sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0"),
    *("-c", str(APPS / "gunicorn.conf.py")),
]

HOWTO = ROOT / "docs" / "howto"
PROGRAMS = {
    "gtask-server": COMMAND,
    "gunicorn": [sys.executable, "-m", "gunicorn"],
    "flask": [sys.executable, "-m", "flask"],
}
"""How the programs that the pages name are started here."""


@dataclass(frozen=True)
class Load:
    """What wrk has seen: how many answers, how many errors of each kind, and milliseconds."""

    requests: int
    connect: int
    read: int
    write: int
    timeout: int
    status: int
    p50: float
    p99: float

    @property
    def errors(self):
        return {kind: n for kind in ("connect", "read", "write", "timeout", "status") if (n := getattr(self, kind))}


class Server(Background):
    """A web server or another one, which says in its log when it serves.

    Args:
        directory: its working directory, where the log is written.
        command: the command that starts it.
        env: more of the environment.
        say: the text in its log by which it says that it serves.
    """

    def __init__(self, directory, command, env, say="Listening at: "):
        super().__init__(
            command,
            directory / f"log-{len(list(directory.glob('log-*')))}",
            streams=("stdout", "stderr"),
            cwd=directory,
            env={**os.environ, "HOME": str(directory), "PYTHONPATH": str(ROOT), **env},  # gunicorn's socket is at home
        )
        try:
            self.wait_for(say)
        except BaseException:
            self.kill()
            raise

    @property
    def url(self):
        """Where a web server listens."""
        return re.search(r"http://[0-9.]+:\d+", self.log).group()

    @property
    def workers(self):
        """The processes that it has started."""
        return [pid for pid in children(self.pid) if not is_gone(pid)]

    def get(self, page):
        """The text of a page."""
        with urllib.request.urlopen(self.url + page, timeout=PATIENCE) as reply:
            return reply.read().decode()

    def wrk(self, page, seconds, *, connections=200, rest=0):
        """Begin to ask for a page over so many connections at a time, for so many seconds.

        Args:
            rest: milliseconds up to which each connection pauses before each of its requests.

        Returns:
            what waits for the end, and gives the :class:`Load`.
        """
        if shutil.which("wrk") is None:
            fail_or_skip("wrk (apt-get install wrk)")
        process = subprocess.Popen(
            [
                *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"),
                *("-s", str(APPS / "report.lua"), self.url + page, "--", str(rest)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

        def wait():
            output, _ = process.communicate(timeout=seconds + PATIENCE)
            assert process.returncode == 0, output
            return Load(**json.loads(output.rstrip().rpartition("\n")[2]))

        return wait


class Site:
    """A gtask-server of ``jobs.py`` or another module, and the web servers before it.

    Attributes:
        server: the gtask-server, a :class:`tests.support.daemon.Daemon`.
        marks: the directory in which ``jobs.py`` leaves its marks.
    """

    def __init__(self, directory, *arguments):
        self.marks = directory
        path = os.pathsep.join([str(APPS), str(ROOT)])
        self._env = {"MARKS": str(directory), "JOBS": f"unix:{directory}/sock", "PYTHONPATH": path}
        self._webs = []
        self.server = Daemon(directory, *arguments, source="", target="jobs", env=self._env)

    def web(self, *command, say="Listening at: ", **env):
        """Start a :class:`Server`."""
        self._webs.append(Server(self.marks, command, {**self._env, **env}, say))
        return self._webs[-1]

    def gunicorn(self, app, *arguments, **env):
        """Start gunicorn with two gevent workers; they are ready when it is given back."""
        web = self.web(*GUNICORN, "-w", "2", *arguments, f"{app}:application", **env)
        web.wait_for("Ready: ", 2)
        return web

    def close(self):
        for web in self._webs:
            if web.process.poll() is None:
                web.end(signal.SIGQUIT)
            web.kill()
        if self.server.process.poll() is None:
            self.server.end(signal.SIGQUIT)
        self.server.kill()


class Page:
    """What somebody does who follows a page of docs/howto: its files are there, and its commands can be typed in."""

    def __init__(self, name, directory):
        self.directory = directory
        self._blocks = named_blocks((HOWTO / name).read_text())
        self._started = []
        for name, text in self._blocks.items():
            if "." in name:
                (directory / name).write_text(text)

    def start(self, block, number, *more, say):
        """Start the server of the n-th line of a block of commands, with some arguments more."""
        words = shlex.split(self.lines(block)[number])
        env = {}
        while "=" in words[0]:
            name, _, env[name] = words.pop(0).partition("=")
        server = Server(self.directory, [*PROGRAMS[words[0]], *words[1:], *more], env, say)
        self._started.append(server)
        return server

    def lines(self, block):
        """The commands of a block."""
        return [line.removeprefix("$ ") for line in self._blocks[block].splitlines() if line]

    def close(self):
        for server in reversed(self._started):
            if server.process.poll() is None:
                server.end()
            server.kill()


@contextlib.contextmanager
def site(directory, *arguments):
    """A :class:`Site` for a ``with`` block; all its processes end with it.

    Args:
        directory: an empty one.
        arguments: more arguments of gtask-server.
    """
    running = Site(directory, *arguments)
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def page(name, directory):
    """A :class:`Page` for a ``with`` block; what was started ends with it.

    Args:
        name: of the page, a file of docs/howto.
        directory: an empty one.
    """
    running = Page(name, directory)
    try:
        yield running
    finally:
        running.close()
