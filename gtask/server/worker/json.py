"""What a worker needs for a client that speaks JSON, such as one of AnyEvent::Task, and how it recognises one."""

from __future__ import annotations

import contextlib
import socket
from time import monotonic

from gtask.server.worker.interface import Interface
from gtask.wire.json.conversation import JsonConversation
from gtask.wire.json.text import Decoder, Encoder

__all__ = ["JsonPeer", "first_byte"]


class JsonPeer:
    """A client that speaks JSON: it does not greet, and hears nothing but the replies to its calls.

    Args:
        sock: the connection.
        interface: what it calls; its setup has not run.
        limit: bytes that a text may have.

    Attributes:
        before_setup: an interface without hooks, in place of ``interface`` until its setup has run.
        encode, decoder, exchange: those of the connection.
    """

    def __init__(self, sock: socket.socket, interface: Interface, limit: int) -> None:
        self._socket = sock
        self.interface = interface
        self.before_setup = Interface({"setup": interface.setup}, name=interface.name)
        self.encode = Encoder(limit).encode
        self.decoder = Decoder(limit)
        self.exchange = JsonConversation()

    def hang_up(self) -> None:
        """Between checkouts: let nothing more come, unless something has come already, with which the next begins.

        The client cannot be asked to let go. On a unix socket nothing is lost: it hears of it when it sends.
        """
        if self.decoder.midway:
            return
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            with contextlib.suppress(OSError):  # it has hung up in this moment
                self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # it is gone


def first_byte(sock: socket.socket, deadline: float) -> bytes:
    """What the client has begun with, which is left to be read.

    Args:
        sock: the connection, blocking.
        deadline: when, on the monotonic clock, it must have begun.

    Returns:
        The byte; none if the client has hung up, or was silent. Then it can send nothing more, so that a request that
        it is just about to send goes to another worker.
    """
    sock.settimeout(max(1e-3, deadline - monotonic()))
    try:
        return sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        with contextlib.suppress(OSError):  # it has hung up in this moment
            sock.shutdown(socket.SHUT_RD)
        return sock.recv(1, socket.MSG_PEEK)
