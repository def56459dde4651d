"""The point of this test is to ensure that ``gtask top`` is usable in a terminal of 80 columns.

It runs in one (a pty), and what it draws is put together as a terminal would: a header, the workers sorted by how busy
they are, with bars, recent deaths; it goes on when the server is gone, and ends with q.
"""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest

import gtask
from tests.promises.server.test_tool_call import TOOL, tool
from tests.support.daemon import daemon
from tests.support.waiting import wait_until

SOURCE = """
    import os, time

    def pid():
        return os.getpid()

    def work(seconds):
        time.sleep(seconds)

    def a_method_with_a_very_long_name_that_has_no_room_anywhere(path):
        with open(path) as gate:
            return gate.read()

    def die():
        os.kill(os.getpid(), 9)
"""

ROWS, COLUMNS = 24, 80


class Terminal:
    """The command in a terminal, and its screen."""

    def __init__(self, *arguments, rows=ROWS, columns=COLUMNS):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.usual = termios.tcgetattr(slave)
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm-256color",
            "PYTHONIOENCODING": "utf-8", "COLUMNS": "", "LINES": "",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [*TOOL, "top", *arguments], stdin=slave, stdout=slave, stderr=subprocess.STDOUT, env=environment
        )
        self.slave = slave
        os.set_blocking(self.master, False)
        self._drawn = b""

    def press(self, keys):
        os.write(self.master, keys)

    @property
    def screen(self):
        """The lines of the screen that was drawn last and is whole, without colours."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.master, 65536):
                self._drawn += data
        screens = re.split(rb"\x1b\[H", self._drawn)
        last = screens[-1] if b"q quits" in screens[-1] else screens[-2] if len(screens) > 1 else b""
        text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", last).decode()
        return [line.rstrip() for line in text.replace("\r", "").split("\n")]

    def shows(self, pattern):
        """Wait until a screen shows this; gives its lines."""
        found = []

        def there():
            found[:] = self.screen
            return re.search(pattern, "\n".join(found), re.M)

        try:
            wait_until(there, f"{pattern!r} on the screen")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.screen])) from None
        return found

    def end(self):
        """Wait for the end of the command; gives its status."""

        def over():
            return self.screen and self.process.poll() is not None

        wait_until(over, "the end of the command")
        return self.process.returncode


@pytest.fixture
def terminal(nothing_is_left_behind):
    pytest.importorskip("rich")
    terminals = []

    def start(*arguments, **options):
        terminals.append(Terminal(*arguments, "--interval", "0.1", **options))
        return terminals[-1]

    yield start
    for one in terminals:
        one.process.kill()
        one.process.wait()
        os.close(one.master)
        os.close(one.slave)


@pytest.fixture
def server(tmp_path, nothing_is_left_behind):
    with daemon(tmp_path, "--name", "hasher", "--max-workers", "30", source=SOURCE) as server:
        yield server


def rows(lines):
    """The table: for each worker its columns."""
    found = [line.split() for line in lines]
    begin = next(number for number, words in enumerate(found) if words[:2] == ["PID", "STATE"])
    return [words for words in found[begin + 1 :] if words and words[0].isdigit()]


def test_a_busy_server(server, connect, terminal, tmp_path):
    """Who is busy comes first, with a full bar; no line is wider than the terminal; q quits and restores it."""
    os.mkfifo(tmp_path / "gate")
    client = connect(server.address)
    with client.checkout() as idle, client.checkout() as hung, client.checkout() as dying:
        pids = [idle.pid(), hung.pid()]
        with pytest.raises(gtask.WorkerDied):
            dying.die()
        waiting = hung.a_method_with_a_very_long_name_that_has_no_room_anywhere.submit(str(tmp_path / "gate"))
        with open(tmp_path / "gate", "w"):
            shown = terminal(server.address)
            # On one screen, for the dead one may leave a little later.
            lines = shown.shows(r"(?s)^2 of 30 workers \(1 call, 1 lent\).* 100% a_method_with")
            assert lines[0] == f"hasher at {server.address}"[:79] + "…" * (len(server.address) + 10 > 80)
            assert re.match(rf"master {server.master}, up \S+, 0 reloads; [0-9]+ calls, 0 a second$", lines[1])
            assert re.match(r"2 of 30 workers \(1 call, 1 lent\), [12]\.[0-9] busy on average$", lines[2])
            first, second = rows(lines)
            assert first[0:2] == [str(pids[1]), "call"]
            assert first[3:5] == ["█" * 10, "100%"]
            assert first[5].startswith("a_method_with")
            assert first[5].endswith("…")
            assert first[6] == "2"
            assert second[0:2] == [str(pids[0]), "lent"]
            assert second[3] == "0%"
            assert re.search(r"^\S+ ago: worker \d+ was ended by SIGKILL in die after ", "\n".join(lines), re.M)
            assert [line for line in lines if line][-1] == "q quits; looks every 0.1 s"
            assert all(len(line) <= COLUMNS for line in lines)
            assert len(lines) <= ROWS
            shown.press(b"\x1b[A")  # an arrow is no q
            shown.press(b"xq")
            assert shown.end() == 0
            assert termios.tcgetattr(shown.slave) == shown.usual
        waiting.get()


def test_who_has_the_workers(server, connect, terminal):
    """Below the table in a terminal of 80 columns, and beside each worker in a wide one."""
    web = connect(server.address, name="web", min_workers=2)
    web.open(wait=True)
    who = f"web, pid {os.getpid()}, uid {os.getuid()}"
    terminal(server.address).shows(rf"^workers: 2 of {who}")
    lines = terminal(server.address, columns=140).shows(rf"{who} *$")
    assert sum(who in line for line in lines) == 2


def test_short_calls_make_a_bar_too(server, connect, terminal):
    """A worker that is busy for most of its time shows so, although each call is over before anybody looks."""
    with connect(server.address).checkout() as worker:
        worker.pid()
        shown = terminal(server.address)
        shown.shows("1 of 30 workers")

        def is_seen():
            for _ in range(20):
                worker.work(0.002)
            return any(len(row) > 4 and row[4].endswith("%") and int(row[4][:-1]) > 50 for row in rows(shown.screen))

        wait_until(is_seen, "a bar for short calls")


def test_more_workers_than_lines(server, connect, terminal):
    """The screen says how many there is no room for, and keeps its last line."""
    client = connect(server.address)
    checkouts = [client.checkout() for _ in range(12)]
    for worker in checkouts:
        worker.pid()
    lines = terminal(server.address, rows=12).shows("12 of 30 workers")
    assert len([line for line in lines if line]) <= 12
    assert len(rows(lines)) == 5
    assert lines[-2:] == ["... and 7 more workers, less busy", "q quits; looks every 0.1 s"]
    for worker in checkouts:
        worker.release()


def test_the_server_goes_and_comes(tmp_path, terminal):
    """It says so, and shows the next one."""
    with daemon(tmp_path, source=SOURCE) as server:
        shown = terminal(server.address)
        shown.shows(rf"^master {server.master}, ")
        assert server.end() == 0
        shown.shows("^server unreachable: no such file")
    with daemon(tmp_path, source=SOURCE) as server:
        shown.shows(rf"^master {server.master}, ")
        shown.press(b"Q")
        assert shown.end() == 0


def test_an_interrupt(server, terminal):
    """Ctrl-C ends it as well, without a traceback, and restores the terminal."""
    shown = terminal(server.address)
    shown.shows("0 of 30 workers")
    shown.process.send_signal(signal.SIGINT)
    assert shown.end() == 130
    assert not any("Traceback" in line for line in shown.screen)
    assert termios.tcgetattr(shown.slave) == shown.usual


def test_no_terminal(server):
    """There it says what to use instead."""
    pytest.importorskip("rich")
    status, out, err = tool("top", server.address)
    assert (status, out, err) == (2, "", "gtask: top needs a terminal; gtask status prints once\n")


def test_without_rich(server):
    """It says what to install; the other commands do not need it."""
    hide = "import sys; sys.modules['rich.console'] = None; from gtask.tool.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for command, status in (("top", 2), ("ping", 0)):
        done = subprocess.run(
            [sys.executable, "-c", hide, command, server.address], env=environment, capture_output=True, text=True
        )
        assert done.returncode == status
        assert ("pip install gtask[top]" in done.stderr) == (command == "top")
