"""Start a private server by exec, so that it is safe anywhere: under monkey-patching, with threads, with a hub.

The server dies with the process that started it: it holds the reading end of a pipe whose writing end only
that process has, and looks whether its parent is still the same in case a sibling inherited the writing end.

The child is started by posix_spawn, and neither by ``subprocess`` nor by what gevent makes of that. The one hangs where
``os`` alone is patched, for ``os.close`` then closes at the hub's next turn. The other lets other greenlets run
meanwhile, which may want the same server, and it needs the hub of the main thread.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from posix import close, posix_spawn, waitpid  # those of os may be monkey-patched
from posix import open as open_file

from gtask import address as addresses
from gtask import loading
from gtask.target import check_allow, check_target

__all__ = [
    "KEEPER",
    "MASTER",
    "SpawnedServer",
    "command_of",
    "open_standard_descriptors",
    "private_address",
    "spawn_server",
    "tidy_up",
]

MASTER = "gtask.server.daemon.application"
"""The module whose ``main`` is the program of a master."""

KEEPER = "gtask.server.daemon.private"
"""The module whose ``main`` is the program of a keeper that belongs to a program: it can reload."""

UNKNOWN = 256
"""In place of an exit status that other code of this process has read."""

_LONGEST_DIRECTORY = addresses.UNIX_PATH_LIMIT - len(f"/{addresses.PRIVATE}12345678/socket~")
"""Bytes of the directory in which a private socket's directory can be made."""

_LONGEST_REASON, _LINES = 100_000, 12
"""Characters that are read of a server's reason for not serving, and lines that are shown of them."""

_IGNORED_BY_PYTHON = [signal.SIGPIPE, signal.SIGXFSZ]

_unreaped: list[SpawnedServer] = []


