"""Web servers that tests start as real processes, and the load on them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from gtask import testing
from tests.gtask_server import ROOT, Daemon, children, is_gone
from tests.needs import fail_or_skip

APPS = Path(__file__).with_name("apps")
GUNICORN = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0"]

PATIENCE = 60.0
"""Seconds that a server gets to start, and to end."""


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


class WebServer:
    """A web server, which says in its log where it listens.

    Args:
        directory: its working directory, where the log is written.
        command: what starts it.
        env: more of the environment.
        say: what its log says when it serves.
    """

    def __init__(self, directory, command, env, say="Listening at: "):
        self._log = directory / "web.log"
        path = os.pathsep.join([str(directory), str(APPS), str(ROOT)])
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, "HOME": str(directory), "PYTHONPATH": path, **env},  # gunicorn has a socket at home
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.pid = self.process.pid
        try:
            self.wait_for(say)
        except BaseException:
            self.kill()
            raise
        self.url = re.search(r"http://[0-9.]+:\d+", self.log).group()

    @property
    def log(self):
        return self._log.read_text()

    @property
    def workers(self):
        """The processes that it has started."""
        return [pid for pid in children(self.pid) if not is_gone(pid)]

    def wait_for(self, text, times=1):
        """Wait until its log has this; fail at once if it ends before."""

        def said():
            return self.log.count(text) >= times or self.process.poll() is not None

        testing.wait_until(said, PATIENCE, f"{text!r} in the log")
        assert self.log.count(text) >= times, f"it ended with status {self.process.returncode}: {self.log}"

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

    def end(self, number=signal.SIGTERM):
        """Send it a signal that ends it; gives its exit status."""
        self.process.send_signal(number)
        testing.wait_until(lambda: self.process.poll() is not None, PATIENCE, "the web server's end")
        return self.process.returncode

    def kill(self):
        """Whatever there is left of it."""
        for pid in [*self.workers, self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Site:
    """A gtask-server of ``jobs.py`` or another module, and the web servers before it.

    Attributes:
        server: the gtask-server, a :class:`tests.gtask_server.Daemon`.
        marks: the directory in which ``jobs.py`` leaves its marks.
    """

    def __init__(self, directory, *arguments):
        self.marks = directory
        self._env = {"MARKS": str(directory), "JOBS": f"unix:{directory}/sock"}
        self._webs = []
        env = {**self._env, "PYTHONPATH": os.pathsep.join([str(APPS), str(ROOT)])}
        self.server = Daemon(directory, *arguments, source="", target="jobs", env=env)

    def web(self, *command, say="Listening at: ", **env):
        """Start a :class:`WebServer`."""
        self._webs.append(WebServer(self.marks, command, {**self._env, **env}, say))
        return self._webs[-1]

    def gunicorn(self, app, *arguments, **env):
        """Start gunicorn with two gevent workers; they are there when it is given back."""
        web = self.web(*GUNICORN, "-w", "2", *arguments, f"{app}:application", **env)
        web.wait_for("Booting worker", 2)
        return web

    def close(self):
        for web in self._webs:
            if web.process.poll() is None:
                web.end(signal.SIGQUIT)
            web.kill()
        if self.server.process.poll() is None:
            self.server.end(signal.SIGQUIT)
        self.server.kill()


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
