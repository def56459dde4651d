"""The point of this test is to ensure that systemd hears from the daemon what it wants to hear (sd_notify(3)).

READY when it serves and not before, RELOADING and READY around a reload, STOPPING, a STATUS in words, and WATCHDOG.
"""

import os
import signal
import socket
from time import monotonic

import pytest

from tests.support.daemon import SOURCE, daemon
from tests.support.waiting import wait_until


class Manager:
    """The socket at which systemd hears."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self.socket.setblocking(False)
        self.heard = []

    def listen(self):
        """All messages so far, each as a dict."""
        while True:
            try:
                message = self.socket.recv(65536).decode()
            except BlockingIOError:
                return self.heard
            self.heard.append(dict(line.split("=", 1) for line in message.split("\n")))

    def hears(self, variable, times=1):
        """Wait until so many messages have this variable; gives the last of them."""

        def those():
            return [message for message in self.listen() if variable in message]

        wait_until(lambda: len(those()) >= times, f"{variable} for systemd")
        return those()[-1]


@pytest.fixture
def manager(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


@pytest.fixture
def notify(tmp_path):
    return {"NOTIFY_SOCKET": str(tmp_path / "notify")}


def test_ready_when_it_serves(connect, tmp_path, manager, notify):
    """Not while the application is loaded, but as soon as a connection is served; with a status in words."""
    os.mkfifo(tmp_path / "gate")
    source = f"open({str(tmp_path / 'gate')!r}).read()\n" + SOURCE
    with daemon(tmp_path, env=notify, source=source, wait=False) as server:
        with open(tmp_path / "gate", "w"):  # opens when the application is being loaded
            assert manager.listen() == []
        ready = manager.hears("READY")
        assert ready["READY"] == "1"
        assert ready["STATUS"] == f"master {server.master} serves"
        assert connect(server.address).call("pid")


def test_an_abstract_socket(tmp_path, nothing_is_left_behind):
    """NOTIFY_SOCKET may be an abstract name."""
    name = f"@gtask-notify-{os.getpid()}"
    manager = Manager(name)
    with manager.socket, daemon(tmp_path, env={"NOTIFY_SOCKET": name}):
        manager.hears("READY")


def test_a_reload(tmp_path, manager, notify):
    """RELOADING with the time on the monotonic clock, then READY when the new master serves."""
    with daemon(tmp_path, env=notify) as server:
        manager.hears("READY")
        before = monotonic()
        server.process.send_signal(signal.SIGHUP)
        reloading = manager.hears("RELOADING")
        assert before <= int(reloading["MONOTONIC_USEC"]) / 1e6 + 1e-6 <= monotonic()
        ready = manager.hears("READY", 2)
        assert manager.heard.index(reloading) < manager.heard.index(ready)
        assert " serves" in ready["STATUS"]


def test_a_reload_that_fails(tmp_path, manager, notify):
    """It is over then, too: READY, and the status says that the old code goes on serving."""
    with daemon(tmp_path, env=notify) as server:
        manager.hears("READY")
        (tmp_path / "app.py").write_text("import no_such_module_anywhere")
        server.process.send_signal(signal.SIGHUP)
        manager.hears("RELOADING")
        assert "the old one goes on serving" in manager.hears("READY", 2)["STATUS"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping(connect, tmp_path, manager, notify, number):
    """STOPPING at once, also while a checkout is still to end."""
    with daemon(tmp_path, env=notify) as server:
        with connect(server.address).checkout() as worker:
            worker.pid()
            server.process.send_signal(number)
            assert manager.hears("STOPPING")["STOPPING"] == "1"
            if number == signal.SIGTERM:
                assert server.process.poll() is None
        assert server.wait() == 0


def test_the_watchdog(tmp_path, manager, notify):
    """It hears WATCHDOG again and again, twice in the interval that it asks for, also while nothing happens."""
    began = monotonic()
    with daemon(tmp_path, env={**notify, "WATCHDOG_USEC": "300000"}):
        manager.hears("READY")
        manager.hears("WATCHDOG", 5)
        times = len([message for message in manager.listen() if "WATCHDOG" in message])
        assert times <= (monotonic() - began) / 0.15 + 1  # it sends at half of the interval, and no faster


def test_a_watchdog_for_somebody_else(tmp_path, manager, notify):
    """WATCHDOG_PID is another process: the daemon has not been asked."""
    with daemon(tmp_path, env={**notify, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}) as server:
        manager.hears("READY")
        server.process.send_signal(signal.SIGHUP)
        manager.hears("READY", 2)
        assert not [message for message in manager.listen() if "WATCHDOG" in message]


def test_nobody_listens(connect, tmp_path):
    """A NOTIFY_SOCKET that is not there, or of which nobody reads, disturbs nothing."""
    with daemon(tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "missing")}) as server:
        assert connect(server.address).call("pid")
        assert server.end() == 0
