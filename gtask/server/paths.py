"""A path at which a server listens: its socket, the lock beside it, and who may take both over.

The lock file, ``<path>.lock``, is held as long as the server lives. It has the inode of the socket. So the next holder
of the lock knows its predecessor's socket, and may replace it although a master that has lost its daemon still listens
there. Then the new socket is bound under another name, and renamed when somebody serves there, so that a client finds a
socket that is served at any moment. Otherwise it is bound at the path itself: cleaners of ``/tmp`` leave alone what
stands in ``/proc/net/unix``, which knows no renaming.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from time import monotonic

from gtask.address import UNIX_PATH_LIMIT, Address, UnixAddress, shown
from gtask.errors import reason_of
from gtask.server import custody
from gtask.server.config import ServerConfig
from gtask.server.originals import close, new_socket, open_file, poll
from gtask.server.peers import command_of, listener_at

__all__ = [
    "LOCK",
    "AddressUnavailable",
    "bind_path",
    "bind_unix",
    "inode_of",
    "is_at",
    "lock_directory",
    "lock_path",
    "note",
]

LOCK, NEW = ".lock", "~"
"""The suffixes of the lock file, and of a socket that is about to get the path."""

PATIENCE = 1.0
"""Seconds to wait for a lock: a worker that a master had just forked when it was killed holds it for a moment."""


class AddressUnavailable(Exception):
    """Nothing can listen at this address; the message says why and what to do."""


def _identity(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def inode_of(path: str) -> tuple[int, int]:
    """Device and inode of what is at a path; raises OSError."""
    return _identity(os.lstat(path))


def is_at(descriptor: int, path: str) -> bool:
    """Whether this open file is the one at the path."""
    try:
        return inode_of(path) == _identity(os.fstat(descriptor))
    except FileNotFoundError:
        return False


def bind_unix(address: UnixAddress, config: ServerConfig, path: str = "") -> socket.socket:
    """Bind and listen, under another path if one is given."""
    sock = new_socket(socket.AF_UNIX)
    umask = os.umask(0o777 & ~config.socket_mode)  # so that there is no moment at which others could connect
    try:
        sock.bind(path or address.sockaddr)
        sock.listen(config.backlog)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise _occupied(address, "name") from error
        raise _unavailable(address, error) from error
    finally:
        os.umask(umask)
    return sock


def lock_path(address: UnixAddress) -> int:
    """The descriptor of the lock file, locked."""
    path = f"{address.path}{LOCK}"
    try:
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise _unavailable(address, error) from error
    try:
        custody.check_file(descriptor, path)
    except OSError as error:
        close(descriptor)
        raise _unavailable(address, error) from error
    deadline = monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if monotonic() > deadline:
                close(descriptor)
                raise _occupied(address) from None
            poll().poll(10)
        except OSError as error:
            if not os.fstat(descriptor).st_size:
                os.unlink(path)
            close(descriptor)
            raise AddressUnavailable(
                f"cannot listen at {shown(address)}: the lock {path} cannot be had: {reason_of(error)}. Choose a path "
                "on a file system that has locks, such as /run"
            ) from error
    if is_at(descriptor, path):
        return descriptor
    close(descriptor)  # its owner has removed it just before
    return lock_path(address)


def lock_directory(path: str) -> int:
    """The descriptor of the directory of a private socket, locked, so that cleaners of ``/tmp`` keep away from it."""
    descriptor = open_file(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def bind_path(address: UnixAddress, config: ServerConfig, lock: int) -> tuple[socket.socket, str]:
    """Listen at a path, in place of a socket that a dead server has left there; the lock is held.

    Returns:
        the socket, and the other path at which it waits until a master that has lost its keeper may be replaced, or "".
    """
    other = f"{address.path}{NEW}"  # the holder of the lock has this name, too
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(other).st_mode):
            os.unlink(other)
    temporary = ""
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(address.path)
        if not stat.S_ISSOCK(status.st_mode):
            raise AddressUnavailable(
                f"cannot listen at {shown(address)}: there is a file that is no socket. Choose another path, or remove "
                "it"
            )
        is_alive = listener_at(address) is not None
        if is_alive and os.pread(lock, 100, 0) != _record(status):
            raise _occupied(address)
        if is_alive and len(os.fsencode(other)) <= UNIX_PATH_LIMIT:
            temporary = other
        else:  # nobody is there, or no longer name could be bound: then clients are refused for a moment
            os.unlink(address.path)
    sock = bind_unix(address, config, temporary)
    if not temporary:
        note(lock, address.path)
    return sock, temporary


def note(lock: int, path: str) -> None:
    """Write into the lock file which socket is its holder's."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, _record(os.lstat(path)), 0)


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
