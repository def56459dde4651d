"""Opens connections, each in a separate greenlet, so that a waiter who gives up does not end the attempt.

The pool hears how each attempt ended. A private server is started before the first attempt, and ended at the end.
"""

from __future__ import annotations

import errno
import math
import struct
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
import gevent.monkey
from gevent import socket as gevent_socket

from gtask import address as addresses
from gtask import serving
from gtask.address import Address, TcpAddress, UnixAddress
from gtask.aspects.caller import CallerAspects, standing_orders
from gtask.client.config import ClientConfig
from gtask.client.connection import Connection
from gtask.client.dialects import dialect_of
from gtask.client.forks import look
from gtask.client.loop import Alarm
from gtask.client.pool.slots import PoolSlot
from gtask.client.pool.who_serves import WrongServerError, check_server
from gtask.client.preamble import NO_ORDERS
from gtask.errors import ClientClosed, Error, reason_of
from gtask.spawn import SpawnedServer
from gtask.wire.messages import Greeting

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.pool.workers import Workers

__all__ = ["Connector"]

CONNECT_TIMEOUT = 10.0
"""Seconds for a TCP connection to be made. Waiters have their own time-outs; this ends the attempt."""

SERVER_END = 10.0
"""Seconds that a private server gets to end before it is killed."""

SERVER_LOOK = 0.005
"""Seconds between looks whether it has ended."""


