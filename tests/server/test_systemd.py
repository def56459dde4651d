"""What is said to the service manager, and what is taken from it."""

from __future__ import annotations

import os
import socket
from time import monotonic

import pytest

from gtask.server.daemon import systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """A socket on which the service manager would listen, at a path or an abstract name."""
    path = str(tmp_path / "notify") if request.param == "path" else f"@gtask-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + path[1:] if path.startswith("@") else path)
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield sock


def test_notify(manager):
    """The lines arrive as one datagram."""
    systemd.notify("READY=1", "STATUS=all is well")
    assert manager.recv(1000) == b"READY=1\nSTATUS=all is well"


def test_reloading(manager):
    """A reload is told with the monotonic time in microseconds, as Type=notify-reload wants it."""
    before = int(monotonic() * 1e6)
    systemd.reloading()
    first, second = manager.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, stamp = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(stamp) <= int(monotonic() * 1e6)


def test_nobody_listens(tmp_path, monkeypatch):
    """Without a service manager, or when it is gone, nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "x" * 200)
    systemd.notify("READY=1")


def test_a_manager_that_does_not_read(manager):
    """Its queue is full: what does not fit is lost, and nobody waits."""
    for _ in range(2000):
        systemd.notify("STATUS=" + "x" * 500)


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("3000000", None, 3.0), ("3000000", "mine", 3.0), ("3000000", "1", None), (None, None, None), ("", None, None),
        ("soon", None, None),
    ],
)  # fmt: skip
def test_watchdog_interval(monkeypatch, microseconds, pid, seconds):
    """It is told in microseconds, and meant for one process, or for whoever has the variable."""
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", str(os.getpid()) if pid == "mine" else pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval() == seconds


@pytest.fixture
def handed(monkeypatch):
    """``handed(pid, count)`` sets the variables of socket activation; gives the descriptors that are taken."""

    def take(pid, count):
        monkeypatch.setenv("LISTEN_PID", pid)
        monkeypatch.setenv("LISTEN_FDS", count)
        monkeypatch.setenv("LISTEN_FDNAMES", "a:b")
        return systemd.inherited_sockets()

    return take


def test_inherited_sockets(handed, monkeypatch):
    """They begin with descriptor 3, and are not for programs that this one starts; nor are the variables."""
    kept = []
    monkeypatch.setattr(systemd.os, "set_inheritable", lambda descriptor, on: kept.append((descriptor, on)))
    assert handed(str(os.getpid()), "2") == [3, 4]
    assert kept == [(3, False), (4, False)]
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


@pytest.mark.parametrize(("pid", "count"), [("1", "2"), ("", "2"), ("mine", "0"), ("mine", "many"), ("mine", "-1")])
def test_sockets_that_are_not_for_this_process(handed, pid, count):
    """Those of another process, or of none, are left alone, and the variables are gone all the same."""
    assert handed(str(os.getpid()) if pid == "mine" else pid, count) == []
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


def test_no_activation(monkeypatch):
    """Whoever is started by hand has no such variables."""
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert systemd.inherited_sockets() == []
