"""Opens connections, each in a greenlet of its own, so that a waiter who gives up does not end the attempt.

It tells the pool how each attempt ended. For a private server it starts that server first, and ends it at the end.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import gevent
import gevent.monkey
from gevent import socket as gevent_socket

from gtask import address as addresses
from gtask.address import Address, TcpAddress, UnixAddress
from gtask.aspects.logs.levels import Levels
from gtask.client.config import ClientConfig
from gtask.client.connection import Connection, Owner
from gtask.client.dialects.json import JsonConnection
from gtask.client.pool.slots import PoolSlot
from gtask.errors import ClientClosed, Error
from gtask.spawn import SpawnedServer
from gtask.wire.frames import Encoder
from gtask.wire.json.text import Encoder as JsonEncoder
from gtask.wire.messages import Greeting, RequestMeta
from gtask.wire.values.agreement import ConditionalFrame
from gtask.wire.values.offers import consented, hoped_for

__all__ = ["Connector", "Encode"]

Encode = Callable[[tuple[Any, ...], dict[str, Any], int, RequestMeta | None], bytes | ConditionalFrame]
"""Makes the frame of a call; raises EncodeError."""

CONNECT_TIMEOUT = 10.0
"""Seconds for a TCP connection to be made. Waiters have their own time-outs; this ends the attempt."""

SERVER_END = 10.0
"""Seconds that a private server gets to end before it is killed."""

SERVER_LOOK = 0.005
"""Seconds between looks whether it has ended."""


class Applicant(Owner, Protocol):
    """Who wants connections, and hears how the attempts ended."""

    def reached(self) -> None:
        """The server is there, though the worker is not yet ready."""

    def arrived(self, slot: PoolSlot, connection: Connection) -> None:
        """The worker has greeted."""

    def failed(self, slot: PoolSlot, reason: str, unreachable: bool) -> None:
        """There is no worker; perhaps no server either."""

    def setup_failed(self, slot: PoolSlot, hi: Greeting) -> None:
        """There is a worker, whose setup has raised."""


class Connector:
    """Opens the connections of one pool.

    Args:
        address: where the server is; None for a private server, which is started at the first attempt.
        config: the client's options.
        spawn: starts the private server.

    Attributes:
        connections: all that it has opened and that were not :meth:`forget`-ten.
    """

    def __init__(
        self,
        address: addresses.Address | None,
        config: ClientConfig,
        spawn: Callable[[], SpawnedServer] | None = None,
    ) -> None:
        self.address = address
        self.connections: set[Connection] = set()
        self._config = config
        self._spawn = spawn
        self._server: SpawnedServer | None = None
        is_json = config.codec == "json"
        self._connection = JsonConnection if is_json else Connection
        limit = config.limit_message
        self._encoder = JsonEncoder(limit) if is_json else Encoder(limit, hoped_for(consented(config.pickle)))
        self.encode: Encode = self._encoder.encode_request
        self._levels = Levels() if config.logs else None
        self._attempts: dict[PoolSlot, Any] = {}
        self._ending: SpawnedServer | None = None

    def prepare(self) -> None:
        """Start the private server, if that is wanted; never blocks."""
        if self._server is None and self._spawn is not None:
            self._server = self._spawn()
            self.address = self._server.address

    def start(self, slot: PoolSlot, pool: Applicant) -> None:
        """Begin an attempt for this slot. Never blocks; the pool is told how it ended."""

        def ended(_: object) -> None:
            self._attempts.pop(slot, None)
            if slot.state == "connecting" or not greenlet.successful():
                pool.interrupted()  # the greenlet was, at whatever line

        greenlet = gevent.spawn(self._attempt, slot, pool)
        self._attempts[slot] = greenlet
        greenlet.link(ended)

    @property
    def attempts(self) -> int:
        """How many are under way."""
        return len(self._attempts)

    def is_trying(self, slot: PoolSlot) -> bool:
        """Whether an attempt for this slot is under way."""
        return slot in self._attempts

    def forget(self, connection: Connection) -> None:
        """A connection was closed."""
        self.connections.discard(connection)

    def stop(self) -> None:
        """End all attempts."""
        for greenlet in list(self._attempts.values()):
            greenlet.kill(block=False)
        self._attempts.clear()

    def stop_server(self, then: Callable[[], object]) -> None:
        """End the private server, if there is one, and call a function when there is none any more. Never blocks."""
        server, self._server = self._server, None
        if server is not None:
            server.let_go()
            self._ending = server
            self._reap(server, then)
        elif self._ending is None:
            then()

    def abandon(self, error: ClientClosed) -> None:
        """In a forked child: close this process's copies of the sockets and forget all; say nothing to anybody."""
        self.stop()
        self._close_connections(error)
        for server in (self._server, self._ending):
            if server is not None:
                server.abandon()
        if self._server is not None:
            self._server = self.address = None
        self._ending = None

    def thread_ended(self, error: ClientClosed) -> None:
        """The hub in which all this was is no more: close the sockets, and end the private server without it."""
        self._attempts.clear()
        self._close_connections(error)
        for server in (self._server, self._ending):
            if server is not None:
                server.stop_later()
        self._server = self._ending = None

    def _close_connections(self, error: ClientClosed) -> None:
        for connection in self.connections:
            connection.abandon(error)
        self.connections = set()

    def _attempt(self, slot: PoolSlot, pool: Applicant) -> None:
        assert self.address is not None
        config, connection = self._config, None
        try:
            sock = connect(self.address, CONNECT_TIMEOUT)
            connection = self._connection(
                sock,
                self.address,
                pool,
                self._encoder,
                config.limit_message,
                config.name,
                config.timeout,
                self._levels,
                config.pickle,
            )
            connection.slot = slot
            slot.worker = connection
            self.connections.add(connection)
            pool.reached()
            hi = connection.greet(config.setup_timeout)
        except Error as error:  # some of which are OSErrors, too
            self._failed(slot, pool, str(error))
        except OSError as error:
            full = error.errno == errno.EAGAIN  # so says a unix socket, and waits for nobody
            reason = "its backlog is full" if full else (error.strerror or str(error)).lower()
            ours = error.errno in (errno.EMFILE, errno.ENFILE)  # for want of descriptors here, whatever is there
            self._failed(slot, pool, f"{reason} at {self.address}", unreachable=not ours)
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            if connection is not None:
                self._give_up(connection, "the client was closed while it connected")
            self._failed(slot, pool, "interrupted")
            raise
        else:
            if self._attempts.pop(slot, None) is None:
                self._give_up(connection, "nobody wants it any more")
            elif hi.exc is not None or hi.text:
                self._give_up(connection, "setup failed")
                pool.setup_failed(slot, hi)
            else:
                pool.arrived(slot, connection)

    def _give_up(self, connection: Connection, why: str) -> None:
        connection.close(ClientClosed(why))
        self.connections.discard(connection)

    def _failed(self, slot: PoolSlot, pool: Applicant, reason: str, unreachable: bool = False) -> None:
        if self._attempts.pop(slot, None) is not None:  # or it was stopped, and nobody wants to know
            obituary = self._server.obituary() if self._server is not None else ""
            pool.failed(slot, obituary or reason, unreachable and not obituary)

    def _reap(self, server: SpawnedServer, then: Callable[[], object]) -> None:
        """Look after a server that was told to end, so that it leaves no zombie."""
        deadline = monotonic() + SERVER_END
        timer = gevent.get_hub().loop.timer(SERVER_LOOK, SERVER_LOOK)

        def look() -> None:
            nonlocal deadline
            if server.obituary():
                timer.stop()
                timer.close()
                if self._ending is server:
                    self._ending = None
                    then()
            elif monotonic() > deadline:
                server.kill()
                deadline = math.inf

        timer.start(look, update=True)


def connect(address: Address, timeout: float) -> Any:
    """A connected non-blocking socket; blocks this greenlet.

    It is an ordinary socket, also under monkey-patching. gevent's own connect is not used on unix sockets:
    while the server's backlog is full it spins. Here that is an error, for the caller's backoff.

    Args:
        timeout: seconds to wait for a TCP peer; a unix socket connects at once or not at all.

    Raises:
        OSError: no connection; TimeoutError is one.
    """
    if isinstance(address, UnixAddress):
        sock = _PlainSocket(gevent_socket.AF_UNIX, gevent_socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(address.sockaddr)
        except BaseException:  # whatever it was, nobody will have the socket
            sock.close()
            raise
        return sock
    return _connect_tcp(address, timeout)


def _connect_tcp(address: TcpAddress, timeout: float) -> Any:
    cooperative = gevent_socket.create_connection(address.sockaddr, timeout=timeout)
    sock = _PlainSocket(fileno=cooperative.detach())
    sock.setblocking(False)
    sock.setsockopt(gevent_socket.IPPROTO_TCP, gevent_socket.TCP_NODELAY, 1)
    return sock


_PlainSocket: Any = gevent.monkey.get_original("socket", "socket")
