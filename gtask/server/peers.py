"""Who is at the other end of a unix socket."""

from __future__ import annotations

import socket
import struct
import sys

from gtask.address import UnixAddress
from gtask.server.originals import new_socket

__all__ = ["command_of", "listener_at", "peer_of"]


def listener_at(address: UnixAddress) -> int | None:
    """The process that listens at an address, 0 if that is not known; None if nobody does."""
    with new_socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.sockaddr)
            return peer_of(probe)[0]
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except OSError:
            return 0  # its backlog is full, or it is another user's: so it lives


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """The process at the other end of a unix socket, and its user; (0, -1) where the system does not tell."""
    if connection.family != socket.AF_UNIX or sys.platform != "linux":
        return 0, -1
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def command_of(pid: int) -> str:
    """The title of a process, or the beginning of its command."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(200).rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        words = ""
    return words or "of which no more is known"
