"""The listening sockets: bind, inherit, take over, bind again, unlink at the end.

:mod:`gtask.server.paths` knows what stands at a path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Collection

from gtask import address as addresses
from gtask.address import Address, TcpAddress, UnixAddress
from gtask.server import custody, users
from gtask.server.config import OpenSocket, ServerConfig
from gtask.server.estate import Inheritance, claim
from gtask.server.originals import POLLIN, accept, close, dup2, new_socket, poll, socket_of
from gtask.server.paths import (
    LOCK,
    AddressUnavailable,
    bind_path,
    bind_unix,
    inode_of,
    is_at,
    lock_directory,
    lock_path,
    note,
)
from gtask.server.peers import peer_of

__all__ = ["AddressUnavailable", "Listener", "listen"]


class Listener:
    """One listening socket, non-blocking.

    Args:
        address: where it is to listen.
        config: the server's options.
        for_metrics: whether the socket is for metrics, and not for clients.
        defer: whether an address at which a master without a keeper serves is left to it until :meth:`take_over`.

    Attributes:
        address: where it listens; a TCP port 0 has become the port that was chosen.
        for_metrics: as above.
        is_own: whether a server has bound the socket, and not the service manager.

    Raises:
        AddressUnavailable: it cannot listen there.
    """

    address: Address

    def __init__(self, address: Address, config: ServerConfig, for_metrics: bool = False, defer: bool = False) -> None:
        self.address = address
        self.for_metrics = for_metrics
        self._path = _path_of(address)
        self._config = config
        self._lock = self._guard = -1
        self._temporary = ""
        self._inode: tuple[int, int] | None = None
        self._inheritance: Inheritance | None = None
        self.is_own = True
        if isinstance(address, TcpAddress):
            self.socket = self._bind_or_claim(lambda: _bind_tcp(address, config), defer)
            self.address = TcpAddress(address.host, self.socket.getsockname()[1])
        elif address.abstract:
            self.socket = self._bind_or_claim(lambda: bind_unix(address, config), defer)
        else:
            with self._acting():
                self._lock = lock_path(address)
                is_new = not os.fstat(self._lock).st_size
                try:
                    self._bind(address, defer)
                except BaseException:  # the next one may try
                    if is_new:  # or it says which socket an orphaned master has
                        os.unlink(f"{address.path}{LOCK}")
                    close(self._lock)
                    raise
        self.socket.setblocking(False)

    def _acting(self) -> contextlib.AbstractContextManager[custody.Ids | None]:
        """The rights with which the path is touched."""
        config = self._config
        ids = users.identity(config.user, config.group) if config.user or config.group else None
        return custody.acting(self._path, ids) if self._path else contextlib.nullcontext()

    def _bind_or_claim(self, bind: Callable[[], socket.socket], defer: bool) -> socket.socket:
        """Listen where there is no path, if need be with the socket of a master that has lost its keeper."""
        try:
            return bind()
        except AddressUnavailable:
            trusted = {0, os.geteuid(), users.identity(self._config.user, "")[0]}
            self._inheritance = claim(self.address, trusted) if defer else None
            if self._inheritance is None:
                raise
            return self._inheritance.socket

    def _bind(self, address: UnixAddress, defer: bool) -> None:
        """Listen at the path; the lock is held."""
        self.socket, self._temporary = bind_path(address, self._config, self._lock)
        self._inode = inode_of(self._temporary or self._path)
        if not defer:
            self.take_over()
        if self._config.private and not self.for_metrics and self._guard < 0:
            self._guard = lock_directory(self._path)

    def take_over(self) -> None:
        """Take the address from a master that has lost its keeper, if there is one, which then drains.

        Raises:
            AddressUnavailable: the path cannot be had.
        """
        if self._inheritance is not None:
            self._inheritance.release()
            self._inheritance = None
        if self._temporary:
            try:
                with self._acting():
                    note(self._lock, self._temporary)
                    os.rename(self._temporary, self._path)
            except OSError as error:
                raise AddressUnavailable(f"cannot listen at {self.address}: {error.strerror or error}") from error
            self._temporary = ""

    @property
    def is_lost(self) -> bool:
        """Whether somebody has removed the socket's file, so that nobody finds this server any more."""
        return self._lock >= 0 and not self._temporary and not os.path.lexists(self._path)

    def bind_again(self) -> None:
        """Listen at the path anew, under the descriptor of old.

        Raises:
            AddressUnavailable: it cannot listen there.
        """
        if self._config.private and self._guard >= 0:
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(self._path), 0o700)
                close(self._guard)
                self._guard = -1
        address, old = UnixAddress(self._path), self.socket
        with self._acting():
            if not is_at(self._lock, f"{self._path}{LOCK}"):
                lock, self._lock = self._lock, lock_path(address)
                close(lock)
            self._bind(address, defer=False)
        self.socket.setblocking(False)
        dup2(self.fileno(), old.fileno(), False)
        self.socket.close()
        self.socket = old

    @classmethod
    def inherited(cls, descriptor: int, address: str = "", for_metrics: bool = False, is_own: bool = False) -> Listener:
        """A socket that listens already, and whose path is not this process's to remove; then call :meth:`configure`.

        Args:
            address: of the socket; by default that of the kernel, which does not know of a renamed path.
            for_metrics: as in the constructor.
            is_own: as above.

        Raises:
            AddressUnavailable: it is no listening socket.
        """
        self = cls.__new__(cls)
        self.for_metrics = for_metrics
        try:
            self.socket = socket_of(descriptor)
            listens = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise AddressUnavailable(f"descriptor {descriptor} is no socket: {error.strerror or error}") from error
        if not listens:
            self.socket.detach()
            raise AddressUnavailable(f"descriptor {descriptor} is a socket that does not listen")
        self.address = addresses.parse(address) if address else _address_of(self.socket)
        self._path = _path_of(self.address)
        self._lock, self._guard, self._temporary, self._inode = -1, -1, "", None
        self._inheritance, self.is_own = None, is_own
        if self._path:
            with contextlib.suppress(OSError):
                self._inode = inode_of(self._path)
        self.socket.setblocking(False)
        return self

    def configure(self, config: ServerConfig) -> None:
        """These are the server's options."""
        self._config = config

    def give_to(self, uid: int, gid: int) -> None:
        """Let this user own the socket's file."""
        if self.is_own and self._path:
            with self._acting():  # if it is that user's directory, the file is that user's already
                custody.give(self._temporary or self._path, self._inode, (uid, gid))

    @property
    def descriptors(self) -> set[int]:
        """The open descriptors: the socket, and the locks if there are any. A process that has a lock open holds it."""
        return {self.fileno(), self._lock, self._guard} - {-1}

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def was_replaced(self) -> bool:
        """Whether another socket has taken the path."""
        if self._inode is None:
            return False
        try:
            return inode_of(self._path) != self._inode
        except OSError:
            return True

    def accept(self) -> socket.socket | None:
        """The next connection, blocking; None if there is none, or none any more.

        Raises:
            OSError: the process or the machine has too many open files.
        """
        try:
            connection = accept(self.socket)
        except (BlockingIOError, ConnectionAbortedError):
            return None
        connection.setblocking(True)
        if isinstance(self.address, TcpAddress):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    @property
    def can_be_replaced(self) -> bool:
        """Whether it listens at a path that a daemon has made, and that the next can take over."""
        return self.is_own and bool(self._path)

    @property
    def can_be_claimed(self) -> bool:
        """Whether it listens where the next daemon can only listen with the very socket."""
        return self.is_own and not self._path

    @property
    def is_watched(self) -> bool:
        """Whether the socket's file is this process's to make anew."""
        return self._lock >= 0

    @property
    def has_more(self) -> bool:
        """Whether a connection waits to be accepted."""
        look = poll()
        look.register(self.socket, POLLIN)
        return bool(look.poll(0))

    def refuses(self, connection: socket.socket) -> str:
        """The reason why this connection is not to be served, or ""."""
        allowed = self._config.allow_uid
        if not allowed or isinstance(self.address, TcpAddress):
            return ""
        pid, uid = peer_of(connection)
        return "" if uid in allowed else f"process {pid} of user {uid} may not connect to {self.address} (allow_uid)"

    def let_go(self) -> None:
        """Close this process's descriptors; another process goes on listening."""
        self.socket.close()
        self._close_locks()

    def _close_locks(self) -> None:
        for descriptor in {self._lock, self._guard} - {-1}:
            close(descriptor)
        self._lock = self._guard = -1

    def close(self) -> None:
        """Stop listening, and remove the files that are this one's: the socket, and the lock beside it."""
        self.socket.close()
        if self._inheritance is not None:
            self._inheritance.close()
        if self._lock >= 0:
            self._remove_files()
            self._close_locks()

    def _remove_files(self) -> None:
        with self._acting():
            with contextlib.suppress(OSError):
                path = self._temporary or self._path
                if inode_of(path) == self._inode:
                    os.unlink(path)
            with contextlib.suppress(OSError):
                # While the path is another's its record stays: the next daemon may take it over.
                if not self._temporary and is_at(self._lock, f"{self._path}{LOCK}"):
                    os.unlink(f"{self._path}{LOCK}")
            if self._config.private and not self.for_metrics:
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(self._path))


