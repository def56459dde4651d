"""What the fault tests share: a module of faulty functions to serve, the server's log, and what to measure by.

A fault is injected by the function that is called, by a signal, or by what the function does to its own worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from time import monotonic

import gevent
import pytest

from tests.support.process import children, is_reaped, state_of
from tests.support.waiting import PATIENCE, turn_hub, wait_until

FAULTY = """
    import ctypes, itertools, os, resource, signal, sqlite3, subprocess, sys, time

    import gtask
    from gtask.server.worker.replies import ReplyBuffer

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # to write a core file takes its time

    _kept = []

    def pid():
        return os.getpid()

    def pids():
        return [os.getpid(), os.getppid()]

    def echo(value):
        return value

    def note(text):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(f"{text}\\n")
        return text

    def wait_for(path):
        with open(path) as file:
            return file.read()

    # --- ends of the worker

    def kill_itself(number=signal.SIGKILL):
        note("kill_itself")
        os.kill(os.getpid(), number)

    def leave(status):
        os._exit(status)

    def segfault():
        ctypes.string_at(0)

    def close_all_descriptors():
        os.closerange(3, 99)

    def fill_memory(size):
        _kept.append(bytearray(size))
        for place in range(0, size, 4096):
            _kept[-1][place] = 1
        note("filled")
        time.sleep(60)

    def die_before_the_reply(value):
        ReplyBuffer.send = lambda replies, frame: os.kill(os.getpid(), signal.SIGKILL)
        return note(value)

    def die_amid_the_reply(value, sent):
        def send(replies, frame):
            replies._send(frame[:sent])
            os.kill(os.getpid(), signal.SIGKILL)

        ReplyBuffer.send = send
        return value

    def die_after_the_reply(value):
        def send(replies, frame):
            replies._send(frame)
            os.kill(os.getpid(), signal.SIGKILL)

        ReplyBuffer.send = send
        return value

    # --- hangs: each leaves a grandchild behind

    def _leave_grandchild():
        child = subprocess.Popen(["sleep", "600"])
        _kept.append(child)
        with open(os.path.join(DIR, "grandchild"), "w") as file:
            file.write(str(child.pid))

    def sleep(seconds=60):
        _leave_grandchild()
        time.sleep(seconds)  # sleeps here

    def python_loop():
        _leave_grandchild()
        while True:
            pass  # loops here

    def c_loop():
        _leave_grandchild()
        -1 in itertools.count()  # loops in C here

    def swallow():
        _leave_grandchild()
        while True:
            try:
                time.sleep(60)  # swallows here
            except BaseException:
                pass

    class _Finalised:
        def __del__(self):
            time.sleep(60)  # finalises here

    def finalise():
        _leave_grandchild()
        thing = _Finalised()
        del thing

    class _Stubborn:
        def __del__(self):
            while True:
                try:
                    time.sleep(60)  # finalises stubbornly here
                except BaseException:
                    pass

    def finalise_stubbornly():
        _leave_grandchild()
        thing = _Stubborn()
        del thing

    def do_without_alarm(how):
        _leave_grandchild()
        if how == "blocked":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        elif how == "ignored":
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGALRM, lambda number, frame: None)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(60)  # hears no alarm here

    def stop_itself():
        _leave_grandchild()
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60)
"""

PROGRAM = """
import json, os, sys, time
import gevent
import gtask
from gtask.testing import wait_until

client = gtask.Client(sys.argv[1], min_workers=0, timeout=None)
checkout = client.checkout()

def tell(**facts):
    with open("facts.new", "w") as file:
        json.dump(facts, file)
    os.rename("facts.new", "facts")

tell(worker=checkout.pid())
"""


@pytest.fixture
def server_log(capfd):
    """``server_log()`` gives what the servers of this test have written to their stderr so far."""
    parts = []

    def read():
        parts.append(capfd.readouterr().err)
        return "".join(parts)

    yield read
    sys.stderr.write(read())  # for the report of a test that failed


@pytest.fixture
def faulty(serve, server_log):
    """``faulty(*arguments, more="")`` serves FAULTY, with more source behind it; gives the server.

    At the end, when the clients are closed (so ask for ``connect`` after this), the server must have no children.
    """
    servers = []

    def start(*arguments, more=""):
        server = serve(textwrap.dedent(FAULTY) + textwrap.dedent(more), *arguments)
        servers.append(server)
        return server

    yield start
    for server in servers:
        if not server.obituary():
            os.kill(server.pid, signal.SIGCONT)  # a test that failed may have left it stopped
            wait_until(lambda pid=server.pid: not children(pid), what="a server without children")


@pytest.fixture
def program(tmp_path):
    """``program(source, server)`` starts a client program that has a checkout; gives the process and its worker."""
    processes = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(source, server):
        (tmp_path / "program.py").write_text(PROGRAM + textwrap.dedent(source))
        with open(tmp_path / "stderr", "w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "program.py", str(server.address)],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )
        processes.append(process)
        wait_until((tmp_path / "facts").exists, "the program's checkout")
        return process, json.loads((tmp_path / "facts").read_text())["worker"]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def bury(pid, server):
    """SIGKILL a worker that is idle, and wait until its master has buried it and is idle; the hub does not run."""
    deadline = monotonic() + PATIENCE
    while state_of(pid) != "S":
        assert monotonic() < deadline, f"worker {pid} is not idle"
    os.kill(pid, signal.SIGKILL)
    while not (is_reaped(pid) and state_of(server.pid) == "S"):
        assert monotonic() < deadline, f"worker {pid} was not buried"


def ran(directory):
    """What the functions of FAULTY have noted."""
    path = directory / "ran"
    return path.read_text().splitlines() if path.exists() else []


def raised_by(function, *arguments):
    """What a call raises, whatever it is, as a value: for a greenlet of its own."""
    try:
        function(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def line_of(directory, text):
    """The number of the line of the served module that contains this text."""
    (module,) = directory.glob("served_*.py")
    (number,) = [number for number, line in enumerate(module.read_text().splitlines(), 1) if text in line]
    return number


class Ticks:
    """A greenlet that ticks, and the longest gap that it saw.

    Counted is the time in which the thread was blocked. The time in which it ran, or was ready and the machine ran
    others instead, is not, for that depends on the machine. Where the kernel does not say, nothing is deducted.
    """

    def __init__(self):
        self.longest = 0.0
        try:
            self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        except FileNotFoundError:
            self._schedule = -1

    def run(self):
        before = self._own_time()
        while True:
            gevent.sleep(0.005)
            now = self._own_time()
            self.longest = max(self.longest, now - before)
            before = now

    def close(self):
        if self._schedule >= 0:
            os.close(self._schedule)

    def _own_time(self):
        if self._schedule < 0:
            return monotonic()
        running, waiting, _ = os.pread(self._schedule, 100, 0).split()
        return monotonic() - (int(running) + int(waiting)) / 1e9


@contextlib.contextmanager
def steady_hub(longest=0.15):
    """Check that the hub is never blocked for longer than this in a ``with`` block."""
    ticks = Ticks()
    ticking = gevent.spawn(ticks.run)
    try:
        turn_hub()
        yield
        gevent.sleep(0.005)  # a last tick, which ends the last gap
    finally:
        ticking.kill()
        ticks.close()
    assert ticks.longest < longest, f"the hub did not run for {ticks.longest * 1000:.0f} ms"