class SpawnedServer:
    """A server in a child process; made by :func:`spawn_server`. Also a context manager that stops it.

    Attributes:
        address: of the server, which may not listen there yet: clients wait for it.
        pid: its process id.
    """

    def __init__(
        self,
        target: str,
        address: addresses.Address,
        arguments: list[str],
        private: bool = False,
        reload: bool = False,
    ) -> None:
        self.address = address
        self._status: int | None = None
        self._reason = ""
        self._keep_alive = -1
        reap()
        try:
            loading.check("a server was started")
            open_standard_descriptors()
            arguments = [target, "--listen", str(address), *(["--reload"] if reload else []), *arguments]
            self._start(KEEPER if reload else MASTER, arguments, private)
        except BaseException:  # there is no server
            self.let_go()
            tidy_up(address)
            raise

    def _start(self, program: str, arguments: list[str], private: bool) -> None:
        environ = loading.deeper()
        reading, self._keep_alive = os.pipe()
        orders = {"parent": os.getpid(), "pipe": reading, "private": private, "by_program": True}
        command = command_of(program, [json.dumps(orders), *arguments])
        try:
            os.set_inheritable(reading, True)
            self.pid = posix_spawn(sys.executable, command, environ, setsigdef=_IGNORED_BY_PYTHON)
        finally:
            close(reading)

    def __repr__(self) -> str:
        return f"<SpawnedServer {self.pid} at {self.address}, {self.obituary() or 'running'}>"

    def obituary(self) -> str:
        """The end of the server, as a phrase for a message; "" while it runs."""
        if self._status is None:
            self._status = _exit_status(self.pid)
            if self._status is None:
                return ""
            self._reason = _last_lines(addresses.reason_file(self.address))
            tidy_up(self.address)
        why = f": {self._reason}" if self._reason else "; its stderr says why"
        if self._status == UNKNOWN:
            return f"the private server has ended{why}"
        how = (
            f"was killed by {_signal_name(-self._status)}" if self._status < 0 else f"ended with status {self._status}"
        )
        return f"the private server {how}{why}"

    def let_go(self) -> None:
        """Tell the server to stop, and do not wait for it."""
        if self._keep_alive >= 0:
            close(self._keep_alive)
            self._keep_alive = -1

    def abandon(self) -> None:
        """In a forked child: the server is the parent's, which alone keeps it alive and waits for its end."""
        self.let_go()
        self._status = UNKNOWN

    def kill(self) -> None:
        """Kill the server; its workers end when their clients close."""
        if not self.obituary():
            os.kill(self.pid, signal.SIGKILL)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server and its workers, and wait for its end. Stopping again does nothing.

        Args:
            timeout: seconds after which it is killed.
        """
        self.let_go()
        if not self.obituary():
            os.kill(self.pid, signal.SIGQUIT)  # a child that was forked meanwhile may hold the pipe, too
        deadline = time.monotonic() + timeout
        while not self.obituary():
            if time.monotonic() > deadline:
                self.kill()
                deadline = math.inf
            time.sleep(0.002)  # cooperative under monkey-patching, and short where it is not

    def stop_later(self) -> None:
        """Tell the server to stop, where waiting is impossible. The start of the next server reaps this one."""
        self.let_go()
        if not self.obituary():
            os.kill(self.pid, signal.SIGQUIT)
            _unreaped.append(self)

    def __enter__(self) -> SpawnedServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def spawn_server(
    target: str,
    address: str | addresses.Address | None = None,
    *,
    name: str = "",
    allow: Sequence[str] = (),
    pickle: bool = False,
    insecure: bool = False,
    reload: bool = False,
    log_level: str = "warning",
) -> SpawnedServer:
    """Start a server in a child process, by exec. It dies with this process.

    Returns at once: clients wait until the application is loaded, and get an error if that fails.

    Args:
        target: the application, ``"module"`` or ``"module:attribute"``; found along this process's ``sys.path``.
        address: of the server (``unix:/path``, ``tcp://host:port``); by default a private unix socket.
        name: for messages and the process title; by default the target.
        allow: the modules whose functions may be called, if the target is ``"gtask.server.functions"``.
        pickle: whether the server consents to pickles from and to clients that do as well; see
            :class:`gtask.Client`. Default False.
        insecure: whether it may listen on TCP where other machines can connect, and ``pickle`` where any
            user can; default False.
        reload: whether it loads new code when a file of the application changes, for development; default False.
        log_level: of the server's log, which goes to this process's stderr: ``debug``, ``info``, ``warning`` or
            ``error``; default ``warning``.

    Raises:
        ValueError: the target or the address is none, or these options do not allow it.
        OSError: no process could be started.
        UsedWhileLoading: a module does this while a server loads it.
    """
    check_target(target)
    check_allow(target, tuple(allow))
    arguments = ["--log-level", log_level, *(["--name", name] if name else [])]
    arguments += [f"--allow={module}" for module in allow]
    arguments += ["--pickle"] if pickle else []
    arguments += ["--insecure"] if insecure else []
    if address is None:
        return SpawnedServer(target, private_address(), arguments, private=True, reload=reload)
    where = addresses.parse(address)
    if pickle:
        addresses.check_pickle(where, insecure)
    return SpawnedServer(target, where, arguments, reload=reload)


def command_of(module: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs ``main`` of a module in a fresh Python, which looks for modules where this one does.

    Args:
        module: its full name.
        arguments: what ``main`` finds in ``sys.argv``, behind the program's name.
    """
    path = json.dumps([os.path.abspath(entry) for entry in sys.path])
    boot = f"import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from {module} import main; sys.exit(main())"
    return [sys.executable, "-c", boot, path, *arguments]


def open_standard_descriptors() -> None:
    """Let descriptors 0, 1 and 2 lead to the null device if they are closed, for good.

    Otherwise a socket or a pipe would get such a number, and what somebody prints would go there.
    """
    with contextlib.suppress(OSError):  # at the limit of descriptors, where these are open
        while (descriptor := open_file(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        close(descriptor)


def private_address() -> addresses.UnixAddress:
    """A unix socket in a new directory that only this user can enter; the server removes both at its end.

    Where the directory for temporary files has so long a name that no socket fits into it, it lies in ``/tmp``.
    """
    usual = tempfile.gettempdir()
    directory = usual if len(os.fsencode(usual)) <= _LONGEST_DIRECTORY else "/tmp"
    return addresses.UnixAddress(os.path.join(tempfile.mkdtemp(prefix=addresses.PRIVATE, dir=directory), "socket"))


def reap() -> None:
    """Reap the servers that were stopped without waiting."""
    for server in _unreaped[:]:
        if server.obituary():
            with contextlib.suppress(ValueError):  # another thread has seen it, too
                _unreaped.remove(server)


def _exit_status(pid: int) -> int | None:
    """The exit status of a child, or the negative number of a signal; None while it runs."""
    try:
        ended, status = waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # gevent reaps all children where it reaps one, and tells only of its own
        return UNKNOWN
    return os.waitstatus_to_exitcode(status) if ended else None


def _last_lines(path: str) -> str:
    """The end of a text file; "" if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "\n".join(file.read(_LONGEST_REASON).rstrip().split("\n")[-_LINES:])
    except OSError:
        return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal has no name


def tidy_up(address: addresses.Address) -> None:
    """Remove a private address that its server, killed perhaps, has left behind; leave any other alone."""
    if isinstance(address, addresses.UnixAddress) and addresses.is_private(address):
        for path in (address.path, f"{address.path}.lock", addresses.reason_file(address)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(address.path))
