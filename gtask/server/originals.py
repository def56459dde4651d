"""The system's own functions, whatever the application or the program has monkey-patched, and whenever.

gevent and eventlet replace names in ``os``, ``select``, ``signal`` and ``socket``. The replacements wait in a hub,
which turns in no server, and know nothing of the processes that a server forks. The modules that are written in C keep
what they had.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import importlib.util
import socket as _any_socket
from _signal import pthread_sigmask, set_wakeup_fd
from collections.abc import Callable
from posix import close, dup2, fork, posix_spawn, read, wait4, waitpid, write
from posix import open as open_file
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import select
    import socket

__all__ = [
    "POLLHUP",
    "POLLIN",
    "POLLOUT",
    "POLLRDHUP",
    "accept",
    "close",
    "dup2",
    "fork",
    "handler_of",
    "new_socket",
    "open_file",
    "poll",
    "posix_spawn",
    "pthread_sigmask",
    "read",
    "set_handler",
    "set_wakeup_fd",
    "socket_of",
    "wait4",
    "waitpid",
    "write",
]

handler_of: Callable[[int], Any] = _signal.getsignal
"""As ``signal.getsignal``, but that SIG_DFL and SIG_IGN are numbers."""


def set_handler(number: int, handler: Any) -> Any:
    """As ``signal.signal``. The handler of before may be given back to it."""
    return _signal.signal(number, int(handler) if isinstance(handler, int) else handler)


def _own_select() -> Any:
    """A second ``select`` module: unlike that of ``sys.modules`` it has been in no other hands."""
    spec = importlib.util.find_spec("select")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _own_socket() -> type[socket.socket]:
    """The class that ``socket.socket`` was, and usually is."""
    known: list[Any] = _socket.socket.__subclasses__()
    own = [kind for kind in known if (kind.__module__, kind.__name__) == ("socket", "socket")]
    found: type[socket.socket] = own[0] if own else _any_socket.socket
    return found


_select = _own_select()
_Socket = _own_socket()
POLLHUP: int = _select.POLLHUP
POLLIN: int = _select.POLLIN
POLLOUT: int = _select.POLLOUT
POLLRDHUP: int = getattr(_select, "POLLRDHUP", 0)


def poll() -> select.poll:
    """An object to wait with for descriptors, as ``select.poll()`` makes it."""
    made: select.poll = _select.poll()
    return made


def new_socket(family: int, kind: int = _socket.SOCK_STREAM) -> socket.socket:
    """A new socket, as ``socket.socket(family, kind)`` makes it."""
    return _Socket(family, kind)


def socket_of(descriptor: int) -> socket.socket:
    """The object of a socket that is open already.

    Raises:
        OSError: the descriptor is no socket.
    """
    return _Socket(fileno=descriptor)


def accept(listener: socket.socket) -> socket.socket:
    """The next connection of a listening socket; the listener's own method would make it of the patched class."""
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    return _Socket(listener.family, listener.type, listener.proto, fileno=descriptor)
