"""Sockets without a path, from a master that has lost its keeper to the daemon that comes next.

Nobody can listen at a TCP port, or at an abstract name, at which another still listens. So the master hands its socket
over, to a daemon of the same user that asks for it at a separate abstract name. The master goes on accepting until the
daemon serves. Both have the same socket meanwhile, so no connection is refused or lost.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Collection

from gtask.address import Address
from gtask.server.originals import accept, new_socket, socket_of

__all__ = ["Estate", "Inheritance", "claim"]

PATIENCE = 5.0
"""Seconds that a daemon waits for the socket. A master hands it over in its next turn."""

SERVES = b"."
"""The word of a daemon that serves, by which the master is released."""


class Estate:
    """In the master that has lost its keeper: the socket of one address, to be handed over.

    Args:
        address: where it listens.
        descriptor: the socket.
    """

    def __init__(self, address: Address, descriptor: int) -> None:
        self._descriptor = descriptor
        self._heirs: dict[int, socket.socket] = {}
        self._door = new_socket(socket.AF_UNIX)
        self._door.setblocking(False)
        try:
            self._door.bind(_name_of(address))
            self._door.listen(4)
        except OSError:  # the system has no such names
            self._door.close()

    @property
    def descriptors(self) -> Collection[int]:
        """Watched for something to read."""
        return {self._door.fileno(), *self._heirs} - {-1}

    @property
    def can_be_claimed(self) -> bool:
        """Whether there is a place at which a daemon can ask."""
        return self._door.fileno() >= 0

    def turn(self, ready: Collection[int]) -> bool:
        """Hand the socket to who asks; gives whether a daemon serves that has got it."""
        if self._door.fileno() in ready:
            self._hand_over()
        return any(self._serves(descriptor) for descriptor in list(self._heirs) if descriptor in ready)

    def close(self) -> None:
        """Hand nothing over any more."""
        for one in (self._door, *self._heirs.values()):
            one.close()
        self._heirs = {}

    def _hand_over(self) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as refused:  # an asker may be gone
            heir = refused.enter_context(accept(self._door))
            heir.setblocking(False)
            if _user_of(heir) in (0, os.geteuid()):
                socket.send_fds(heir, [b"!"], [self._descriptor])
                refused.pop_all()
                self._heirs[heir.fileno()] = heir

    def _serves(self, descriptor: int) -> bool:
        try:
            word = self._heirs[descriptor].recv(1)
        except BlockingIOError:
            return False
        except OSError:
            word = b""
        if word != SERVES:  # it has ended without having served
            self._heirs.pop(descriptor).close()
        return word == SERVES


class Inheritance:
    """In the daemon that comes next: a socket that it has got, whose master accepts until it is released."""

    def __init__(self, connection: socket.socket, sock: socket.socket) -> None:
        self.socket = sock
        self._connection = connection

    def release(self) -> None:
        """This daemon serves: the master need not."""
        with contextlib.suppress(OSError):  # it is gone
            self._connection.send(SERVES)
        self.close()

    def close(self) -> None:
        """This daemon ends, or serves: the master hears nothing more."""
        self._connection.close()


def claim(address: Address, users: Collection[int]) -> Inheritance | None:
    """Ask for the socket of this address; gives None if nobody hands it over.

    Args:
        users: whose masters are trusted.
    """
    connection = new_socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(_name_of(address))
        if _user_of(connection) in users:
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
            if descriptors:
                os.set_inheritable(descriptors[0], False)
                return Inheritance(connection, socket_of(descriptors[0]))
    except OSError:
        pass
    connection.close()
    return None


def _name_of(address: Address) -> str:
    return f"\0gtask-server without a keeper at {address}"


def _user_of(connection: socket.socket) -> int:
    """The user at the other end."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)
