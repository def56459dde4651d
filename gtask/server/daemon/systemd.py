"""The service manager's protocols: sd_notify(3), and socket activation, sd_listen_fds(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from time import monotonic

from gtask.server.originals import new_socket

__all__ = ["inherited_sockets", "notify", "reloading", "watchdog_interval"]

FIRST = 3
"""The first descriptor that is handed over."""


def notify(*lines: str) -> None:
    """Tell systemd, if it listens: ``READY=1``, ``STOPPING=1``, ``STATUS=...``, ``WATCHDOG=1``."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with contextlib.suppress(OSError), new_socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), "\0" + path[1:] if path.startswith("@") else path)


def reloading() -> None:
    """Tell systemd that a reload begins; ``READY=1`` tells its end."""
    notify("RELOADING=1", f"MONOTONIC_USEC={int(monotonic() * 1e6)}")


def watchdog_interval() -> float | None:
    """Seconds in which systemd wants to hear ``WATCHDOG=1``; None if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError):
        return None


def inherited_sockets() -> list[int]:
    """The descriptors of listening sockets that were handed to this process; other processes are not to see them."""
    mine = os.environ.get("LISTEN_PID") == str(os.getpid())
    count = os.environ.get("LISTEN_FDS", "0")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    found = list(range(FIRST, FIRST + int(count))) if mine and count.isdigit() else []
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return found