def listen(config: ServerConfig, activated: Collection[Listener] = (), defer: bool = False) -> list[Listener]:
    """Listen at all addresses of the configuration, for clients first, then for metrics.

    Args:
        activated: sockets that the service manager has handed over; the configuration has their addresses, too.
        defer: as of :class:`Listener`.

    Raises:
        AddressUnavailable: it cannot listen at one of them. Then it listens at none.
    """
    listeners = list(activated)
    for listener in activated:
        listener.configure(config)
    there = {listener.address for listener in activated}
    try:
        for address in config.addresses:
            if isinstance(address, OpenSocket):
                listeners.append(Listener.inherited(address.descriptor))
                listeners[-1].configure(config)
            elif address not in there:
                listeners.append(Listener(address, config, defer=defer))
        _check_trust(config, [listener.address for listener in listeners if not listener.for_metrics])
        if config.metrics is not None:
            listeners.append(Listener(config.metrics, config, for_metrics=True))
    except BaseException:  # all or none
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _check_trust(config: ServerConfig, some: Collection[Address]) -> None:
    """Of sockets that others have opened the addresses are known only now."""
    try:
        for address in some:
            config.check_trust(address)
        config.check_allowed(some)
    except ValueError as error:
        raise AddressUnavailable(str(error)) from None


def _path_of(address: Address) -> str:
    """The absolute path of the socket's file, for the working directory may change; "" if there is none."""
    return os.path.abspath(address.path) if isinstance(address, UnixAddress) and not address.abstract else ""


def _address_of(sock: socket.socket) -> Address:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
        return UnixAddress("@" + text[1:] if text.startswith("\0") else text)
    return TcpAddress(name[0], name[1])


def _bind_tcp(address: TcpAddress, config: ServerConfig) -> socket.socket:
    sock = new_socket(address.family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address.sockaddr)
        sock.listen(config.backlog)
    except OSError as error:
        sock.close()
        in_use = f". Another program listens there: ss -ltnp 'sport = :{address.port}' tells which"
        hint = in_use if error.errno == errno.EADDRINUSE else ""
        raise AddressUnavailable(f"cannot listen at {address}: {error.strerror or error}{hint}") from error
    return sock