class Connector:
    """Opens the connections of one pool.

    Args:
        address: where the server is; None for a private server, which is started at the first attempt.
        config: the client's options.
        spawn: starts the private server.

    Attributes:
        connections: all that it has opened and that were not :meth:`forget`-ten.
        is_loading: whether the last attempt failed because a private server is not there yet.
    """

    def __init__(
        self,
        address: addresses.Address | None,
        config: ClientConfig,
        spawn: Callable[[], SpawnedServer] | None = None,
    ) -> None:
        self.address = address
        self.connections: set[Connection] = set()
        self.is_loading = False
        self._config = config
        self._spawn = spawn
        self._server: SpawnedServer | None = None
        self._dialect = dialect_of(config)
        self.encode = self._dialect.encode_request
        self.aspects = CallerAspects(config, lambda: str(self.address))
        self._orders = standing_orders(config) or NO_ORDERS
        self._attempts: dict[PoolSlot, Any] = {}
        self._ending: SpawnedServer | None = None
        self._has_served = False  # whether the private server has accepted a connection

    def place(self, server: str) -> str:
        """Where the workers of a server of this name are, for a text that is the same each time."""
        return addresses.place(server, self.address)

    def prepare(self) -> None:
        """Start the private server, if that is wanted; never blocks."""
        if self._server is None and self._spawn is not None:
            self._server = self._spawn()
            self.address = self._server.address
            self._has_served = False

    def start(self, slot: PoolSlot, workers: Workers) -> None:
        """Begin an attempt for this slot. Never blocks; the pool hears how it ended."""

        def ended(_: object) -> None:
            self._attempts.pop(slot, None)
            if slot.state == "connecting" or not greenlet.successful():
                workers.interrupted()  # the greenlet was, at whatever line

        greenlet = gevent.spawn(self._attempt, slot, workers)
        self._attempts[slot] = greenlet
        greenlet.link(ended)

    @property
    def where(self) -> str:
        """Where the server is, for messages."""
        return addresses.shown(self.address)

    @property
    def attempts(self) -> int:
        """How many are under way."""
        return len(self._attempts)

    @property
    def is_for_own_server(self) -> bool:
        """Whether this process is a worker of the server."""
        return serving.is_served_by(self.address)

    @property
    def under_way(self) -> Iterator[Call]:
        """The calls that wait for replies, or to be sent on their connections."""
        for connection in self.connections:
            yield from (*connection.pending, *connection.behind)

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
            if server.obituary():
                then()
            else:
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

    def _attempt(self, slot: PoolSlot, workers: Workers) -> None:
        config, connection, sock = self._config, None, None
        try:
            self.prepare()  # the one before may have ended
            assert self.address is not None
            sock = self._connect(self.address)
            look()
            if not self.is_trying(slot):  # this is a forked child, and the attempt is the parent's
                sock.close()
                return
            orders, aspects = self._orders, self.aspects.all
            connection = Connection(sock, self.address, workers, self._dialect, config.name, aspects, orders)
            connection.channel = self._dialect.open_channel(sock)
            connection.slot = slot
            slot.worker = connection
            self.connections.add(connection)
            self._has_served = True
            workers.reached()
            hi = connection.greet(config.setup_timeout)
        except WrongServerError as error:
            self._refused(slot, workers, str(error))
        except Error as error:  # some of which are OSErrors, too
            self._failed(slot, workers, str(error))
        except OSError as error:
            full = error.errno == errno.EAGAIN  # so says a unix socket, and waits for nobody
            reason = "its backlog is full" if full else reason_of(error)
            ours = error.errno in (errno.EMFILE, errno.ENFILE)  # for want of descriptors here, whatever is there
            self._failed(slot, workers, f"{reason} at {self.where}", unreachable=not ours)
        except BaseException:  # a kill, a Timeout or a Ctrl-C may strike at any line
            self._undo(connection, sock)
            self._failed(slot, workers, "interrupted")
            raise
        else:
            if self._attempts.pop(slot, None) is None:
                self._give_up(connection, "nobody wants it any more")
            elif hi.exc is not None or hi.text:
                self._give_up(connection, "setup failed")
                workers.setup_failed(slot, hi)
            else:
                workers.arrived(slot)

    def _connect(self, address: Address) -> Any:
        """A socket that is connected to a server of the right user; raises as :func:`connect`, and WrongServerError."""
        sock = connect(address, CONNECT_TIMEOUT)
        if self._config.server_uid is not None:
            try:
                check_server(_peer_of(sock), address, self._config.server_uid)
            except BaseException:  # whatever it was, nobody will have the socket
                sock.close()
                raise
        return sock

    def _refused(self, slot: PoolSlot, workers: Workers, why: str) -> None:
        """Callers are told at once: the same would come of another attempt."""
        if self._attempts.pop(slot, None) is not None:
            workers.setup_failed(slot, Greeting(text=why))

    def _undo(self, connection: Connection | None, sock: Any) -> None:
        if connection is not None:
            self._give_up(connection, "the client was closed while it connected")
        elif sock is not None:
            sock.close()

    def _give_up(self, connection: Connection, why: str) -> None:
        connection.close(ClientClosed(why))
        self.connections.discard(connection)

    def _failed(self, slot: PoolSlot, workers: Workers, reason: str, unreachable: bool = False) -> None:
        if self._attempts.pop(slot, None) is None:
            return  # it was stopped, and nobody wants to know
        obituary = self._server.obituary() if self._server is not None else ""
        if self._server is not None and obituary:
            self._server.let_go()
            self._server = None  # the next attempt starts another
        self.is_loading = self._server is not None and unreachable
        if self.is_loading:
            workers.failed(slot, "the private server still loads its application", is_unreachable=False)
        elif not obituary:
            workers.failed(slot, reason, unreachable)
        elif self._has_served:
            workers.server_ended(slot, obituary)
        else:
            workers.setup_failed(slot, Greeting(text=obituary))

    def _reap(self, server: SpawnedServer, then: Callable[[], object]) -> None:
        """Look after a server that was told to end, so that it leaves no zombie."""
        started = monotonic()
        deadline = started + SERVER_END

        def look() -> None:
            nonlocal deadline
            now = monotonic()
            if server.obituary():
                if self._ending is server:
                    self._ending = None
                    then()
                return
            if now > deadline:
                server.kill()
                deadline = math.inf
            alarm.set(now + SERVER_LOOK, now)

        alarm = Alarm(gevent.get_hub().loop, look, holds=True)
        alarm.set(started + SERVER_LOOK, started)


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


def _peer_of(sock: Any) -> tuple[int, int]:
    """The process and the user who have opened the unix socket to which this one is connected."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(gevent_socket.SOL_SOCKET, gevent_socket.SO_PEERCRED, 12))
    return pid, uid


def _connect_tcp(address: TcpAddress, timeout: float) -> Any:
    cooperative = gevent_socket.create_connection(address.sockaddr, timeout=timeout)
    sock = _PlainSocket(fileno=cooperative.detach())
    sock.setblocking(False)
    sock.setsockopt(gevent_socket.IPPROTO_TCP, gevent_socket.TCP_NODELAY, 1)
    return sock


_PlainSocket: Any = gevent.monkey.get_original("socket", "socket")
