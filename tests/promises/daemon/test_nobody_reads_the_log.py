"""The point of this test is to ensure that a log that nobody reads stops nothing: not a keeper, a master, or a worker.

The log leads into a pipe or a socket that is full, to a terminal that Ctrl-S has stopped, onto a full disk. What cannot
be written is dropped and counted, and the number is told as soon as somebody reads.
"""

import contextlib
import fcntl
import os
import re
import signal
import socket
import termios
import tty

import gevent
import pytest

import gtask
from tests.support.daemon import Daemon
from tests.support.process import is_gone
from tests.support.program import run_program
from tests.support.waiting import wait_until

SOURCE = """
    import logging
    import os
    import sys

    print("loaded")  # into a buffer that a fork is to write

    def talk(lines):
        for number in range(lines):
            logging.getLogger("app").warning("line %d of %d", number, lines)
            print(f"printed {number}", file=sys.stderr)
        print("to stdout", flush=True)
        return os.getpid()

    def die():
        os._exit(7)
"""


def pipe():
    """A pipe without room; gives its writing end, its reading end and how it is emptied."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 4096)
    os.set_blocking(writing, True)
    os.set_blocking(reading, False)
    return writing, reading


def connection():
    """A socket, as that of journald, whose other end has no more room."""
    theirs, mine = socket.socketpair()
    theirs.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            theirs.send(b"." * 4096)
    theirs.setblocking(True)
    mine.setblocking(False)
    return theirs.detach(), mine.detach()


def terminal():
    """A terminal at which somebody has typed Ctrl-S."""
    mine, theirs = os.openpty()
    tty.setraw(theirs)
    termios.tcflow(theirs, termios.TCOOFF)
    os.set_blocking(mine, False)
    return theirs, mine


SINKS = [pipe, connection, terminal]


@pytest.fixture(params=SINKS, ids=[sink.__name__ for sink in SINKS])
def sink(request):
    """A descriptor to which nothing can be written, and a function that reads what is there, and makes room."""
    theirs, mine = request.param()

    def read():
        if request.param is terminal:
            termios.tcflow(theirs, termios.TCOON)
        with contextlib.suppress(BlockingIOError):
            return os.read(mine, 1 << 20).decode()
        return ""

    yield theirs, read
    os.close(theirs)
    os.close(mine)


@pytest.fixture
def start(tmp_path):
    """``start(descriptor, *arguments)`` runs a daemon whose output goes there; it is killed at the end."""
    started = []

    def run(descriptor, *arguments, **options):
        streams = {"stdout": descriptor, "stderr": descriptor} if descriptor is not None else {}
        started.append(Daemon(tmp_path, *arguments, source=SOURCE, wait=False, **streams, **options))
        return started[-1]

    yield run
    for daemon in started:
        daemon.kill()


def test_all_goes_on(sink, start, connect):
    """The server serves, its workers log and print, it reaps, reloads and drains; later it says what was lost."""
    descriptor, read = sink
    daemon = start(descriptor)
    client = connect(daemon)
    assert client.call("talk", 500)
    with pytest.raises(gtask.WorkerDied):
        client.call("die")
    first = daemon.master
    daemon.send(signal.SIGHUP)
    wait_until(lambda: is_gone(first), "the end of the old master")
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        daemon.send(number)
    assert client.call("talk", 1)
    text = ""

    def is_told():
        nonlocal text
        text += read()
        return re.search(r"\d+ lines of the output were lost", text)

    wait_until(is_told, "a word about the loss")
    assert daemon.end(signal.SIGTERM) == 0


def test_a_server_of_a_program_goes_on_as_well(tmp_path):
    """gtask.Server, and gtask.fork_server: also where the program logs with handlers of its own."""
    for how in ("fork_server({'talk': talk}) as server", "running() as server"):
        program = f"""
            import contextlib, logging, os, sys, time
            logging.basicConfig(level="INFO")
            import gtask

            def talk():
                logging.warning("a line of a worker")
                print("more", flush=True)
                return os.getpid()

            class Running:
                address = "unix:{tmp_path}/embedded"

            @contextlib.contextmanager
            def running():
                pid = os.fork()
                if not pid:
                    gtask.Server(Running.address, {{"talk": talk}}).run()
                    os._exit(0)
                yield Running
                os.kill(pid, 15)
                assert os.waitpid(pid, 0)[1] == 0

            reading, writing = os.pipe()
            kept = [os.dup(1), os.dup(2)]
            os.set_blocking(writing, False)
            try:
                while True:
                    os.write(writing, b"." * 4096)
            except BlockingIOError:
                os.set_blocking(writing, True)
            for number in (1, 2):
                os.dup2(writing, number)
            with (gtask.{how}) if {how.startswith("fork")} else running() as server:
                for number, old in zip((1, 2), kept):
                    os.dup2(old, number)
                with gtask.Client(server.address, min_workers=0, timeout=20) as client:
                    print(client.call("talk") > 0)
        """.replace("gtask.running() as server", "running()").replace(" as server)", ")")
        assert run_program(program, directory=tmp_path).stdout.endswith("True\n")


def test_a_pipe_that_nobody_has_opened(start, connect, tmp_path):
    """As ``--log-file``, and again at SIGUSR1: who opens it later reads what has happened since."""
    os.mkfifo(tmp_path / "fifo")
    daemon = start(None, "--log-file", str(tmp_path / "fifo"))
    assert connect(daemon).call("talk", 3)
    daemon.send(signal.SIGUSR1)
    with open(
        tmp_path / "fifo", "rb", buffering=0, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
    ) as log:
        text = b""

        def is_told():
            nonlocal text
            text += log.read() or b""
            return b" serves" in text

        wait_until(is_told, "the log")
    assert connect(daemon).call("talk", 1000)  # into a pipe that fills
    assert daemon.end(signal.SIGTERM) == 0


def test_a_full_disk(start, connect):
    """No line can be written."""
    daemon = start(None, "--log-file", "/dev/full")
    assert connect(daemon).call("talk", 3)
    assert daemon.end(signal.SIGTERM) == 0


def test_a_terminal_that_stops_what_writes_from_the_background(tmp_path, start, connect):
    """``stty tostop``: masters lead groups of their own, so the terminal takes them for background jobs."""
    mine, theirs = os.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[3] |= termios.TOSTOP
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)

    def at_the_terminal():
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    daemon = start(theirs, preexec_fn=at_the_terminal)
    os.set_blocking(mine, False)
    reader = gevent.spawn(_read_always, mine)
    try:
        assert connect(daemon).call("talk", 3)
        assert daemon.end(signal.SIGTERM) == 0
    finally:
        reader.kill()
        os.close(theirs)
        os.close(mine)


def _read_always(descriptor):
    while True:
        gevent.socket.wait_read(descriptor)
        os.read(descriptor, 65536)
