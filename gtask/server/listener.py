"""The listening sockets: bind, take over a stale path, inherit, unlink at the end.

A unix path is guarded by a lock file beside it, ``<path>.lock``, which is held as long as the server lives. The file
has the inode of the socket. So the next holder of the lock knows its predecessor's socket, and may replace it although
a master that has lost its daemon still listens there. The socket is bound under another name and then renamed, so that
a client finds a socket at any moment.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
from collections.abc import Collection
from time import monotonic

from gtask import address as addresses
from gtask.address import UNIX_PATH_LIMIT, Address, TcpAddress, UnixAddress, shown
from gtask.errors import reason_of
from gtask.server.config import OpenSocket, ServerConfig
from gtask.server.peers import command_of, listener_at, peer_of

__all__ = ["AddressUnavailable", "Listener", "listen"]

LOCK, NEW = ".lock", "~"
"""The suffixes of the lock file, and of a socket that is about to get the path."""

PATIENCE = 1.0
"""Seconds to wait for a lock: a worker that a master had just forked when it was killed holds it for a moment."""


class AddressUnavailable(Exception):
    """Nothing can listen at this address; the message says why and what to do."""


class Listener:
    """One listening socket, non-blocking.

    Args:
        address: where it is to listen.
        config: the server's options.
        for_metrics: whether the socket is for metrics, and not for clients.

    Attributes:
        address: where it listens; a TCP port 0 has become the port that was chosen.
        for_metrics: as above.

    Raises:
        AddressUnavailable: it cannot listen there.
    """

    address: Address

    def __init__(self, address: Address, config: ServerConfig, for_metrics: bool = False) -> None:
        self.address = address
        self.for_metrics = for_metrics
        self._path = _path_of(address)
        self._config = config
        self._lock = -1
        self._inode: tuple[int, int] | None = None
        self._is_ours = True
        if isinstance(address, TcpAddress):
            self.socket = _bind_tcp(address, config)
            self.address = TcpAddress(address.host, self.socket.getsockname()[1])
        elif address.abstract:
            self.socket = _bind_unix(address, config)
        else:
            self._lock = _lock(address)
            is_new = not os.fstat(self._lock).st_size
            try:
                self.socket = _replace(address, config, self._lock)
            except BaseException:  # the next one may try
                if is_new:  # or it says which socket an orphaned master has
                    os.unlink(f"{address.path}{LOCK}")
                os.close(self._lock)
                raise
            self._inode = _inode(self._path)
        self.socket.setblocking(False)

    @classmethod
    def inherited(cls, descriptor: int, address: str = "", for_metrics: bool = False) -> Listener:
        """A socket that listens already, and whose path is not this process's to remove; then call :meth:`configure`.

        Args:
            address: of the socket; by default that of the kernel, which does not know of a renamed path.
            for_metrics: as in the constructor.

        Raises:
            AddressUnavailable: it is no listening socket.
        """
        self = cls.__new__(cls)
        self.for_metrics = for_metrics
        try:
            self.socket = socket.socket(fileno=descriptor)
            listens = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise AddressUnavailable(f"descriptor {descriptor} is no socket: {error.strerror or error}") from error
        if not listens:
            self.socket.detach()
            raise AddressUnavailable(f"descriptor {descriptor} is a socket that does not listen")
        self.address = addresses.parse(address) if address else _address_of(self.socket)
        self._path = _path_of(self.address)
        self._lock, self._inode, self._is_ours = -1, None, False
        if self._path:
            with contextlib.suppress(OSError):
                self._inode = _inode(self._path)
        self.socket.setblocking(False)
        return self

    def configure(self, config: ServerConfig) -> None:
        """These are the server's options."""
        self._config = config

    def give_to(self, uid: int, gid: int) -> None:
        """Let this user own the socket's file."""
        if self._is_ours and self._path:
            os.chown(self._path, uid, gid)

    @property
    def descriptors(self) -> set[int]:
        """The open descriptors: the socket, and the lock if there is one. A process that has the lock open holds it."""
        return {self.fileno(), self._lock} - {-1}

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def was_replaced(self) -> bool:
        """Whether another socket has taken the path."""
        if self._inode is None:
            return False
        try:
            return _inode(self._path) != self._inode
        except OSError:
            return True

    def accept(self) -> socket.socket | None:
        """The next connection, blocking; None if there is none, or none any more.

        Raises:
            OSError: the process or the machine has too many open files.
        """
        try:
            connection, _ = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        connection.setblocking(True)
        if isinstance(self.address, TcpAddress):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    @property
    def has_more(self) -> bool:
        """Whether a connection waits to be accepted."""
        return bool(select.select([self.socket], [], [], 0)[0])

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
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def close(self) -> None:
        """Stop listening, and remove the files that are this one's: the socket, and the lock beside it."""
        self.socket.close()
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                if _inode(self._path) == self._inode:
                    os.unlink(self._path)
            with contextlib.suppress(OSError):
                if _inode(f"{self._path}{LOCK}") == _identity(os.fstat(self._lock)):
                    os.unlink(f"{self._path}{LOCK}")
            if self._config.private and not self.for_metrics:
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(self._path))
            os.close(self._lock)
            self._lock = -1


