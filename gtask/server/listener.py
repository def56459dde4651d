"""The listening sockets: bind, take over a stale path, unlink what is ours."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from gtask.address import Address, TcpAddress, UnixAddress
from gtask.server.config import ServerConfig

__all__ = ["AddressUnavailable", "Listener"]


class AddressUnavailable(Exception):
    """Nothing can listen at this address; the message says why and what to do."""


class Listener:
    """One listening socket, non-blocking.

    Attributes:
        address: where it listens; a TCP port 0 has become the port that was chosen.
    """

    def __init__(self, address: Address, config: ServerConfig) -> None:
        self.socket = _bind_tcp(address) if isinstance(address, TcpAddress) else _bind_unix(address, config.socket_mode)
        self.address = address
        self._private = config.private
        self._inode: tuple[int, int] | None = None
        if isinstance(address, TcpAddress):
            self.address = TcpAddress(address.host, self.socket.getsockname()[1])
        elif not address.abstract:
            self._inode = _inode(address.path)
        self.socket.listen(config.backlog)
        self.socket.setblocking(False)

    def fileno(self) -> int:
        return self.socket.fileno()

    def accept(self) -> socket.socket | None:
        """The next connection, blocking; None if there is none (any more)."""
        try:
            connection, _ = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        connection.setblocking(True)
        if isinstance(self.address, TcpAddress):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def let_go(self) -> None:
        """Close this process's descriptor; another process goes on listening."""
        self.socket.close()

    def close(self) -> None:
        """Stop listening and remove the socket's file, if it still is this one's."""
        self.socket.close()
        if isinstance(self.address, UnixAddress) and self._inode is not None:
            with contextlib.suppress(OSError):
                if _inode(self.address.path) == self._inode:
                    os.unlink(self.address.path)
                if self._private:
                    os.rmdir(os.path.dirname(self.address.path))


def _inode(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return (status.st_dev, status.st_ino)


def _bind_tcp(address: TcpAddress) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address.sockaddr)
    except OSError as error:
        sock.close()
        raise AddressUnavailable(f"cannot listen at {address}: {error.strerror or error}") from error
    return sock


def _bind_unix(address: UnixAddress, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~mode)  # so that there is no moment at which others could connect
    try:
        try:
            sock.bind(address.sockaddr)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or address.abstract:
                raise
            _remove_stale(address)
            sock.bind(address.sockaddr)
        if not address.abstract:
            os.chmod(address.path, mode)
    except OSError as error:
        sock.close()
        raise AddressUnavailable(f"cannot listen at {address}: {error.strerror or error}") from error
    except AddressUnavailable:
        sock.close()
        raise
    finally:
        os.umask(umask)
    return sock


def _remove_stale(address: UnixAddress) -> None:
    """Unlink the socket that a dead server left; refuse a living server's and what is no socket."""
    if not stat.S_ISSOCK(os.lstat(address.path).st_mode):
        raise AddressUnavailable(
            f"cannot listen at {address}: there is a file that is no socket. Choose another path, or remove it"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.sockaddr)
        except ConnectionRefusedError:
            os.unlink(address.path)
            return
        except BlockingIOError:
            pass  # its backlog is full, so it lives
    raise AddressUnavailable(f"cannot listen at {address}: another server does. Stop it, or choose another path")