def listen(config: ServerConfig, activated: Collection[Listener] = ()) -> list[Listener]:
    """Listen at all addresses of the configuration, for clients first, then for metrics.

    Args:
        activated: sockets that the service manager has handed over; the configuration has their addresses, too.

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
                listeners.append(Listener(address, config))
        if config.metrics is not None:
            listeners.append(Listener(config.metrics, config, for_metrics=True))
    except BaseException:  # all or none
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _path_of(address: Address) -> str:
    """The absolute path of the socket's file, for the working directory may change; "" if there is none."""
    return os.path.abspath(address.path) if isinstance(address, UnixAddress) and not address.abstract else ""


def _identity(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _inode(path: str) -> tuple[int, int]:
    return _identity(os.lstat(path))


def _address_of(sock: socket.socket) -> Address:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
        return UnixAddress("@" + text[1:] if text.startswith("\0") else text)
    return TcpAddress(name[0], name[1])


def _bind_tcp(address: TcpAddress, config: ServerConfig) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
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


def _bind_unix(address: UnixAddress, config: ServerConfig, path: str = "") -> socket.socket:
    """Bind and listen, under another path if one is given."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~config.socket_mode)  # so that there is no moment at which others could connect
    try:
        sock.bind(path or address.sockaddr)
        if path:
            os.chmod(path, config.socket_mode)
        sock.listen(config.backlog)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise _occupied(address, "name") from error
        raise _unavailable(address, error) from error
    finally:
        os.umask(umask)
    return sock


def _lock(address: UnixAddress) -> int:
    """The descriptor of the lock file, locked."""
    path = f"{address.path}{LOCK}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unavailable(address, error) from error
    deadline = monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if monotonic() > deadline:
                os.close(descriptor)
                raise _occupied(address) from None
            select.poll().poll(10)
        except OSError as error:
            if not os.fstat(descriptor).st_size:
                os.unlink(path)
            os.close(descriptor)
            raise AddressUnavailable(
                f"cannot listen at {shown(address)}: the lock {path} cannot be had: {reason_of(error)}. Choose a path "
                "on a file system that has locks, such as /run"
            ) from error
    with contextlib.suppress(FileNotFoundError):
        if _inode(path) == _identity(os.fstat(descriptor)):
            return descriptor
    os.close(descriptor)  # its owner has removed it just before
    return _lock(address)


def _replace(address: UnixAddress, config: ServerConfig, lock: int) -> socket.socket:
    """Listen at this path, in place of a socket that a dead server has left there; the lock is held."""
    predecessor = os.pread(lock, 100, 0)
    try:
        status = os.lstat(address.path)
        if not stat.S_ISSOCK(status.st_mode):
            raise AddressUnavailable(
                f"cannot listen at {shown(address)}: there is a file that is no socket. Choose another path, or remove "
                "it"
            )
        if predecessor != _record(status) and _is_alive(address):
            raise _occupied(address)
    except FileNotFoundError:
        pass
    temporary = f"{address.path}{NEW}"  # the holder of the lock has this name, too
    if len(os.fsencode(temporary)) > UNIX_PATH_LIMIT:
        return _bind_in_place(address, config, lock)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(temporary).st_mode):  # else binding will fail
            os.unlink(temporary)
    sock = _bind_unix(address, config, temporary)
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, _record(os.lstat(temporary)), 0)
        os.rename(temporary, address.path)
    except OSError as error:
        sock.close()
        os.unlink(temporary)
        raise _unavailable(address, error) from error
    return sock


def _bind_in_place(address: UnixAddress, config: ServerConfig, lock: int) -> socket.socket:
    """Listen at a path beside which no longer one could be bound. Clients are refused for a moment."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address.path)
    sock = _bind_unix(address, config)
    os.ftruncate(lock, 0)
    os.pwrite(lock, _record(os.lstat(address.path)), 0)
    return sock


def _record(status: os.stat_result) -> bytes:
    # The time, too, because the number of an inode is soon used again. Nothing that is done to a socket changes it.
    return b"%d %d %d\n" % (status.st_dev, status.st_ino, status.st_mtime_ns)


def _occupied(address: UnixAddress, what: str = "path") -> AddressUnavailable:
    pid = listener_at(address)
    who = f" (it is process {pid}, {command_of(pid)})" if pid else ""
    return AddressUnavailable(
        f"cannot listen at {shown(address)}: another server does. Stop it, or choose another {what}{who}"
    )


def _unavailable(address: Address, error: OSError) -> AddressUnavailable:
    file = f" ({error.filename})" if error.filename else ""
    return AddressUnavailable(f"cannot listen at {shown(address)}: {error.strerror or error}{file}")


def _is_alive(address: UnixAddress) -> bool:
    return listener_at(address) is not None
